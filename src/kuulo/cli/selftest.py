"""`kuulo selftest`."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kuulo.selftest.outcome import Node, Outcome

COLOURS = {"passed": "green", "failed": "red", "left out": "cyan"}


@click.command()
@click.option("--engine", "-e", "engines", multiple=True, metavar="NAME", help="This engine alone; may be repeated.")
@click.option(
    "--model", "-m", metavar="NAME|PATH",
    help="With this model alone. Without it: with the built-in miniature, and the model that the engine would take.",
)  # fmt: skip
@click.option("--gpu", is_flag=True, help="A GPU has to do the work: else it fails, and says so.")
@click.option(
    "--on", type=click.Choice(["slurm"]),
    help="As jobs, one on each kind of node of the places in [jobs]; on those with a GPU as with --gpu.",
)  # fmt: skip
@click.option(
    "--within", type=click.IntRange(min=1), default=60, show_default=True, metavar="MINUTES",
    help="How long to wait for these jobs. Those that have not ended are cancelled.",
)  # fmt: skip
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="Write what --json prints into a file too."
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def selftest(
    engines: tuple[str, ...],
    model: str | None,
    gpu: bool,
    on: str | None,
    within: int,
    report: Path | None,
    as_json: bool,
) -> int:
    """Try every engine that is installed with a recording whose words are known.

    \b
    kuulo selftest
    kuulo selftest --engine faster-whisper --gpu
    kuulo selftest --on slurm

    The recording goes through all of a run: speech detection, recognition, speakers, every format; offline, with
    empty caches and scratch of its own. Language models answer questions whose answers are known. Exit codes: 0 all
    passed, 1 some did, 3 none.
    """
    from kuulo import atomic, selftest, site
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.errors import CannotRun
    from kuulo.selftest import outcome

    stop_when_told()

    told = (lambda one: None) if as_json else _show
    if on:
        from kuulo.selftest import nodes as cluster

        note = (lambda text: None) if as_json else (lambda text: click.echo(text, err=True))
        nodes = cluster.run(site.load(), engines=engines, model=model, gpu=gpu, minutes=within, told=note)
        if not as_json:
            for node in nodes:
                _show_node(node)
    else:
        nodes = [selftest.run(site.load(), engines=engines, model=model, gpu=gpu, told=told)]
    said = outcome.to_json(nodes)
    if report:
        try:
            atomic.write_json(report, said)
        except OSError as error:
            raise CannotRun(f"the report cannot be written: {error.strerror}", looked_at=str(report)) from error
    click.echo(json.dumps(said, indent=1) if as_json else _verdict(nodes))
    return outcome.exit_code(nodes)


def _show(one: Outcome) -> None:
    """Its line, and what failed below it."""
    who = " + ".join(filter(None, [one.engine, one.speaker_engine if one.speaker_engine != one.engine else ""]))
    state = click.style(one.state.ljust(9), fg=COLOURS[one.state], bold=one.state == "failed")
    facts = [f"{stage.name}: {stage.found}" for stage in one.stages if stage.ok]
    time = f", {one.seconds:.1f} s" if one.seconds else ""
    click.echo(f"{state}{who}, {one.model or 'no model'}{time}")
    _wrapped("", "; ".join(facts))
    for stage in one.failures:
        _wrapped(f"{stage.name}: ", stage.found, fg="red")
        _wrapped("looked at: ", stage.looked_at)
        _wrapped("do: ", stage.do)


def _show_node(node: Node) -> None:
    title = f"[jobs.{node.place}] {node.kind}: {node.host or 'no node'}, job {node.job or '-'}"
    click.echo(click.style(title, bold=True))
    for one in node.outcomes:
        _show(one)
    if node.why:
        _wrapped("", node.why, fg="red")
        _wrapped("looked at: ", node.looked_at)
        _wrapped("do: ", node.do)


def _verdict(nodes: list[Node]) -> str:
    passed, failed = sum(node.passed for node in nodes), sum(node.failed for node in nodes)
    silent = sum(bool(node.why) for node in nodes)
    left_out = sum(one.state == "left out" for node in nodes for one in node.outcomes)
    said = [f"{passed} passed", f"{failed} failed"]
    said += [f"{left_out} left out"] if left_out else []
    said += [f"{silent} kinds of node not tried"] if silent else []
    return click.style(", ".join(said), bold=True, fg="red" if failed or silent or not passed else "green")


def _wrapped(title: str, text: str, fg: str | None = None) -> None:
    if not text:
        return
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    indent = " " * 9
    for line in text.splitlines():
        body = textwrap.wrap(line, width - 9 - len(title), break_long_words=False, break_on_hyphens=False) or [""]
        for part in body:
            click.echo(f"{indent}{click.style(title, dim=not fg, fg=fg)}{click.style(part, fg=fg)}")
            title = " " * len(title)
