"""`kuulo site`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kuulo.errors import EXIT_USAGE

if TYPE_CHECKING:
    from kuulo.site_check import Finding
    from kuulo.site_init import Question

_file = click.argument("file", required=False, type=click.Path(path_type=Path))


@click.group()
def site() -> None:
    """The site's file: what a centre says once, so that its users need not.

    \b
    kuulo site init               ask, and write it
    kuulo site check              what is wrong with it
    kuulo deploy plan             what comes of it
    """


@site.command()
@_file
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    default=Path("/appl/kuulo"),
    show_default=True,
    help="The folder that is proposed for models, images and versions.",
)
@click.option("--yes", is_flag=True, help="Ask nothing: take what is proposed.")
@click.option("--overwrite", is_flag=True, help="Also where there is one.")
def init(file: Path | None, base: Path, yes: bool, overwrite: bool) -> None:
    """Ask what there is, and write the site's file: FILE, or where Kuulo looks for it.

    What Slurm, container programs and portals are found here is proposed. An empty answer leaves a key out.
    """
    import tomllib

    from kuulo import atomic, settings_file, site_file, site_init
    from kuulo.errors import UsageError

    path = file or _default()
    if path.exists() and not overwrite:
        raise UsageError("there is a site file already", looked_at=str(path), do="edit it, or give --overwrite")
    answers = {}
    for question in site_init.questions(base.absolute(), site_init.partitions()):
        answers[question.key] = question.proposal if yes else _ask(question)
    text = site_init.text(answers)
    data = tomllib.loads(text)
    site_file.parse(data, path)
    settings_file.values(data, "defaults", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, text.encode())
        path.chmod(0o644)
    except OSError as error:
        raise UsageError(
            f"the file cannot be written: {error.strerror}",
            looked_at=str(path),
            do="name another: kuulo site init FILE",
        ) from error
    click.echo(text, nl=False)
    click.echo(f"\nwritten to {path}", err=True)
    click.echo(f"{'KUULO_SITE=' + str(path) + ' ' if path != _default() else ''}kuulo site check", err=True)


def _ask(question: Question) -> str:
    answer: str = click.prompt(question.ask, default=question.proposal, show_default=bool(question.proposal), err=True)
    return answer.strip()


def _default() -> Path:
    import os

    from kuulo import site

    return Path(os.environ.get("KUULO_SITE") or site.SITE_FILE)


@site.command()
@_file
@click.option("--quiet", "-q", is_flag=True, help="Only what is wrong.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def check(file: Path | None, quiet: bool, as_json: bool) -> int:
    """Read the site's file as Kuulo does, and say what is wrong with it and what it comes to."""
    import os

    from kuulo import site, site_check
    from kuulo.errors import UsageError

    environ = {**os.environ, **({"KUULO_SITE": str(file)} if file else {})}
    loaded = site.load(environ)
    if loaded.site_file is None:
        raise UsageError("there is no site file", looked_at=str(_default()), do="kuulo site init")
    findings = site_check.check(loaded)
    bad = any(finding.kind == site_check.PROBLEM for finding in findings)
    if as_json:
        rows = [vars(finding) for finding in findings]
        click.echo(json.dumps({"schema": 1, "file": str(loaded.site_file), "ok": not bad, "findings": rows}, indent=1))
        return EXIT_USAGE if bad else 0
    for finding in findings:
        _show(finding)
    if not quiet or bad:
        said = "it cannot be deployed like this" if bad else "good" if not findings else "good, with that in mind"
        click.echo(f"{loaded.site_file}: {said}")
    return EXIT_USAGE if bad else 0


def _show(finding: Finding) -> None:
    color = "red" if finding.kind == "problem" else "yellow"
    click.echo(f"{click.style(finding.kind + ':', fg=color)} {finding.where}: {finding.what}")
    if finding.do:
        click.echo(f"  what to do: {finding.do}")
