"""How a job that works on transcripts goes, for people. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import report
from kuulo.jobs import plan_file
from kuulo.jobs.batch import Transcripts
from kuulo.jobs.folder import LEFT, TaskState
from kuulo.jobs.overview import FINISHING, Overview, Speed, TaskLine


def of_results(
    one: Overview,
    made: Transcripts,
    tasks: Sequence[TaskState],
    said: Mapping[str, Any] | None,
    silent: str,
    speed: Speed,
) -> Overview:
    """What is told of a job's results, beside what is told of any job."""
    done = sum(_done(made, task) for task in tasks)
    counts = said["counts"] if said else {report.DONE: done, LEFT: made.number - done, report.FAILED: len(made.refused)}
    in_a_second = speed(lambda task, n: _done(made, task))
    if one.state == FINISHING and not silent:
        one = dataclasses.replace(one, reason="the results are counted")
    return dataclasses.replace(
        one,
        kind=plan_file.RESULTS,
        counts={state: number for state, number in counts.items() if number},
        tasks=tuple(_line(made, task, line) for task, line in zip(tasks, one.tasks, strict=True)),
        speed=in_a_second,
        left_s=(made.number - done) / in_a_second if in_a_second else None,
        then=tuple((said or {}).get("results", ())),
    )


def _of(made: Transcripts, task: TaskState) -> int:
    """A task's results."""
    (share,) = made.tasks[task.number]
    return (share.end - share.begin) * len(made.what.tasks)


def _done(made: Transcripts, task: TaskState) -> int:
    return _of(made, task) if task.pieces[0].state == report.DONE else min(task.pieces[0].done, _of(made, task))


def _line(made: Transcripts, task: TaskState, line: TaskLine) -> TaskLine:
    """Counted in results."""
    return dataclasses.replace(line, pieces=_of(made, task), done=_done(made, task))
