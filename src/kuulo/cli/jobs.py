"""`kuulo jobs`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kuulo.jobs.overview import Overview

SHOWN = 10
HEAD = ("job", "submitted", "state", "files", "done", "failed", "in work", "left", "sound", "")
LOOK_EVERY_S = 2.0
_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.group(invoke_without_command=True)
@click.option("--all", "every", is_flag=True, help=f"All jobs, and not the last {SHOWN} alone.")
@_json
@click.pass_context
def jobs(context: click.Context, every: bool, as_json: bool) -> int:
    """Jobs that were submitted: how they go.

    Without a command: the last ones. A job has a number, k17; 17 and the scheduler's own id are understood too.
    """
    if context.invoked_subcommand:
        return 0
    from kuulo.jobs import overview

    found = _jobs().all()
    shown = [overview.look(job) for job in (found if every else found[-SHOWN:])]
    if as_json:
        click.echo(json.dumps([one.to_json() for one in shown], indent=1))
        return 0
    if not shown:
        click.echo(f"no job is in {_jobs().path}: kuulo submit makes one")
        return 0
    _table([HEAD, *map(_row, shown)])
    if len(shown) < len(found):
        click.echo(f"... and {len(found) - len(shown)} older: kuulo jobs --all")
    return 0


@jobs.command()
@click.argument("job")
@_json
def show(job: str, as_json: bool) -> int:
    """A job's recordings and tasks."""
    from kuulo.jobs import amounts, overview

    one = overview.look(_jobs().find(job))
    if as_json:
        click.echo(json.dumps(one.to_json(), indent=1))
        return 0
    click.echo(f"job {one.name}: {one.state}{_because(one)}")
    ids = ", ".join(id_ for id_ in one.ids if "/" not in id_)  # those of this machine's queue are paths
    click.echo(f"  submitted {one.submitted} ({' '.join(filter(None, (one.scheduler, ids)))})")
    if one.starts_at:
        click.echo(f"  starts about {_when(one.starts_at)}")
    if one.ends_by:
        click.echo(f"  its time limit is over at {_when(one.ends_by)}")
    if one.left_s is not None:
        click.echo(f"  about {amounts.duration(one.left_s)} are left")
    for note in one.notes:
        click.echo(f"  {note}")
    click.echo(f"  results: {one.output}")
    click.echo(f"  folder:  {one.folder}\n")
    _table([("state", "sound", "heard", "recording")] + [_file_row(file) for file in one.files])
    for file in one.files:
        if file.why:
            click.echo(f"\n{file.source}: {file.why}" + (f"\n  what to do: {file.do}" if file.do else ""))
    click.echo()
    rows = [("task", "state", "node", "pieces", "done", "")]
    _table(rows + [(str(t.number), t.state, t.node, str(t.pieces), str(t.done), t.reason) for t in one.tasks])
    return 0


@jobs.command()
@click.argument("job")
@click.option("--task", "number", type=click.IntRange(0), metavar="N", help="Of this task alone.")
@click.option("--engine", "engines", is_flag=True, help="What the engines print too.")
def logs(job: str, number: int | None, engines: bool) -> int:
    """What a job's scripts have printed. Words of transcripts are never in it."""
    from kuulo.errors import UsageError

    folder = _jobs().find(job)
    paths = sorted((folder.path / "logs").glob("*.txt"), key=lambda p: p.stat().st_mtime)
    if engines:
        paths += sorted((folder.path / "tasks").glob("*.log"))
    if number is not None:
        paths = [p for p in paths if p.stem.rpartition("-")[2] == str(number)]
    if not paths:
        raise UsageError("nothing has been printed yet", looked_at=str(folder.path / "logs"))
    for path in paths:
        click.echo(f"== {path.name}")
        click.echo(path.read_bytes().decode("utf-8", "backslashreplace"), nl=False)
    return 0


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="JOB...")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing.")
@_json
def wait(names: tuple[str, ...], timeout: float | None, quiet: bool, as_json: bool) -> int:
    """Wait until jobs are over. The exit code is theirs: 0 when all is done, 1 when something failed."""
    from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED, CannotRun
    from kuulo.jobs import overview

    folders = [_jobs().find(name) for name in names]
    began, told, ended = time.monotonic(), "", []
    for folder in folders:
        while (one := overview.look(folder)).state not in overview.OVER:
            if timeout is not None and time.monotonic() - began > timeout:
                raise CannotRun(f"job {one.name} is not over after {timeout:g} s: {one.state}")
            line = _progress(one)
            if line != told and not quiet:
                click.echo(line, err=True)
                told = line
            time.sleep(LOOK_EVERY_S)
        ended.append(one)
        if not quiet:
            click.echo(_progress(one), err=True)
    if as_json:
        click.echo(json.dumps([one.to_json() for one in ended], indent=1))
    return EXIT_OK if all(one.state == "done" for one in ended) else EXIT_SOME_FAILED


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="JOB...")
@_json
def cancel(names: tuple[str, ...], as_json: bool) -> int:
    """End jobs. What is done stays, and what was begun goes on where it was with `kuulo jobs retry`."""
    from kuulo import schedulers
    from kuulo.jobs import overview, plan_file

    said = []
    for folder in [_jobs().find(name) for name in names]:
        one = overview.look(folder)
        if one.state in overview.OVER:
            said.append({"job": folder.name, "cancelled": False, "state": one.state})
            if not as_json:
                click.echo(f"job {folder.name} is over already: {one.state}")
            continue
        # What comes after first: it would take the end of the tasks for its beginning.
        ids = [id_ for round_ in folder.rounds() for id_ in reversed(round_.ids)]
        schedulers.of(plan_file.read(folder.path).scheduler).cancel(ids)
        said.append({"job": folder.name, "cancelled": True, "state": "cancelled"})
        if not as_json:
            click.echo(f"job {folder.name} was cancelled: {one.count('done', 'skipped')} of {len(one.files)} are done")
    if as_json:
        click.echo(json.dumps(said, indent=1))
    return 0


@jobs.command()
@click.argument("job")
@click.option("--time", "time_", metavar="TIME", help="Another time limit.")
@click.option("--mem", metavar="SIZE", help="Another size of memory.")
@_json
def retry(job: str, time_: str | None, mem: str | None, as_json: bool) -> int:
    """Submit what failed or is left of a job once more."""
    from kuulo.jobs import retrying

    folder = _jobs().find(job)
    made = retrying.retry(folder, time_, mem)
    if as_json:
        click.echo(json.dumps({"job": folder.name, "round": made.number, "tasks": len(made.tasks)}, indent=1))
        return 0
    number = len(made.tasks)
    click.echo(f"job {folder.name}: {number} {'task' if number == 1 else 'tasks'} once more ({made.array})")
    return 0


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="JOB...")
def remove(names: tuple[str, ...]) -> int:
    """Remove the folders of jobs that are over. Results stay where they are."""
    import shutil

    from kuulo.errors import UsageError
    from kuulo.jobs import overview

    for folder in [_jobs().find(name) for name in names]:
        state = overview.look(folder).state
        if state not in overview.OVER:
            raise UsageError(f"job {folder.name} is not over: {state}", do=f"kuulo jobs cancel {folder.name}")
        shutil.rmtree(folder.path)
        click.echo(f"removed {folder.path}")
    return 0


@jobs.command(hidden=True)
@click.argument("folder")
@click.argument("round_", type=int)
@click.argument("number", type=int)
def task(folder: str, round_: int, number: int) -> int:
    """One task of a job: what its script calls."""
    from kuulo.jobs import task as work

    return work.run(Path(folder), round_, number)


@jobs.command(hidden=True)
@click.argument("folder")
@click.argument("round_", type=int)
def finish(folder: str, round_: int) -> int:
    """What comes after a job's tasks: what its second script calls."""
    from kuulo.jobs import finish as work

    return work.run(Path(folder), round_)


def _jobs() -> Any:
    from kuulo import site

    return site.load().jobs_folder()


def _row(one: Overview) -> tuple[str, ...]:
    from kuulo.jobs import amounts

    numbers = [
        one.count("done", "skipped"),
        one.count("failed"),
        one.count("in work", "being joined"),
        one.count("left"),
    ]
    sound = amounts.duration(one.audio_ms / 1000)
    submitted = one.submitted[:16].replace("T", " ")
    return (one.name, submitted, one.state, str(len(one.files)), *map(str, numbers), sound, one.reason)


def _progress(one: Overview) -> str:
    done, failed = one.count("done", "skipped"), one.count("failed")
    heard = f"{100 * one.done_ms // one.audio_ms}% heard" if one.audio_ms else ""
    parts = [f"{done} of {len(one.files)} done", *([f"{failed} failed"] if failed else []), *([heard] if heard else [])]
    return f"job {one.name}: {one.state}{_because(one)}; {', '.join(parts)}"


def _because(one: Overview) -> str:
    return f" ({one.reason})" if one.reason else ""


def _file_row(file: Any) -> tuple[str, ...]:
    from kuulo.jobs import amounts

    heard = f"{100 * file.done_ms // file.length_ms}%" if file.length_ms else ""
    return (file.state, amounts.duration(file.length_ms / 1000), heard, file.source)


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    sys.stdout.flush()
