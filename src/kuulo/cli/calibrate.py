"""`kuulo calibrate`."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags

if TYPE_CHECKING:
    from kuulo.speeds import Observation

SPEECH = Path(__file__).resolve().parent.parent / "jobs" / "speech.flac"
"""Eleven seconds of speech, for who names no recording of their own: examples/jfk.flac, which is in the public domain,
at 16 kHz."""

HEAD = ("engine", "model", "speakers", "device", "cores", "where", "speed", "load", "memory")


@click.command()
@click.argument("recordings", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--engine", "-e", "engines", multiple=True, metavar="NAME", help="This engine; may be repeated.")
@click.option("--model", "-m", "models", multiple=True, metavar="NAME", help="This model; may be repeated.")
@flags.named("language", "speakers", "speaker_engine", "batch_size", "device", "workers", "scratch")
@click.option(
    "--minutes",
    type=click.FloatRange(0.5, 120),
    default=5.0,
    show_default=True,
    metavar="N",
    help="Of sound for each worker.",
)
@click.option("--scheduler", metavar="NAME", help="slurm or local. Without it: Slurm where its commands are.")
@click.option("--partition", metavar="NAME", help="The partition whose nodes are measured.")
@click.option("--account", metavar="NAME", help="On whose account.")
@click.option("--qos", metavar="NAME", help="Quality of service.")
@click.option("--cpus", type=click.IntRange(1, 1024), metavar="N", help="CPU cores of a task.")
@click.option("--time", "time_", metavar="TIME", help="Time limit of a measurement.")
@click.option("--mem", metavar="SIZE", help="Memory of a measurement.")
@click.option("--slurm", "raw", multiple=True, metavar="KEY=VALUE", help="An option of sbatch, as it is. Repeatable.")
@click.option(
    "--table",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it into this table too: the site's, which its settings name as `speeds`.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")  # fmt: skip
def calibrate(
    recordings: tuple[Path, ...], engines: tuple[str, ...], models: tuple[str, ...], minutes: float,
    table: Path | None, as_json: bool, **arguments: Any,
) -> int:  # fmt: skip
    """Measure how fast engines and models are on a kind of node, so that jobs ask for the right time and memory.

    Each measurement is a job of its own over some minutes of sound: of the recordings that are named, best some like
    those that will come, or of a few seconds of speech again and again. It waits for them. Jobs that are done refine
    what was measured.

    \b
    kuulo calibrate -m large-v3 --partition gpu
    kuulo calibrate -m small -m medium --speakers 2 interview.wav
    """
    from kuulo import site, speeds
    from kuulo.errors import KuuloError
    from kuulo.jobs import calibration

    files = site.load()
    options = flags.typed(arguments)
    asked = {name: arguments.get(name) for name in ("scheduler", "partition", "account", "qos", "cpus", "time_", "mem")}
    asked |= {"raw": arguments["raw"], "array_limit": None, "mail": None}
    made: list[Observation] = []
    failed = 0
    for engine in engines or (None,):
        for model in models or _models(files, engine):
            named = {**options, **({"engine": engine} if engine else {}), **({"model": model} if model else {})}
            told: list[str] = []
            try:
                one = calibration.measure(
                    files, named, recordings or (SPEECH,), minutes, asked, functools.partial(_say, told)
                )
            except KuuloError as error:
                failed += 1
                click.echo(f"{engine or 'the usual engine'}, {model or 'its usual model'}: {error}", err=True)
                continue
            made.append(one)
    for path in (files.speeds_file(), *([table] if table else [])):
        if made:
            speeds.write(path, _with(speeds.read(path), made))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in made], indent=1))
    elif made:
        _show(made)
        click.echo(f"\nwritten to {table or files.speeds_file()}")
    return 1 if failed else 0


def _models(files: Any, engine: str | None) -> list[str | None]:
    """All models of the stores that some engine takes; the engine's own where there are none."""
    from kuulo import engines

    wanted = {format_ for spec in engines.specs() for format_ in spec.model_formats if engine in (None, spec.name)}
    found = [ref.name for ref in files.model_stores().list() if ref.format in wanted and ref.name != "miniature"]
    return list(dict.fromkeys(found)) or [None]


def _with(table: Any, made: list[Observation]) -> Any:
    """The job has written its own word already: that of `calibrate` takes its place."""
    from kuulo.speeds import Table

    measured = {(one.work, one.place, one.audio_s, round(one.speed, 6)) for one in made}
    kept = [o for o in table.observations if (o.work, o.place, o.audio_s, round(o.speed, 6)) not in measured]
    return Table(tuple(kept)).with_(made)


def _say(told: list[str], text: str) -> None:
    """Once each time it changes."""
    if text not in told[-1:]:
        told.append(text)
        click.echo(text, err=True)


def _show(made: list[Observation]) -> None:
    rows = [HEAD]
    for one in made:
        work = one.work
        rows.append(
            (
                work.engine,
                work.model or "its own",
                work.diarizer or "-",
                work.device,
                str(work.cpus),
                f"{one.place}, {one.node}",
                f"{one.speed:.1f} x",
                f"{one.load_s:.1f} s",
                f"{one.memory_bytes / 2**20:.0f} MB",
            )
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
