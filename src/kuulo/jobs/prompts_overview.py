"""How a job that asks a language model goes, for people. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import report
from kuulo.jobs import plan_file
from kuulo.jobs.batch import Prompts
from kuulo.jobs.folder import LEFT, TaskState
from kuulo.jobs.overview import FINISHING, Overview, Speed, TaskLine


def of_prompts(
    one: Overview, made: Prompts, tasks: Sequence[TaskState], said: Mapping[str, Any] | None, silent: str, speed: Speed
) -> Overview:
    """What is told of a job's prompts, beside what is told of any job."""
    done = sum(answered(made, task) for task in tasks)
    counts = said["counts"] if said else {report.DONE: done, LEFT: made.number - done}
    in_a_second = speed(lambda task, n: answered(made, task))
    if one.state == FINISHING and not silent:
        one = dataclasses.replace(one, reason="the answers are put together")
    return dataclasses.replace(
        one,
        kind=plan_file.PROMPTS,
        counts={state: number for state, number in counts.items() if number},
        tasks=tuple(_line(made, task, line) for task, line in zip(tasks, one.tasks, strict=True)),
        speed=in_a_second,
        left_s=(made.number - done) / in_a_second if in_a_second else None,
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
