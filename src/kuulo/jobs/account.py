"""What became of a job's recordings, from what its tasks say and what the scheduler says of them. Pure."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import naming, report
from kuulo.errors import EXIT_INTERRUPTED
from kuulo.jobs.batch import Batch
from kuulo.jobs.folder import IN_WORK, LEFT, PieceState, Round, TaskState
from kuulo.report import Outcome
from kuulo.schedulers.base import CANCELLED, NODE_FAILED, OUT_OF_MEMORY, OUT_OF_TIME, RUNNING, WAITING, State

MOST_ROUNDS = 3
"""Submissions of a task without being asked: the first, one with more memory, one after a kill."""

ENDINGS: Mapping[str, str] = {
    CANCELLED: "its task was cancelled",
    NODE_FAILED: "its node failed",
    OUT_OF_MEMORY: "its task was killed for lack of memory",
    OUT_OF_TIME: "the time limit was over",
}


@dataclasses.dataclass
class ItemState:
    """A recording: its pieces, as (task, number in the task), and their states in the same order. `why` and `do` say
    what the matter is where it is not done."""

    item: int
    where: list[tuple[int, int]]
    pieces: list[PieceState]
    why: str = ""
    do: str | None = None

    @property
    def state(self) -> str:
        """done (all pieces: of several it is still to be joined), skipped, failed, in work, or left."""
        states = {piece.state for piece in self.pieces}
        for worst in (report.FAILED, IN_WORK, LEFT):
            if worst in states:
                return worst
        return report.SKIPPED if states == {report.SKIPPED} else report.DONE

    @property
    def is_cut(self) -> bool:
        return len(self.pieces) > 1


def items(batch: Batch, tasks: Sequence[TaskState], states: Mapping[int, State]) -> list[ItemState]:
    """Every recording of the job. `states`: what the scheduler says of each task's last round."""
    where: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for task, pieces in enumerate(batch.tasks):
        for number, piece in enumerate(pieces):
            where[piece.item].append((task, number))
    found = []
    for item in range(len(batch.items)):
        state = ItemState(item, where[item], [tasks[t].pieces[n] for t, n in where[item]])
        for task, number in where[item]:
            known = tasks[task].pieces[number]
            if known.state == report.FAILED:
                state.why, state.do = str(known.fields.get("why", "")), known.fields.get("do")
            elif known.state in (LEFT, IN_WORK) and not state.why:
                state.why, state.do = why_left(tasks[task], states.get(task))
        found.append(state)
    return found


def why_left(task: TaskState, state: State | None) -> tuple[str, str | None]:
    """Why a task's piece was not heard to its end, and what to do; empty while it may still be."""
    if state and state.state in (WAITING, RUNNING):
        return "", None
    if state and state.state in ENDINGS:
        return ENDINGS[state.state], None
    if task.finished is not None:
        return str(task.finished.get("why") or "its task ended before it was heard"), task.finished.get("do")
    if task.lives:
        return "its task was killed", "see the log"
    return ("its task ended before it began", "see the log") if state else ("its task never began", None)


@dataclasses.dataclass(frozen=True)
class Again:
    """Tasks that go on by themselves in another round, and why; `more_memory`: some were killed for lack of it."""

    tasks: tuple[int, ...]
    why: str
    more_memory: bool


def again(tasks: Sequence[TaskState], states: Mapping[int, State], rounds: Sequence[Round]) -> Again | None:
    """Which tasks of the last round are worth another without anybody's asking, None for none."""
    last = rounds[-1]
    asked = max((n for n, r in enumerate(rounds) if r.asked_by != "finish"), default=0)
    own = rounds[asked:]
    if len(own) >= MOST_ROUNDS:
        return None
    raised = any(r.resources.memory_mb > own[0].resources.memory_mb for r in own)
    memory, killed = [], []
    for number in last.tasks:
        task, state = tasks[number], states.get(number)
        if all(p.state in (report.DONE, report.SKIPPED) for p in task.pieces):
            continue
        if state and state.state == CANCELLED:
            continue
        if _lacked_memory(task, state):
            memory.append(number)
        elif _was_ended(task, state) and any(p.state in (LEFT, IN_WORK) for p in task.pieces):
            killed.append(number)
    if raised:
        memory = []
    if not memory and not killed:
        return None
    why = "; ".join(
        f"{len(some)} {'task was' if len(some) == 1 else 'tasks were'} {what}"
        for some, what in ((memory, "killed for lack of memory"), (killed, "killed"))
        if some
    )
    return Again(tuple(sorted([*memory, *killed])), why, bool(memory))


def _was_ended(task: TaskState, state: State | None) -> bool:
    """Whether a task that was begun was killed, or told to end by somebody else than who cancels (a site may take nodes
    back so)."""
    if task.finished is None:
        return bool(task.lives)
    return task.finished["code"] == EXIT_INTERRUPTED and state is not None and state.state != CANCELLED


def _lacked_memory(task: TaskState, state: State | None) -> bool:
    if any(p.state == report.FAILED and p.fields.get("cause") == report.MEMORY for p in task.pieces):
        return True
    if task.finished is not None and task.finished.get("cause") == report.MEMORY:
        return True
    open_ = any(p.state in (LEFT, IN_WORK) for p in task.pieces)
    return bool(state and state.state == OUT_OF_MEMORY and open_)


def outcome(batch: Batch, state: ItemState, job: str = "JOB") -> Outcome:
    """What became of a recording that is no more in anybody's hands, for the report of the `job`. One that is cut and
    done is to be joined instead."""
    source = naming.shown(batch.items[state.item].path)
    if state.state in (report.FAILED, LEFT, IN_WORK):
        why = state.why or "its task ended before it was heard"
        if "memory" in why:
            return Outcome(source, report.FAILED, why=why, do=f"kuulo jobs retry {job} --mem, with more than before")
        return Outcome(source, report.FAILED, why=why, do=state.do or f"kuulo jobs retry {job}")
    known: dict[str, Any] = {
        k: v for k, v in state.pieces[0].fields.items() if k in Outcome.__dataclass_fields__ and k != "source"
    }
    return Outcome(source, **known)
