"""`kuulo llm task`."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags, job_flags
from kuulo.llm import options

if TYPE_CHECKING:
    from kuulo.cli.progress import Lines
    from kuulo.llm.chain import Chain, Name, Outcome
    from kuulo.llm.following import Following

ASKED = ("engine", "model", "endpoint", "key_file", "temperature", "top_p", "max_tokens", "seed")
"""Options of the answer that fit a task; the others are its own."""


@click.command()
@click.argument("names", required=False, metavar="TASK[,TASK...]")
@click.argument("paths", nargs=-1, metavar="TRANSCRIPT|FOLDER...", type=click.Path(path_type=Path))
@click.option("--param", "-p", "params", nargs=2, multiple=True, metavar="NAME VALUE",
              help="A parameter of a task, or a variable of its template.")  # fmt: skip
@click.option("--template", "-t", metavar="NAME|FILE", help="Another template than the task's own (for one task).")
@click.option("--concurrency", type=click.IntRange(1, 1024), metavar="N", default=1,
              help="Transcripts that are worked on at a time.  [default: 1]")  # fmt: skip
@flags.named(*ASKED, table=options.OPTIONS)
@flags.common("Server", table=options.OPTIONS)
@job_flags.on
@click.option("--overwrite", is_flag=True, help="Do all again, also where results were changed.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and ask nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Show errors alone.")
@click.option("--json", "as_json", is_flag=True, help="A report for machines on standard output.")
def task(
    names: str | None,
    paths: tuple[Path, ...],
    params: tuple[tuple[str, str], ...],
    template: str | None,
    concurrency: int,
    place: str,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **arguments: Any,
) -> int:
    """Work on transcripts: each task is a prompt that you can read, and answers that are checked.

    Results are written beside the transcript; the transcript itself stays as it is. Without a TASK, the tasks are
    listed. `kuulo transcribe --then TASK` does the same after transcribing.

    \b
    kuulo llm task summary out/interview.json
    kuulo llm task coding out/ -p codebook codes.csv
    kuulo llm task translation out/ -p to en
    kuulo llm task summary out/ --on slurm
    """
    from kuulo.errors import UsageError
    from kuulo.jobs import claims
    from kuulo.llm import chain, tasks

    if not names:
        _list(as_json)
        return 0
    if not paths:
        raise UsageError("no transcript was named", do=f"kuulo llm task {names} out/interview.json")
    named = tasks.names(names)
    if template and len(named) > 1:
        raise UsageError("-t is for one task", do="give the tasks one by one")
    made = chain.chain(named, dict(params), {named[0]: template} if template else {})
    found = chain.sources(paths)
    given, concurrency = flags.typed(arguments), min(concurrency, len(found))
    if (asked := job_flags.asked(place, arguments)) is not None:
        from kuulo.cli import llm_task_job
        from kuulo.jobs.transcripts_planning import Wanted

        wanted = Wanted(made, found, given, dict(params), template, concurrency, overwrite)
        return llm_task_job.submit(wanted, asked, dry_run=dry_run, quiet=quiet, as_json=as_json)
    if dry_run:
        return _dry_run(made, found, given, concurrency, as_json)
    claims.check_free(made.records(found))
    return carry_out(made, found, given, concurrency=concurrency, overwrite=overwrite, quiet=quiet, as_json=as_json)


def carry_out(
    made: Chain,
    found: Sequence[Path],
    given: dict[str, Any],
    *,
    concurrency: int,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Do the tasks on the transcripts; the exit code."""
    from kuulo.cli.transcribe import stop_when_told

    stop_when_told()
    outcomes = asked(made, found, given, concurrency=concurrency, overwrite=overwrite, quiet=quiet)
    if as_json:
        click.echo(json.dumps({"schema": 1, "tasks": [o.to_json() for o in outcomes]}, indent=1, ensure_ascii=False))
    return exit_code(outcomes)


def asked(
    made: Chain,
    found: Sequence[Path],
    given: dict[str, Any],
    *,
    concurrency: int = 1,
    overwrite: bool = False,
    but: Container[Name] = (),
    quiet: bool = False,
    watch: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Do the tasks, on so many transcripts at a time, and say on standard error how it goes, without a word of them.
    `overwrite` and `but` as of a Chain; `watch` is told of each."""
    from kuulo.llm import plan, session
    from kuulo.llm.asking import Asker

    resolved = plan.make_with(given, concurrency)
    with session.opened(resolved) as talk:
        asker = Asker(talk)
        if not quiet:
            click.echo(f"{resolved.engine}, model {talk.client.endpoint.model}: {resolved.why}", err=True)

        def tell(one: Outcome) -> None:
            _say(one, quiet)
            watch(one)

        outcomes = made.go(found, asker, talk.note(), overwrite=overwrite, but=but, at_once=concurrency, watch=tell)
        if not quiet:
            counted = "" if asker.counter.exact else "; tokens were estimated, since the server does not count them"
            if talk.context is None:
                counted += f"; {asker.context} tokens of context were assumed, since nobody says how many there are"
            again = f", {asker.refused} answers did not fit" if asker.refused else ""
            tokens = f"{talk.usage.prompt} tokens asked, {talk.usage.answer} answered"
            click.echo(f"{asker.asked} questions{again}; {tokens}{counted}", err=True)
    return outcomes


def follow(then: Following, job: Any, report: dict[str, Any], watcher: Lines, *, quiet: bool) -> int:
    """Do what is to follow a run on its transcripts, and tell of it in its report; the exit code. A model that cannot
    be asked takes nothing from the transcripts, which are there."""
    from kuulo import atomic
    from kuulo.errors import EXIT_SOME_FAILED, KuuloError
    from kuulo.llm import chain

    masters = [job.results.target(one, "json") for one in job.works if one.outcome.state in ("done", "skipped")]
    code = 0
    ended: list[dict[str, Any]] = []
    report["then"] = ended

    def watch(one: Outcome) -> None:
        ended.append(one.to_json())
        watcher.followed(one)

    if masters:
        overwrite = job.plan.options["existing"] == "overwrite"
        try:
            given, at_once = dict(then.flags), then.concurrency
            outcomes = asked(
                then.chain, masters, given, concurrency=at_once, overwrite=overwrite, quiet=quiet, watch=watch
            )
            ended[:] = chain.ended(outcomes)
            code = exit_code(outcomes)
        except KuuloError as error:
            click.echo(f"{then.names}: {error}", err=True)
            ended += chain.ended((), error)
            code = EXIT_SOME_FAILED
    watcher.over(ended)
    try:
        atomic.write_json(job.results.folder / "report.json", report)
    except OSError as error:
        click.echo(f"report.json cannot be written: {error}", err=True)
    return code


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """What the outcomes say to scripts."""
    from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED
    from kuulo.llm.chain import FAILED, PARTLY

    return EXIT_SOME_FAILED if any(one.state in (FAILED, PARTLY) for one in outcomes) else EXIT_OK


def _say(outcome: Outcome, quiet: bool) -> None:
    from kuulo.llm.chain import FAILED, PARTLY

    if quiet and outcome.state not in (FAILED, PARTLY):
        return
    head = f"{outcome.source}: {outcome.task} {outcome.state}"
    click.echo(f"{head}: {outcome.why}" if outcome.why else head, err=True)
    for note in [*outcome.notes, *([f"what to do: {outcome.do}"] if outcome.do else [])]:
        click.echo(f"  {note}", err=True)
    if outcome.outputs and not quiet:
        click.echo(f"  {' '.join(outcome.outputs)}", err=True)


def _dry_run(made: Chain, found: Sequence[Path], given: dict[str, Any], concurrency: int, as_json: bool) -> int:
    """What would be done; and the refusal, where there is one."""
    from kuulo import naming
    from kuulo.llm import plan

    resolved = plan.make_with(given, concurrency)
    if as_json:
        links = [{"task": x.task.name, "template": x.template.source, "template_sha256": x.template.digest,
                  "parameters": dict(x.values)} for x in made.links]  # fmt: skip
        shown = {"tasks": links, "transcripts": [naming.shown(p) for p in found], "plan": resolved.to_json()}
        click.echo(json.dumps(shown, indent=1))
        return 0
    click.echo(f"model: {resolved.model_name or 'the one that the endpoint has'} ({resolved.why})")
    for link in made.links:
        click.echo(f"{link.task.name}: template {link.template.name} ({link.template.origin})")
        for name, value in {**link.values, **link.variables}.items():
            click.echo(f"  {name} = {naming.shown(value).partition(chr(92) + 'n')[0]}")
    click.echo(f"transcripts ({len(found)}):")
    for path in found:
        records = ", ".join(path.name.removesuffix(path.suffix) + link.suffix for link in made.links)
        click.echo(f"  {naming.shown(path)} -> {naming.shown(records)}")
    return 0


def _list(as_json: bool) -> None:
    """The tasks and their parameters."""
    from kuulo.llm import tasks

    rows: list[dict[str, Any]] = []
    for name, (_, help_) in tasks.TASKS.items():
        parameters = [
            {"name": p.name, "help": p.help, "default": p.default} for p in tasks.module(name).TASK.parameters
        ]
        rows.append({"name": name, "help": help_, "parameters": parameters})
    if as_json:
        click.echo(json.dumps({"tasks": rows}, indent=1))
        return
    for row in rows:
        click.echo(f"{click.style(str(row['name']), bold=True)}: {row['help']}")
        for parameter in row["parameters"]:
            need = "" if parameter["default"] is not None else " (must be given)"
            click.echo(f"  -p {parameter['name']}: {parameter['help']}{need}")
