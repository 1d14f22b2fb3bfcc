"""How a job goes, for people: what the scheduler says and what the job's folder says, as one. The core is pure."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kuulo import naming, report, schedulers
from kuulo.errors import CannotRun, KuuloError
from kuulo.jobs import account, amounts, packing, plan_file
from kuulo.jobs.account import ItemState
from kuulo.jobs.batch import TURNS, Batch
from kuulo.jobs.folder import IN_WORK, LEFT, THEN, Folder, PieceState, Round, TaskState, tasks_of
from kuulo.jobs.plan_file import Written
from kuulo.schedulers.base import CANCELLED, RUNNING, WAITING, State

FINISHING, LOST, DAMAGED = "finishing", "stopped", "damaged"
"""States of a job beside the scheduler's: its tasks have ended and are being counted; nothing of it is queued any more
and nobody has counted; its folder cannot be read."""

OVER = frozenset({report.DONE, report.FAILED, CANCELLED, LOST, DAMAGED})
"""States in which nothing more happens by itself."""

JOINING = "being joined"

States = Mapping[tuple[str, int | None], State]
"""What a scheduler says."""


@dataclass(frozen=True)
class FileState:
    """A recording. `state`: done, skipped, failed, in work, left, or being joined."""

    source: str
    state: str
    length_ms: int
    done_ms: int
    why: str = ""
    do: str | None = None
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskLine:
    """A task: what the scheduler says of it, and where it runs."""

    number: int
    state: str
    reason: str
    node: str
    pieces: int
    done: int
    lives: int


@dataclass(frozen=True)
class Overview:
    """A job. `reason` is a plain sentence, empty when there is nothing to say. Times as POSIX seconds. `counts`: how
    many recordings, prompts or results (`kind`) are in which state; `files` has the recordings. `speed`: seconds of
    audio, prompts or results that all its tasks have done in a second of their last round; `left_s`: how long what is
    left takes at that speed. Both are None where there is nothing to tell them from."""

    name: str
    folder: str
    state: str
    reason: str
    submitted: str
    scheduler: str
    ids: tuple[str, ...]
    files: tuple[FileState, ...] = ()
    tasks: tuple[TaskLine, ...] = ()
    audio_ms: int = 0
    done_ms: int = 0
    starts_at: float | None = None
    ends_by: float | None = None
    speed: float | None = None
    left_s: float | None = None
    output: str = ""
    notes: tuple[str, ...] = field(default=())
    then: tuple[Mapping[str, Any], ...] = ()
    """What became of each result of a language model's tasks on transcripts."""
    kind: str = plan_file.RECORDINGS
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Of recordings, prompts or results."""
        return sum(self.counts.values())

    @property
    def counted(self) -> str:
        """For people: 1 prompt, 2 results."""
        return amounts.counted(self.number, self.kind.removesuffix("s"))

    def count(self, *states: str) -> int:
        return sum(self.counts.get(state, 0) for state in states)

    def to_json(self) -> dict[str, Any]:
        return {"schema": 1, **asdict(self)}


@dataclass(frozen=True)
class Begun:
    """When a task's last round began, and where each piece that it has taken up stood then."""

    at: float | None
    pieces: Mapping[int, int]


def look_all(jobs: Iterable[Folder]) -> list[Overview]:
    """How they go. A scheduler that does not answer is asked once, since that may take minutes."""
    silent: dict[str, str] = {}
    return [look(job, silent) for job in jobs]


def look(job: Folder, silent: dict[str, str] | None = None) -> Overview:
    """How a job goes. What cannot be read or asked is said in it, and is no error. `silent`: schedulers that are known
    not to answer, and why; those that do not are added."""
    silent = {} if silent is None else silent
    try:
        batch, rounds, said = plan_file.read(job.path), job.rounds(), job.report()
        states: States = {}
        if said is None or not all(r.finish for r in rounds) or awaits(rounds, said):
            rounds, states = _ask(job, batch.scheduler, silent)
            said = job.report()  # once more: what has ended by what the scheduler says has written it
        tasks = tasks_of(job, [len(task) for task in batch.tasks])
        begun = [_begun(job.events(task.number)) for task in tasks] if said is None else []
        followed = len(job.results(THEN)) if batch.then and said is not None else 0
        why = silent.get(batch.scheduler, "")
        return overview(job, batch, rounds, tasks, begun, states, said, why, time.time(), followed)
    except KuuloError as error:
        why = error.what
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        why = f"its folder is damaged: {error}"
    return Overview(job.name, naming.shown(job.path), DAMAGED, why, "", "", ())


def _ask(job: Folder, name: str, silent: dict[str, str]) -> tuple[list[Round], States]:
    """The job's rounds and what the scheduler says of them. One that was added meanwhile is asked for too: the end of
    what added it would look like the job's."""
    rounds = job.rounds()
    while name not in silent:
        try:
            states = schedulers.of(name).states([id_ for r in rounds for id_ in r.ids])
        except CannotRun as error:
            silent[name] = f"{name} does not answer: {error.what}"
            break
        newer = job.rounds()
        if newer == rounds:
            return rounds, states
        rounds = newer
    return rounds, {}


def _begun(events: Iterable[Mapping[str, Any]]) -> Begun:
    """From what a task has said."""
    round_, at, pieces = 0, None, dict[int, int]()
    for event in events:
        if event["type"] == "starts" and event["round"] != round_:
            round_, at, pieces = event["round"], event["at"], {}
        elif event["type"] == "begins":
            pieces.setdefault(event["piece"], event["done"])
    return Begun(at, pieces)


def overview(
    job: Folder,
    batch: Written,
    rounds: Sequence[Round],
    tasks: Sequence[TaskState],
    begun: Sequence[Begun],
    states: States,
    said: Mapping[str, Any] | None,
    silent: str,
    now: float,
    followed: int = 0,
) -> Overview:
    """The pure core. `begun`: of each task; `states`: the scheduler's; `said`: the job's report, once it is over;
    `silent`: why the scheduler says nothing; `followed`: how many results there are of what follows."""
    known: dict[int, State] = {}
    for round_ in rounds:
        known.update({n: states[round_.array, n] for n in round_.tasks if (round_.array, n) in states})
    state, reason = _state(rounds, known, states, said, tasks, silent, followed)
    one = Overview(
        name=job.name,
        folder=naming.shown(job.path),
        state=state,
        reason=reason,
        submitted=rounds[0].submitted if rounds else "",
        scheduler=batch.scheduler,
        ids=tuple(id_ for r in rounds for id_ in r.ids),
        tasks=tuple(_task(task, known.get(task.number), state in OVER) for task in tasks),
        starts_at=min(
            (s.starts_at for s in known.values() if s.state == state == WAITING and s.starts_at), default=None
        ),
        ends_by=max((s.ends_by for s in known.values() if s.state == RUNNING and s.ends_by), default=None),
        output=naming.shown(batch.output),
        notes=tuple(f"round {r.number}: {r.why}" for r in rounds if r.why),
        then=tuple((said or {}).get("then", ())),
    )

    def speed(done: Callable[[TaskState, int], int]) -> float | None:
        return _speed(tasks, begun, rounds, now, done) if state == RUNNING else None

    if isinstance(batch, Batch):
        return _of_recordings(one, batch, account.items(batch, tasks, known), said, speed)
    from kuulo.jobs import shares_overview

    return shares_overview.of_shares(one, batch, tasks, said, silent, speed)


Speed = Callable[[Callable[[TaskState, int], int]], float | None]
"""From how much of a task's piece is done to how much all tasks do in a second; None while none runs."""


def _of_recordings(
    one: Overview, batch: Batch, items: Sequence[ItemState], said: Mapping[str, Any] | None, speed: Speed
) -> Overview:
    """What is told of a job's recordings, beside what is told of any job. `items` have the scheduler's word."""
    files = _reported(batch, said) if said else tuple(_file(batch, item) for item in items)
    left = sum(max(0, f.length_ms - f.done_ms) for f in files if f.state in (LEFT, IN_WORK))
    heard_ms = speed(lambda task, n: _heard_ms(batch, task.number, n, task.pieces[n]))
    return dataclasses.replace(
        one,
        files=files,
        counts=dict(Counter(file.state for file in files)),
        audio_ms=sum(packing.length_ms(item) for item in batch.items),
        done_ms=sum(min(f.done_ms, f.length_ms) for f in files),
        speed=heard_ms / 1000 if heard_ms else None,
        left_s=left / heard_ms if heard_ms else None,
    )


def _state(
    rounds: Sequence[Round],
    known: Mapping[int, State],
    states: States,
    said: Mapping[str, Any] | None,
    tasks: Sequence[TaskState],
    silent: str,
    followed: int,
) -> tuple[str, str]:
    """The job's state, and the reason."""
    of_tasks = Counter(state.state for state in known.values())
    if of_tasks[RUNNING]:
        return RUNNING, silent
    if of_tasks[WAITING]:
        return WAITING, next(s.reason for s in known.values() if s.state == WAITING)
    if said is not None:
        if awaits(rounds, said):
            return _following(states.get((rounds[-1].then, None)), silent, followed)
        failed, undone = said["counts"]["failed"], undone_of(said)
        reasons = [*([f"{failed} failed"] if failed else []), *([f"then: {undone} failed"] if undone else [])]
        return (report.FAILED, "; ".join(reasons)) if reasons else (report.DONE, "")
    if silent:
        return (RUNNING if any(_seems_alive(task) for task in tasks) else "unknown"), silent
    last = rounds[-1] if rounds else None
    if any((s := states.get((r.finish, None))) and s.state in (WAITING, RUNNING) for r in rounds):
        return FINISHING, "what was heard is joined and counted"
    finish = states.get((last.finish, None)) if last else None
    if (finish and finish.state == CANCELLED) or of_tasks[CANCELLED]:
        return CANCELLED, "what is done stays; kuulo jobs retry goes on"
    return LOST, "nothing of it is queued any more; kuulo jobs retry goes on"


def awaits(rounds: Sequence[Round], said: Mapping[str, Any]) -> bool:
    """Whether a job whose recordings are counted has something to follow that has not ended."""
    return bool(rounds and rounds[-1].then) and "then" not in said


def undone_of(said: Mapping[str, Any]) -> int:
    """How many of the results of what followed are not there, or not wholly."""
    return sum(one["state"] not in (report.DONE, report.SKIPPED) for one in said.get("then", ()))


def _following(state: State | None, silent: str, results: int) -> tuple[str, str]:
    """The state of a job of which a language model's part is left, with so many results."""
    if state and state.state == RUNNING:
        made = f": {results} results" if results else ""
        return FINISHING, f"the transcripts are there; a language model works on them{made}"
    if state and state.state == WAITING:
        because = f": {state.reason}" if state.reason else ""
        return FINISHING, f"the transcripts are there; what follows waits{because}"
    if state and state.state == CANCELLED:
        return CANCELLED, "the transcripts are there; kuulo jobs retry does what was to follow"
    if silent:
        return FINISHING, silent
    return report.FAILED, "the transcripts are there, and what was to follow was not done; kuulo jobs retry goes on"


def _seems_alive(task: TaskState) -> bool:
    return bool(task.lives) and task.finished is None


def _file(batch: Batch, item: ItemState) -> FileState:
    """A recording of a job that is not over."""
    recording = batch.items[item.item]
    length = packing.length_ms(recording)
    state = item.state
    if state == report.DONE and item.is_cut:
        state = JOINING
    if state == IN_WORK and item.why:  # its task is no more
        state = LEFT
    heard = sum(_heard_ms(batch, *where, piece) for where, piece in zip(item.where, item.pieces, strict=True))
    outputs = tuple(item.pieces[0].fields.get("outputs", ())) if not item.is_cut else ()
    return FileState(naming.shown(recording.path), state, length, heard, item.why, item.do, outputs)


def _reported(batch: Batch, said: Mapping[str, Any]) -> tuple[FileState, ...]:
    """The recordings of a job that is over, as its report has them."""
    lengths = {naming.shown(item.path): packing.length_ms(item) for item in batch.items}
    found = []
    for file in said["files"]:
        length = file.get("audio_ms") or lengths.get(file["source"], 0)
        done = length if file["state"] in (report.DONE, report.SKIPPED) else 0
        outputs = tuple(file.get("outputs", ()))
        found.append(
            FileState(file["source"], file["state"], length, done, file.get("why", ""), file.get("do"), outputs)
        )
    return tuple(found)


def _task(task: TaskState, state: State | None, over: bool) -> TaskLine:
    said = state.state if state else ("" if over or not task.lives else "ended" if task.finished else "running")
    done = sum(piece.state in (report.DONE, report.SKIPPED) for piece in task.pieces)
    node = (state.node if state else "") or (task.starts[-1].get("node") if task.starts else "") or task.host
    return TaskLine(task.number, said, state.reason if state else "", node, len(task.pieces), done, task.lives)


def _heard_ms(batch: Batch, task: int, number: int, piece: PieceState) -> int:
    """How much of a recording's audio was heard for its words in a piece."""
    made = batch.tasks[task][number]
    if made.kind == TURNS:
        return 0
    whole = packing.piece_ms(made, batch.items)
    return whole if piece.state in (report.DONE, report.SKIPPED) else min(piece.done, whole)


def _speed(
    tasks: Sequence[TaskState],
    begun: Sequence[Begun],
    rounds: Sequence[Round],
    now: float,
    done: Callable[[TaskState, int], int],
) -> float | None:
    """How much is done in a second, since the last round began. `done`: how much of a task's piece is."""
    last = [(task, one) for task, one in zip(tasks, begun, strict=False) if rounds and task.round == rounds[-1].number]
    since = min((one.at for _, one in last if one.at is not None), default=now)
    whole = sum(max(0, done(task, n) - from_) for task, one in last for n, from_ in one.pieces.items())
    return whole / (now - since) if whole and now > since else None
