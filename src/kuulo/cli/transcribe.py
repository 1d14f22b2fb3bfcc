"""`kuulo transcribe`."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags

if TYPE_CHECKING:
    from kuulo.cli.progress import Lines
    from kuulo.environments.installed import Environment
    from kuulo.llm.following import Following
    from kuulo.plan import Diarizer, Model, Plan


@click.command()
@click.argument("inputs", nargs=-1, metavar="RECORDING|FOLDER...")
@flags.common("What", "Recognition", "Results", "Machine", "Showing")
@click.option("--overwrite", is_flag=True, help="The same as --existing overwrite.")
@click.option("--skip", is_flag=True, help="The same as --existing skip.")
@click.option("--resume", is_flag=True, help="The same as --existing resume, which is what happens anyway.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, with the native call, and do nothing.")
def transcribe(
    inputs: tuple[str, ...], overwrite: bool, skip: bool, resume: bool, dry_run: bool, **arguments: Any
) -> int:
    """Turn recordings into transcripts.

    Audio and video of any kind, folders of them, or - for standard input. The master copy NAME.json and the other
    formats are written to the output folder. A run that was stopped goes on where it was when the same command is
    given again.
    """
    from kuulo import audio, plan, site, survey
    from kuulo.errors import UsageError

    if not inputs:
        raise UsageError("no recording was named", do="kuulo transcribe interview.m4a, or a folder of recordings")
    given = flags.typed(arguments)
    chosen = [n for n, on in (("overwrite", overwrite), ("skip", skip), ("resume", resume)) if on]
    if len(chosen) > 1 or (chosen and "existing" in given):
        raise UsageError("of --overwrite, --skip, --resume and --existing, one at most can be given")
    if chosen:
        given["existing"] = chosen[0]
    settings_files = site.load()
    settings = site.settle(settings_files, given)
    if settings.values["print"] and settings.values["json"]:
        raise UsageError("--print and --json both want standard output", do="leave one out")
    found = audio.find(inputs)
    resolved = plan.resolve(settings, survey.facts(settings_files), max(1, len(found.recordings)))
    return carry_out(resolved, found, dry_run=dry_run, then=following(settings.values))


def following(values: Mapping[str, Any]) -> Following | None:
    """What is to follow, if anything. Raises KuuloError for all that would be refused then."""
    if not values["then"]:
        return None
    from kuulo.llm import following

    return following.of(values)


def carry_out(
    resolved: Plan, found: Any, *, dry_run: bool, watcher: Lines | None = None, then: Following | None = None
) -> int:
    """Do what is planned for the recordings that were found, or show it; the exit code. `watcher`: who is told, instead
    of standard error. `then`: tasks on the transcripts."""
    if dry_run:
        return _dry_run(resolved, found, as_json=bool(resolved.options["json"]), then=then)
    return _run(resolved, found, watcher, then)


def _run(resolved: Plan, found: Any, watcher: Lines | None, then: Following | None) -> int:
    from kuulo import run
    from kuulo.cli import progress
    from kuulo.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED

    stop_when_told()
    quiet, as_json = bool(resolved.options["quiet"]), bool(resolved.options["json"])
    watcher = watcher or progress.watcher(quiet=quiet)
    watcher.chosen(resolved)
    job = run.Run(resolved, found.recordings, found.failures, watcher)
    try:
        job.go()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be closed: nobody is there to be told
            watcher.close()
            watcher.stopped(job.report)
        return EXIT_INTERRUPTED
    finally:
        watcher.close()
    watcher.summary(job.report)
    if resolved.options["print"]:
        _print_transcripts(job)
    report = dict(job.report.to_json())
    code = EXIT_SOME_FAILED if job.report.count("failed") else EXIT_OK
    if then:
        from kuulo.cli import llm_task

        code = max(code, llm_task.follow(then, job, report, watcher, quiet=quiet))
    if as_json:
        click.echo(json.dumps(report, indent=1))
    return code


def stop_when_told() -> None:
    """SIGTERM and SIGUSR1 (schedulers) and SIGHUP (a closed terminal) stop a run as Ctrl-C does, so that scratch is
    emptied. Where SIGHUP is ignored, as under nohup, it stays so."""
    told = [signal.SIGTERM, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        told.append(signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in told:  # terminal and shell both send SIGHUP: the second must not cut the tidying short
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in told:
        signal.signal(each, stop)


def _print_transcripts(job: Any) -> None:
    """The text of each recording on standard output, with its name where there are several."""
    from kuulo import formats
    from kuulo.formats import json as master

    several = len(job.works) > 1
    for work in job.works:
        if work.outcome.state not in ("done", "skipped"):
            continue
        transcript = master.read_master(job.results.target(work, "json"))
        if several:
            click.echo(f"== {work.outcome.source}")
        click.echo(formats.render("txt", transcript, job.results.layout).decode("utf-8", "replace"), nl=False)


def _dry_run(resolved: Plan, found: Any, *, as_json: bool, then: Following | None) -> int:
    from pathlib import Path

    from kuulo import naming, runtimes
    from kuulo.cli import progress
    from kuulo.run import Run

    reads = [resolved.model.path] if resolved.model else []
    worker = runtimes.of(resolved.environment).command(Path("SCRATCH"), reads)
    job = Run(resolved, found.recordings, found.failures, progress.watcher(quiet=True))
    targets = [(w, [job.results.target(w, f) for f in ("json", *job.results.formats)]) for w in job.works]
    if as_json:
        plan_json = resolved.to_json()
        plan_json["recordings"] = [
            {"source": w.outcome.source, "outputs": [naming.shown(t) for t in outputs]} for w, outputs in targets
        ]
        plan_json["refused"] = [{"source": naming.shown(p), "why": e.what} for p, e in found.failures]
        plan_json["worker"] = worker
        plan_json["native"] = native_call(resolved)
        plan_json["then"] = then.to_json() if then else None
        click.echo(json.dumps(plan_json, indent=1))
        return 0
    click.echo(describe(resolved))
    click.echo(f"recordings ({len(targets)}):")
    for work, outputs in targets:
        click.echo(f"  {work.outcome.source} -> {', '.join(naming.shown(t) for t in outputs)}")
    for path, error in found.failures:
        click.echo(f"  {naming.shown(path)}: {error.what}")
    for line in then.shown() if then else ():
        click.echo(line)
    click.echo(f"worker ({resolved.workers} of {resolved.threads} threads): {shlex.join(worker)}")
    click.echo("native call:")
    click.echo("\n".join(f"  {line}" for line in native_call(resolved).splitlines()))
    return 0


def describe(resolved: Plan) -> str:
    """Engine, model, why, and every option that the engine is told."""
    model = resolved.model
    lines = [
        f"engine: {resolved.engine}",
        f"model:  {_model(model)}",
        f"why:    {resolved.why}",
        f"where:  {_where(resolved.environment)}",
        *_speakers(resolved.diarizer),
        *(f"note:   {note}" for note in resolved.notes),
        "options:",
    ]
    for name, value in sorted(resolved.engine_options().items()):
        by = "given" if name in resolved.given else "default"
        lines.append(f"  {name} = {value!r} ({by})")
    return "\n".join(lines)


def _speakers(chosen: Diarizer | None) -> list[str]:
    """Who tells the speakers apart."""
    if chosen is None:
        return []
    return [
        f"speakers: {chosen.engine}, {chosen.why}",
        f"  model:  {_model(chosen.model)}",
        *([f"  parts:  {', '.join(parts)}"] if (parts := _parts(chosen.model)) else []),
        f"  where:  {_where(chosen.environment)}",
    ]


def _parts(model: Model | None) -> list[str]:
    """The files of a pipeline, which are several models in one folder."""
    if model is None or not model.path.is_dir():
        return []
    files = (path.relative_to(model.path) for path in model.path.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if path.suffix != ".json")


def _model(model: Model | None) -> str:
    return f"{model.name} ({model.format}) {model.path}" if model else "its own"


def _where(environment: Environment | None) -> str:
    return str(environment.image_path or environment.folder) if environment else "installed beside Kuulo"


def native_call(resolved: Plan) -> str:
    """The exact call that the engine gets, as the engine's users would write it."""
    from kuulo import engines

    text: str = engines.module(resolved.engine).native(told(resolved), dict(resolved.raw))
    return text


def told(resolved: Plan) -> dict[str, Any]:
    """The options that the engine is told, and the model's path."""
    return {
        **resolved.engine_options(),
        "model_path": str(resolved.model.path) if resolved.model else None,
    }
