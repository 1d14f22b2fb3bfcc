"""How a job that asks a language model goes, for people. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import report
from kuulo.jobs import overview as overviews
from kuulo.jobs import plan_file
from kuulo.jobs.batch import Prompts
from kuulo.jobs.folder import LEFT, Folder, Round, TaskState
from kuulo.jobs.overview import Begun, Overview, States, TaskLine
from kuulo.schedulers.base import RUNNING


def overview(
    job: Folder,
    made: Prompts,
    rounds: Sequence[Round],
    tasks: Sequence[TaskState],
    begun: Sequence[Begun],
    states: States,
    said: Mapping[str, Any] | None,
    silent: str,
    now: float,
) -> Overview:
    """As `overview.overview`, of prompts."""
    known = overviews.known_of(rounds, states)
    one = overviews.common(job, made, rounds, tasks, states, known, said, silent, now)
    done = sum(answered(made, task) for task in tasks)
    counts = said["counts"] if said else {report.DONE: done, LEFT: made.number - done}
    speed = overviews.pace_of(tasks, begun, rounds, now, lambda task, n: answered(made, task))
    is_running = one.state == RUNNING
    if one.state == overviews.FINISHING and not silent:
        one = dataclasses.replace(one, reason="the answers are put together")
    return dataclasses.replace(
        one,
        kind=plan_file.PROMPTS,
        counts={state: number for state, number in counts.items() if number},
        tasks=tuple(_line(made, task, line) for task, line in zip(tasks, one.tasks, strict=True)),
        speed=speed if is_running else None,
        left_s=(made.number - done) / speed if is_running and speed else None,
        notes=(*one.notes, *(_why(f) for f in (said or {}).get("failures", ()))),
    )


def answered(made: Prompts, task: TaskState) -> int:
    """Of a task's prompts."""
    (share,) = made.tasks[task.number]
    number = share.end - share.begin
    return number if task.pieces[0].state == report.DONE else min(task.pieces[0].done, number)


def _line(made: Prompts, task: TaskState, line: TaskLine) -> TaskLine:
    """Counted in prompts."""
    (share,) = made.tasks[task.number]
    return dataclasses.replace(line, pieces=share.end - share.begin, done=answered(made, task))


def _why(failure: Mapping[str, Any]) -> str:
    what = f"{failure['source']}: {failure['why']}"
    return f"{what} (what to do: {failure['do']})" if failure.get("do") else what
