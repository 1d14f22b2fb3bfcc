"""A job's folder: all that is known of a job, for whoever looks at it, also when the scheduler has forgotten it.

    plan.json            the Batch: never changed after it is submitted
    round-1.json         a submission: which tasks, with what resources, the scheduler's ids. A retry is the next round
    job-1.sh finish-1.sh the batch scripts of that round, to read and to submit by hand
    tasks/0.jsonl        what task 0 says: JSON lines, over all its rounds and restarts
    tasks/0.log          what the engines print there
    tasks/then.jsonl     what the language model says that follows
    logs/                what the batch scripts print
    report.json          what became of each recording, once the job is over

No word of a transcript is in it. Only its owner may read it, since it names people's files.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from kuulo import atomic
from kuulo.errors import CannotRun, UsageError
from kuulo.schedulers.base import Resources

PLAN, REPORT = "plan.json", "report.json"
RESULT, THEN = "result", "then"
"""The event that tells what became of a result of a language model's, and who tells it beside tasks with a number."""

IN_WORK, LEFT = "in work", "left"
"""States of a piece beside those of report.py: somebody hears it, or nobody yet."""


@dataclass(frozen=True)
class Round:
    """One submission of tasks, of what counts them when they have ended, and of what a language model does then. `why`
    says why it is not the first. `asked_by`: "submit", "finish" (of itself) or "retry" (somebody). `then_resources`: of
    the language model, where they are not the job's."""

    number: int
    tasks: tuple[int, ...]
    resources: Resources
    array: str = ""
    finish: str = ""
    submitted: str = ""
    why: str = ""
    asked_by: str = "submit"
    then: str = ""
    then_resources: Resources | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(i for i in (self.array, self.finish, self.then) if i)


@dataclass
class PieceState:
    """What is known of a piece of a task. `done`: milliseconds of its audio that are heard, or prompts that are
    answered; `tries`: how often it was begun in a row without anything more than before; `fields`: the outcome as
    report.Outcome writes it, once it has ended."""

    state: str = LEFT
    done: int = 0
    tries: int = 0
    round: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class TaskState:
    """What a task says of itself. Times as POSIX seconds. `lives`: how often it was started; `finished`: the event with
    which its last life ended in good order, None while it runs or when it was killed. `starts` and `ends`: those events
    of all its lives."""

    number: int
    pieces: list[PieceState]
    lives: int = 0
    round: int = 0
    host: str = ""
    id: str = ""
    started: float | None = None
    heard_of: float | None = None
    ready: Mapping[str, Any] = field(default_factory=dict)
    finished: Mapping[str, Any] | None = None
    starts: list[Mapping[str, Any]] = field(default_factory=list)
    ends: list[Mapping[str, Any]] = field(default_factory=list)


class Folder:
    """The folder of a job. `name` is what people call it: k17."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    def rounds(self) -> list[Round]:
        """Its submissions, in order."""
        found = []
        for path in self.path.glob("round-*.json"):
            said = _json(path)
            said["tasks"], said["resources"] = tuple(said["tasks"]), Resources(**said["resources"])
            if own := said.get("then_resources"):
                said["then_resources"] = Resources(**own)
            found.append(Round(**said))
        return sorted(found, key=lambda r: r.number)

    def write_round(self, round_: Round) -> None:
        """Write it down, or anew. Raises OSError."""
        atomic.write_json(self.path / f"round-{round_.number}.json", asdict(round_))

    def report(self) -> dict[str, Any] | None:
        """What became of each recording; None as long as they are not counted."""
        try:
            return _json(self.path / REPORT)
        except CannotRun as error:
            # Not whether it is there now: it may have been written meanwhile.
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                return None
            raise

    def results(self, task: int | str) -> dict[tuple[str, str], dict[str, Any]]:
        """What was last said of each result of a language model's, by its transcript and its task."""
        told = (event for event in self.events(task) if event["type"] == RESULT)
        return {
            (event["source"], event["task"]): {k: v for k, v in event.items() if k not in ("type", "at")}
            for event in told
        }

    def events(self, task: int | str) -> Iterator[dict[str, Any]]:
        """What a task has said, in order. A line that was cut short by a kill is left out."""
        try:
            lines = (self.path / "tasks" / f"{task}.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def task(self, number: int, pieces: int) -> TaskState:
        """What a task of so many pieces says of itself."""
        known = TaskState(number, [PieceState() for _ in range(pieces)])
        for event in self.events(number):
            _take(known, event)
        return known


def _take(task: TaskState, event: Mapping[str, Any]) -> None:
    """One event of a task."""
    kind = event["type"]
    task.heard_of = event["at"]
    if kind == "starts":
        task.lives, task.round = task.lives + 1, event["round"]
        task.starts.append(event)
        task.host, task.id, task.started, task.finished = event["host"], event["id"], event["at"], None
        for piece in task.pieces:
            if piece.state == IN_WORK:  # its task was killed
                piece.state = LEFT
    elif kind == "ready":
        task.ready = event
    elif kind == "finished":
        task.finished = event
        task.ends.append(event)
        for piece in task.pieces:
            if piece.state == IN_WORK:  # it was told to stop: that is no fault of the recording's
                piece.state, piece.tries = LEFT, 0
    elif kind in ("begins", "progress", "ends"):
        _take_piece(task, task.pieces[event["piece"]], kind, event)


def _take_piece(task: TaskState, piece: PieceState, kind: str, event: Mapping[str, Any]) -> None:
    if kind == "begins":
        at = event["done"]
        piece.tries = piece.tries + 1 if at <= piece.done and piece.round == task.round else 1
        piece.state, piece.done, piece.round = IN_WORK, at, task.round
    elif kind == "progress":
        if event["done"] > piece.done:
            piece.done, piece.tries = event["done"], 0
    else:
        piece.state, piece.round, piece.fields = event["state"], task.round, event


class TaskLog:
    """The file into which a task says what it does. One process at a time writes it."""

    def __init__(self, folder: Path, task: int | str) -> None:
        path = folder / "tasks" / f"{task}.jsonl"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file: IO[bytes] = os.fdopen(descriptor, "ab", buffering=0)
        if self._file.tell():  # after a line that a kill cut short
            self._file.write(b"\n")

    def say(self, kind: str, **fields: Any) -> None:
        """Add an event. Raises OSError."""
        event = {"type": kind, "at": round(time.time(), 3), **fields}
        self._file.write(json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n")

    def close(self) -> None:
        self._file.close()


class Jobs:
    """The folder of all jobs of a user."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def new(self) -> Folder:
        """A fresh folder with the next number. Raises CannotRun."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = max((_number(p.name) for p in self.path.iterdir()), default=0) + 1
            while True:
                folder = self.path / f"k{number}"
                try:
                    folder.mkdir(mode=0o700)  # of two at the same time one makes it, also on shared file systems
                    return Folder(folder)
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise CannotRun(
                f"no job folder can be made: {error.strerror}",
                looked_at=str(self.path),
                do="name another place for them with KUULO_JOBS",
            ) from error

    def all(self) -> list[Folder]:
        """The jobs that were submitted, the oldest first."""
        try:
            found = [p for p in self.path.iterdir() if _number(p.name) and (p / PLAN).exists()]
        except FileNotFoundError:
            return []
        return [Folder(p) for p in sorted(found, key=lambda p: _number(p.name))]

    def find(self, name: str) -> Folder:
        """The job that people call `17`, `k17`, or by a scheduler's id. Raises UsageError."""
        wanted = name if name.startswith("k") else f"k{name}"
        every = self.all()
        for folder in every:
            if folder.name == wanted:
                return folder
        for folder in reversed(every):
            if any(name.partition("_")[0] in round_.ids for round_ in folder.rounds()):
                return folder
        raise UsageError(f"there is no job {name}", looked_at=str(self.path), do="kuulo jobs")


def now() -> str:
    """The time, as the files of a job have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _number(name: str) -> int:
    return int(name[1:]) if re.fullmatch(r"k[1-9]\d{0,8}", name) else 0


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_bytes())
    except OSError as error:
        raise CannotRun(f"the job's folder cannot be read: {error.strerror}", looked_at=str(path)) from error
    except ValueError as error:
        raise CannotRun("a file in the job's folder is damaged", looked_at=str(path)) from error
    if not isinstance(said, dict):
        raise CannotRun("a file in the job's folder is damaged", looked_at=str(path))
    return said


def tasks_of(folder: Folder, sizes: Sequence[int]) -> list[TaskState]:
    """All tasks, of so many pieces each."""
    return [folder.task(number, size) for number, size in enumerate(sizes)]
