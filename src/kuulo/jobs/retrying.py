"""Once more, when somebody asks: what failed or is left of a job."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kuulo import report
from kuulo.errors import KuuloError, UsageError
from kuulo.jobs import amounts, claims, overview, plan_file, submission
from kuulo.jobs.batch import Batch, Prompts
from kuulo.jobs.folder import REPORT, Folder, Round, tasks_of
from kuulo.jobs.plan_file import Written
from kuulo.schedulers.base import Resources


def retry(job: Folder, time: str | None, memory: str | None) -> Round:
    """Submit the tasks that have something to do, with other limits where these are given; where these have done all,
    the limits are of what follows. Raises UsageError while the job runs, and when nothing is left to do."""
    state = overview.look(job).state
    if state not in overview.OVER:
        raise UsageError(f"job {job.name} is not over: {state}", do=f"kuulo jobs wait {job.name}")
    batch = plan_file.read(job.path)
    rounds = job.rounds()
    tasks = [
        task.number
        for task in tasks_of(job, [len(pieces) for pieces in batch.tasks])
        if any(piece.state not in (report.DONE, report.SKIPPED) for piece in task.pieces)
    ]
    said = job.report()
    unjoined = said is not None and _is_unjoined(batch, said)
    if not tasks and said is not None and not unjoined:
        raise UsageError(f"nothing of job {job.name} is left to do", do=f"kuulo jobs show {job.name}")
    then = batch.then if not tasks else None
    if not tasks:  # the parts are there, and could not be joined, or nobody has counted: any task will do
        tasks = [0] if batch.tasks else []
    resources = rounds[-1].resources if rounds else batch.resources
    then_resources = rounds[-1].then_resources if rounds else None
    if then is not None:
        then_resources = _limited(then_resources or then.resources, time, memory)
    else:
        resources = _limited(resources, time, memory)
    report_, kept = job.path / REPORT, job.path / f"report-{len(rounds)}.json"
    with claims.submitting(*batch.makes):
        if said is not None:
            report_.rename(kept)
        try:
            return submission.again(job, tasks, resources, "asked for", "retry", then_resources)
        except KuuloError:
            if said is not None:
                kept.rename(report_)
            raise


def _limited(resources: Resources, time: str | None, memory: str | None) -> Resources:
    """With other limits, where these are given."""
    return dataclasses.replace(
        resources,
        minutes=amounts.minutes(time) if time else resources.minutes,
        memory_mb=amounts.megabytes(memory) if memory else resources.memory_mb,
    )


def _is_unjoined(batch: Written, said: Mapping[str, Any]) -> bool:
    """Whether its tasks have done all, and what they made was not put together, or what was to follow is not done."""
    if isinstance(batch, Prompts):
        return not batch.target.exists()
    if not isinstance(batch, Batch):
        return False
    followed = batch.then is None or ("then" in said and not overview.undone_of(said))
    return bool(said["counts"]["failed"] > len(batch.refused)) or not followed
