"""`kuulo llm batch`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags, job_flags
from kuulo.llm import options
from kuulo.llm.batch import AT_ONCE

if TYPE_CHECKING:
    from kuulo.llm.batch import Ledger, Request
    from kuulo.llm.plan import ChatPlan
    from kuulo.llm.session import Talk
    from kuulo.llm.templates import Template

SAY_EVERY_S = 60.0


@click.command()
@click.argument("source", metavar="PROMPTS.jsonl|FOLDER", type=click.Path(path_type=Path))
@click.option("--output", "-o", metavar="OUT.jsonl", type=click.Path(path_type=Path),
              help="Where the answers go. Without it: NAME.answers.jsonl beside the prompts.")  # fmt: skip
@click.option("--template", "-t", metavar="NAME|FILE", help="What is asked about each file of a folder.")
@click.option("--param", "-p", "params", nargs=2, multiple=True, metavar="NAME VALUE", help="A template's variable.")
@click.option("--concurrency", type=click.IntRange(1, 1024), metavar="N",
              help=f"Questions at a time. Without it: {AT_ONCE}, or fewer where memory is short.")  # fmt: skip
@click.option("--part", metavar="I/N", help="The I-th of N parts of the prompts alone, into a file of its own.")
@click.option("--any-model", is_flag=True, help="Ask this model also what names another one.")
@click.option("--retry", is_flag=True, help="Of a batch that is done: ask again what failed.")
@click.option("--overwrite", is_flag=True, help="Ask all again, and write over OUT.")
@flags.common(*options.GROUPS, table=options.OPTIONS)
@job_flags.on
@click.option("--dry-run", is_flag=True, help="Show what would be asked of which model, and ask nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Show errors alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the report for machines.")
def batch(
    source: Path,
    output: Path | None,
    template: str | None,
    params: tuple[tuple[str, str], ...],
    concurrency: int | None,
    part: str | None,
    any_model: bool,
    retry: bool,
    overwrite: bool,
    place: str,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **arguments: Any,
) -> int:
    """Many prompts: OpenAI's batch format in and out.

    A run that was stopped goes on when the same command is given again, and asks nothing that was answered. Lines that
    are not understood are reported in their place. OUT.report.json says what it came to.

    \b
    kuulo llm batch prompts.jsonl -o answers.jsonl -m qwen3-4b
    kuulo llm batch interviews/ -t summary -o summaries.jsonl
    kuulo llm batch prompts.jsonl -o answers.jsonl --on slurm
    """
    from kuulo.cli.ask import typed
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.errors import UsageError
    from kuulo.llm import batch as batches
    from kuulo.llm import plan, session, templates

    if overwrite and retry:
        raise UsageError("--overwrite asks all again, --retry what failed", do="give one of them")
    made = templates.find(template) if template else None
    requests, notes = _requests(source, made, dict(params))
    given = typed(arguments, (), made)
    target = output or source.with_name(f"{source.name.removesuffix('.jsonl')}.answers.jsonl")
    if (asked := job_flags.asked(place, arguments)) is not None:
        if part or retry:
            raise UsageError(
                "--part and --retry are for runs of this shell", do="a job has its own tasks, and kuulo jobs retry"
            )
        from kuulo.cli import llm_batch_job
        from kuulo.jobs.prompts_planning import Wanted

        wanted = Wanted(
            source, target, requests, given, made, template, dict(params), concurrency, any_model, overwrite
        )
        return llm_batch_job.submit(wanted, asked, notes, dry_run=dry_run, quiet=quiet, as_json=as_json)
    if part:
        requests, target = batches.part(requests, target, part)
    resolved = plan.make_for(given, concurrency, AT_ONCE)
    at_once = batches.at_once(resolved, concurrency)
    for note in () if quiet else notes:
        click.echo(note, err=True)
    if dry_run:
        return _dry_run(requests, resolved, target, at_once)
    stop_when_told()
    with session.opened(resolved) as talk:
        run = _Run(requests, talk, target, at_once, made, quiet)
        report = run.go(any_model=any_model, retry=retry, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    return _exit_code(report)


def _exit_code(report: Mapping[str, Any]) -> int:
    from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED

    return EXIT_SOME_FAILED if report["counts"]["bad"] or report["counts"]["refused"] else EXIT_OK


def _requests(source: Path, template: Template | None, params: dict[str, str]) -> tuple[list[Request], list[str]]:
    """What is to be asked, and what to say of it. Raises UsageError."""
    from kuulo.errors import UsageError
    from kuulo.llm import batch as batches

    if not source.is_dir():
        if template is not None or params:
            raise UsageError("-t is for a folder: the lines of a batch file are whole questions", do="leave -t out")
        return batches.read(source), []
    if template is None:
        raise UsageError("what is asked about each file?", do=f"kuulo llm batch {source} -t summary")
    found, left = batches.of_folder(source, template, params)
    shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    return found, [f"left out, neither transcripts nor texts: {shown}"] if left else []


def _dry_run(requests: Sequence[Request], resolved: ChatPlan, target: Path, at_once: int) -> int:
    from kuulo import naming

    bad = [one for one in requests if one.body is None]
    click.echo(f"model: {resolved.model_name or 'the one that the endpoint has'} ({resolved.why})")
    click.echo(f"questions: {len(requests) - len(bad)}, {at_once} at a time -> {naming.shown(target)}")
    for one in bad:
        click.echo(f"line {one.line}: {one.why}")
    return 0


class _Run:
    """One batch: from requests to OUT and its report."""

    def __init__(
        self,
        requests: Sequence[Request],
        talk: Talk,
        target: Path,
        at_once: int,
        template: Template | None,
        quiet: bool,
    ) -> None:
        self._requests, self._talk, self._target = requests, talk, target
        self._identity = talk.identity
        self._at_once, self._template, self._quiet = at_once, template, quiet
        self._said = time.monotonic()

    def go(self, *, any_model: bool, retry: bool, overwrite: bool) -> dict[str, Any]:
        """Raises KuuloError."""
        from kuulo.jobs import claims
        from kuulo.llm import batch as batches

        model = self._talk.client.endpoint.model
        requests = batches.settled(self._requests, batches.defaults(self._talk), model, any_model)
        key = batches.whole_key(requests, self._identity)
        before = batches.report_of(self._target)
        is_same = before.get("key") == key and batches.is_whole(self._target, before)
        if is_same and not retry and not overwrite:
            self._say(f"all is done already: {self._target}")
            if _exit_code(before):
                self._say("some failed: --retry asks them again")
            return before
        if self._target.exists() and not is_same and not overwrite:
            raise batches.in_the_way(self._target)
        claims.check_free({self._target.parent: [self._target.name]})
        journal = batches.Journal(self._target.with_name(self._target.name + ".partial"))
        kept = {} if overwrite else batches.kept(self._target)
        if is_same and retry:
            kept |= self._answered(requests)
        try:
            if overwrite:
                batches.forget(self._target)
            journal.open()
        except OSError as error:
            raise batches.unwritable(journal.path, error) from error
        try:
            return self._asked(
                batches.Batch(requests, self._identity, self._talk.client, self._at_once, kept), key, journal
            )
        except KeyboardInterrupt:
            self._say("stopped: what was answered is kept. To go on, give the same command again.")
            raise
        finally:
            journal.close()

    def _asked(self, asked: Any, key: str, journal: Any) -> dict[str, Any]:
        from kuulo import atomic
        from kuulo.llm import batch as batches

        began = time.monotonic()
        try:
            lines = asked.go(journal, self._progress)
            ledger = batches.Ledger.of(asked.requests, lines, asked.was_kept)
            content = batches.encoded(lines)
            atomic.write_bytes(self._target, content)
            report = batches.report(
                ledger, self._target, content, key=key, elapsed_s=time.monotonic() - began, concurrency=self._at_once,
                note=self._talk.note(), template=self._template,
            )  # fmt: skip
            atomic.write_json(batches.report_path(self._target), report)
            journal.close()
            batches.forget(self._target)
        except OSError as error:
            raise batches.unwritable(self._target, error) from error
        self._closing(ledger, report)
        return report

    def _answered(self, requests: Sequence[Request]) -> dict[str, Any]:
        """The answers in OUT, which is of these requests, by the digest of what was asked."""
        from kuulo.llm import batch as batches

        lines = [json.loads(row) for row in self._target.read_bytes().splitlines()]
        pairs = zip(requests, lines, strict=True)
        return {one.digest(self._identity): line for one, line in pairs if batches.answered(line)}

    def _progress(self, done: int, of: int) -> None:
        now = time.monotonic()
        if not self._quiet and (now - self._said >= SAY_EVERY_S or sys.stderr.isatty()):
            self._said = now
            click.echo(
                f"\r{done} of {of}" if sys.stderr.isatty() else f"{done} of {of}", err=True, nl=not sys.stderr.isatty()
            )

    def _closing(self, ledger: Ledger, report: Mapping[str, Any]) -> None:
        seconds = report["elapsed_ms"] / 1000
        if sys.stderr.isatty():
            self._say("")
        for one in ledger.bad_lines:
            click.echo(f"line {one['line']}: {one['why']}", err=True)
        kept = f" ({ledger.kept} of them before)" if ledger.kept else ""
        speed = f", {ledger.completion_tokens / seconds:.1f} tokens a second" if seconds and not ledger.kept else ""
        self._say(
            f"{ledger.answered} of {ledger.requests} answered{kept}, {ledger.refused} refused, "
            f"{ledger.bad} not understood; "
            f"{ledger.completion_tokens} tokens in {seconds:.1f} s{speed}"
        )
        if ledger.cut:
            self._say(f"{ledger.cut} answers were cut: --max-tokens or the context was reached")
        self._say(f"{self._target}")

    def _say(self, text: str) -> None:
        if not self._quiet:
            click.echo(text, err=True)
