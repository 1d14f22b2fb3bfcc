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
    from kuulo.jobs.folder import Folder
    from kuulo.jobs.overview import FileState, Overview
    from kuulo.schedulers.base import Scheduler

SHOWN = 10
HEAD = ("job", "submitted", "state", "files", "done", "failed", "in work", "left", "sound", "")
LOOK_MOST_S = 30.0
"""The scheduler of a whole site is not asked more often for a job that has run for minutes."""

LINE_EVERY_S = 60.0
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
    shown = overview.look_all(found if every else found[-SHOWN:])
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
        unit = "times real time" if one.kind == "recordings" else f"{one.kind} a second"
        click.echo(f"  about {amounts.duration(one.left_s)} are left, at {one.speed:.3g} {unit}")
    for note in one.notes:
        click.echo(f"  {note}")
    click.echo(f"  results: {one.output}")
    click.echo(f"  folder:  {one.folder}\n")
    if one.kind != "recordings":
        counts = ", ".join(f"{number} {state}" for state, number in one.counts.items())
        click.echo(f"{one.counted}: {counts}")
    else:
        _table([("state", "sound", "heard", "recording")] + [_file_row(file) for file in one.files])
    if one.then:
        click.echo()
    for each in one.then:
        what = ": ".join(each[name] for name in ("source", "task") if name in each) or "then"
        because = f": {each['why']}" if each.get("why") else ""
        click.echo(f"{what} {each['state']}{because}" + (f"\n  what to do: {each['do']}" if each.get("do") else ""))
        for path in each.get("outputs", ()):
            click.echo(f"  {path}")
    for file in one.files:
        if file.why:
            click.echo(f"\n{file.source}: {file.why}" + (f"\n  what to do: {file.do}" if file.do else ""))
    click.echo()
    rows = [("task", "state", "node", "pieces" if one.kind == "recordings" else one.kind, "done", "")]
    _table(rows + [(str(t.number), t.state, t.node, str(t.pieces), str(t.done), t.reason) for t in one.tasks])
    return 0


@jobs.command()
@click.argument("job")
@click.argument("recording", required=False)
@click.option("--task", "number", type=click.IntRange(0), metavar="N", help="Of this task alone.")
@click.option("--engine", "engines", is_flag=True, help="What the engines print too.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job is over.")
def logs(job: str, recording: str | None, number: int | None, engines: bool, follow: bool) -> int:
    """What a job's scripts have printed; with the name of a RECORDING, the tasks that hear it. Words of transcripts are
    never in it."""
    from kuulo.errors import UsageError
    from kuulo.jobs import overview

    folder = _jobs().find(job)
    tasks = {number} if number is not None else _tasks_with(folder, recording) if recording else None
    read: dict[Path, int] = {}
    began = time.monotonic()
    over = not follow
    while True:
        _print_new(_logs(folder.path, tasks, engines), read)
        if over:
            break
        _pause(began)
        over = overview.look(folder).state in overview.OVER
    if not read:
        raise UsageError("nothing has been printed yet", looked_at=str(folder.path / "logs"))
    return 0


def _tasks_with(job: Folder, recording: str) -> set[int]:
    """The tasks that hear a recording, by its path or its name. Raises KuuloError."""
    from kuulo import naming
    from kuulo.errors import UsageError
    from kuulo.jobs import plan_file
    from kuulo.jobs.batch import Batch

    batch = plan_file.read(job.path)
    if not isinstance(batch, Batch):
        raise UsageError(f"job {job.name} has no recordings", do=f"kuulo jobs logs {job.name}")
    items = {
        number
        for number, item in enumerate(batch.items)
        if recording in (str(item.path), item.path.name, naming.shown(item.path), naming.shown(item.path.name))
    }
    if not items:
        raise UsageError(f"job {job.name} has no recording {recording!r}", do=f"kuulo jobs show {job.name}")
    return {number for number, task in enumerate(batch.tasks) if any(piece.item in items for piece in task)}


def _logs(folder: Path, tasks: set[int] | None, engines: bool) -> list[Path]:
    """The files, the oldest first, then those of the engines."""
    paths = sorted((folder / "logs").glob("*.txt"), key=lambda path: path.stat().st_mtime)
    if engines:
        paths += sorted((folder / "tasks").glob("*.log"))
    names = None if tasks is None else {str(number) for number in tasks}
    return [path for path in paths if names is None or path.stem.rpartition("-")[2] in names]


def _print_new(paths: Sequence[Path], read: dict[Path, int]) -> None:
    """What was added to these files since so many bytes of them were read."""
    for path in paths:
        with path.open("rb") as file:
            file.seek(read.get(path, 0))
            text = file.read()
            if text or path not in read:
                click.echo(f"== {path.name}")
                click.echo(text.decode("utf-8", "backslashreplace"), nl=False)
            read[path] = file.tell()


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
    began, ended = time.monotonic(), []
    tell = _Teller(quiet=quiet)
    for folder in folders:
        while (one := overview.look(folder)).state not in overview.OVER:
            tell.about(one)
            if timeout is not None and time.monotonic() - began > timeout:
                raise CannotRun(f"job {one.name} is not over after {timeout:g} s: {one.state}")
            _pause(began, timeout)
        ended.append(one)
        tell.about(one)
    if as_json:
        click.echo(json.dumps([one.to_json() for one in ended], indent=1))
    return EXIT_OK if all(one.state == "done" for one in ended) else EXIT_SOME_FAILED


class _Teller:
    """Says on standard error how a job goes when that has changed; where it is no terminal, only a job's state and
    otherwise a line a minute."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._said, self._state, self._at = quiet, "", ("", ""), 0.0

    def about(self, one: Overview) -> None:
        line, state, now = _progress(one), (one.name, one.state), time.monotonic()
        due = state != self._state or sys.stderr.isatty() or now - self._at >= LINE_EVERY_S
        if due and line != self._said and not self._quiet:
            click.echo(line, err=True)
            self._said, self._state, self._at = line, state, now


def _pause(began: float, timeout: float | None = None) -> None:
    """Between two looks: longer, the longer it goes on."""
    gone = time.monotonic() - began
    seconds = min(LOOK_MOST_S, max(1.0, gone / 10))
    time.sleep(seconds if timeout is None else max(0.0, min(seconds, timeout - gone + 0.01)))


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="JOB...")
@_json
def cancel(names: tuple[str, ...], as_json: bool) -> int:
    """End jobs. What is done stays, and what was begun goes on where it was with `kuulo jobs retry`."""
    from kuulo.jobs import overview

    said = []
    for folder in [_jobs().find(name) for name in names]:
        one = overview.look(folder)
        over = one.state in overview.OVER - {overview.DAMAGED}  # what cannot be read may run
        if over:
            told = f"is over already: {one.state}"
        else:
            # What comes after first: it would take the end of the tasks for its beginning.
            ids = [id_ for round_ in folder.rounds() for id_ in reversed(round_.ids)]
            _scheduler(folder).cancel(ids)
            done = f": {one.count('done', 'skipped')} of {one.number} are done" if one.number else ""
            told = f"was cancelled{done}"
        said.append({"job": folder.name, "cancelled": not over, "state": one.state if over else "cancelled"})
        if not as_json:
            click.echo(f"job {folder.name} {told}")
    if as_json:
        click.echo(json.dumps(said, indent=1))
    return 0


def _scheduler(job: Folder) -> Scheduler:
    """A job's scheduler, also where its plan cannot be carried out any more. Raises KuuloError."""
    from kuulo import schedulers
    from kuulo.errors import CannotRun
    from kuulo.jobs.folder import PLAN

    try:
        return schedulers.of(str(json.loads((job.path / PLAN).read_bytes())["scheduler"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CannotRun(
            f"the plan of job {job.name} does not say who runs it", looked_at=str(job.path / PLAN), do="squeue --me"
        ) from error


@jobs.command()
@click.argument("job")
@click.option("--time", "time_", metavar="TIME", help="Another time limit.")
@click.option("--mem", metavar="SIZE", help="Another size of memory.")
@_json
def retry(job: str, time_: str | None, mem: str | None, as_json: bool) -> int:
    """Submit what failed or is left of a job once more."""
    from kuulo.jobs import amounts, retrying

    folder = _jobs().find(job)
    made = retrying.retry(folder, time_, mem)
    if as_json:
        click.echo(json.dumps({"job": folder.name, "round": made.number, "tasks": len(made.tasks)}, indent=1))
        return 0
    id_ = "" if "/" in made.array else f" ({made.array})"
    click.echo(f"job {folder.name}: {amounts.counted(len(made.tasks), 'task')} once more{id_}")
    return 0


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="JOB...")
@_json
def remove(names: tuple[str, ...], as_json: bool) -> int:
    """Remove the folders of jobs that are over. Results stay where they are."""
    import shutil

    from kuulo import naming
    from kuulo.errors import UsageError
    from kuulo.jobs import overview

    removed = []
    for folder in [_jobs().find(name) for name in names]:
        state = overview.look(folder).state
        if state not in overview.OVER:
            raise UsageError(f"job {folder.name} is not over: {state}", do=f"kuulo jobs cancel {folder.name}")
        shutil.rmtree(folder.path)
        removed.append({"job": folder.name, "folder": naming.shown(folder.path)})
        if not as_json:
            click.echo(f"removed {naming.shown(folder.path)}")
    if as_json:
        click.echo(json.dumps(removed, indent=1))
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


@jobs.command(hidden=True)
@click.argument("folder")
@click.argument("round_", type=int)
def then(folder: str, round_: int) -> int:
    """What a language model does with a job's transcripts: what its third script calls."""
    from kuulo.cli import llm_task
    from kuulo.jobs import then as work

    def ask(made: Any, found: Any, how: Any, overwrite: bool, but: Any, watch: Any) -> Any:
        given, at_once = dict(how.asked), how.concurrency
        return llm_task.asked(made, found, given, concurrency=at_once, overwrite=overwrite, but=but, watch=watch)

    return work.run(Path(folder), round_, ask)


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
    sound = amounts.duration(one.audio_ms / 1000) if one.kind == "recordings" else ""
    what = str(one.number) if one.kind == "recordings" else one.counted
    submitted = one.submitted[:16].replace("T", " ")
    return (one.name, submitted, one.state, what, *map(str, numbers), sound, one.reason)


def _progress(one: Overview) -> str:
    done, failed = one.count("done", "skipped"), one.count("failed")
    heard = f"{100 * one.done_ms // one.audio_ms}% heard" if one.audio_ms else ""
    parts = [f"{done} of {one.number} done", *([f"{failed} failed"] if failed else []), *([heard] if heard else [])]
    return f"job {one.name}: {one.state}{_because(one)}; {', '.join(parts)}"


def _because(one: Overview) -> str:
    return f" ({one.reason})" if one.reason else ""


def _file_row(file: FileState) -> tuple[str, ...]:
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
