"""How a job that asks a language model goes, for people: its prompts, or its results of tasks on transcripts. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import report
from kuulo.jobs import plan_file
from kuulo.jobs.batch import Prompts, Transcripts
from kuulo.jobs.folder import LEFT, TaskState
from kuulo.jobs.overview import FINISHING, Overview, Speed, TaskLine


def of_shares(
    one: Overview,
    made: Prompts | Transcripts,
    tasks: Sequence[TaskState],
    said: Mapping[str, Any] | None,
    silent: str,
    speed: Speed,
) -> Overview:
    """What is told of a job's prompts or results, beside what is told of any job."""
    prompts = isinstance(made, Prompts)
    done = sum(done_of(made, task) for task in tasks)
    counts = said["counts"] if said else {report.DONE: done, LEFT: made.number - done, report.FAILED: len(made.refused)}
    in_a_second = speed(lambda task, n: done_of(made, task))
    if one.state == FINISHING and not silent:
        one = dataclasses.replace(one, reason="the answers are put together" if prompts else "the results are counted")
    return dataclasses.replace(
        one,
        kind=plan_file.PROMPTS if prompts else plan_file.RESULTS,
        counts={state: number for state, number in counts.items() if number},
        tasks=tuple(_line(made, task, line) for task, line in zip(tasks, one.tasks, strict=True)),
        speed=in_a_second,
        left_s=(made.number - done) / in_a_second if in_a_second else None,
        notes=(*one.notes, *(_why(f) for f in (said or {}).get("failures", ()))),
        then=tuple((said or {}).get("results", ())),
    )


def done_of(made: Prompts | Transcripts, task: TaskState) -> int:
    """Of a task's prompts or results."""
    whole = _size(made, task)
    return whole if task.pieces[0].state == report.DONE else min(task.pieces[0].done, whole)


def _size(made: Prompts | Transcripts, task: TaskState) -> int:
    """How many prompts or results a task has."""
    (share,) = made.tasks[task.number]
    return (share.end - share.begin) * (1 if isinstance(made, Prompts) else len(made.what.tasks))


def _line(made: Prompts | Transcripts, task: TaskState, line: TaskLine) -> TaskLine:
    """Counted in prompts or results."""
    return dataclasses.replace(line, pieces=_size(made, task), done=done_of(made, task))


def _why(failure: Mapping[str, Any]) -> str:
    what = f"{failure['source']}: {failure['why']}"
    return f"{what} (what to do: {failure['do']})" if failure.get("do") else what
