"""Giving a job to its scheduler: the scripts of a round, the array of its tasks, and what comes after them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from kuulo import atomic, naming, schedulers
from kuulo.errors import CannotRun, KuuloError
from kuulo.jobs import claims, plan_file
from kuulo.jobs.batch import Job, Then
from kuulo.jobs.folder import Folder, Round, now
from kuulo.jobs.plan_file import Written
from kuulo.schedulers.base import Array, Resources

FINISH_MINUTES = 30
"""The time limit of the job that joins, counts and tells."""

MOST_NAMED = 400
"""Tasks of another round that are named one by one: Slurm takes 4096 characters. Of more the whole range is submitted;
those that have nothing to do end at once."""


def array(folder: Path, name: str, batch: Job, round_: Round) -> Array:
    """The array of a round's tasks."""
    return Array(
        name=f"kuulo-{name}",
        folder=folder,
        command=(*_kuulo(), "task", str(folder), str(round_.number)),
        resources=round_.resources,
        tasks=round_.tasks,
        at_once=batch.at_once,
        queue=batch.queue,
        log=f"logs/round{round_.number}.txt",
        comment=f"kuulo {name}",
    )


def finish(folder: Path, name: str, batch: Job, round_: Round) -> Array:
    """What comes after a round's tasks, however they ended. Of several that come after, the last one tells."""
    return Array(
        name=f"kuulo-{name}-finish",
        folder=folder,
        command=(*_kuulo(), "finish", str(folder), str(round_.number)),
        resources=Resources(FINISH_MINUTES, batch.finish_mb, cpus=1),
        after=(round_.array or "ARRAY",) if round_.tasks else (),
        queue=batch.finish_queue,
        log=f"logs/finish{round_.number}.txt",
        mail=batch.mail if batch.mailer == "scheduler" and batch.then is None else None,
        comment=f"kuulo {name}",
    )


def then(folder: Path, name: str, batch: Job, what: Then, round_: Round) -> Array:
    """What a language model does when all is counted."""
    return Array(
        name=f"kuulo-{name}-then",
        folder=folder,
        command=(*_kuulo(), "then", str(folder), str(round_.number)),
        resources=round_.then_resources or what.resources,
        after=(round_.finish,) if round_.finish else ("FINISH",),
        queue=what.queue,
        log=f"logs/then{round_.number}.txt",
        mail=batch.mail if batch.mailer == "scheduler" else None,
        comment=f"kuulo {name}",
    )


def _kuulo() -> tuple[str, ...]:
    """This Kuulo, whatever the PATH of a node; nothing is imported from the folder it stands in."""
    return (sys.executable, "-P", "-m", "kuulo", "jobs")


def new(folder: Folder, batch: Written) -> Round:
    """Write a job's plan, claim its results and submit its first round. Raises KuuloError; nothing is queued or left
    behind then."""
    try:
        plan_file.write(folder.path, batch)
        round_ = _submit(folder, batch, Round(1, tuple(range(len(batch.tasks))), batch.resources))
        _claim(folder, batch, round_)
    except OSError as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise CannotRun(f"the job cannot be written down: {error.strerror}", looked_at=str(folder.path)) from error
    except KuuloError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return round_


def again(
    folder: Folder,
    tasks: Sequence[int],
    resources: Resources,
    why: str,
    asked_by: str,
    then_resources: Resources | None = None,
) -> Round:
    """Submit the next round: these tasks once more, with these resources, and what follows them. Raises KuuloError;
    nothing is queued then."""
    batch = plan_file.read(folder.path)
    number = max((r.number for r in folder.rounds()), default=0) + 1
    if len(tasks) > MOST_NAMED:
        tasks = range(min(tasks), max(tasks) + 1)
    made = Round(number, tuple(tasks), resources, why=why, asked_by=asked_by, then_resources=then_resources)
    round_ = _submit(folder, batch, made)
    _claim(folder, batch, round_)
    return round_


def _claim(folder: Folder, batch: Job, round_: Round) -> None:
    """Raises CannotRun."""
    for output, names in batch.makes.items():
        claim = claims.make(folder.name, folder.path, batch.scheduler, names, batch.key)
        try:
            claims.write(output, dataclasses.replace(claim, ids=round_.ids))
        except OSError as error:
            schedulers.of(batch.scheduler).cancel(round_.ids)
            raise CannotRun(
                f"the output folder cannot be written to: {error.strerror}",
                looked_at=naming.shown(output),
            ) from error


def _submit(folder: Folder, batch: Job, round_: Round) -> Round:
    scheduler = schedulers.of(batch.scheduler)
    round_ = dataclasses.replace(round_, submitted=now())
    for name in ("logs", "tasks"):
        (folder.path / name).mkdir(mode=0o700, exist_ok=True)
    job, end = f"job-{round_.number}.sh", f"finish-{round_.number}.sh"
    if round_.tasks:
        tasks = array(folder.path, folder.name, batch, round_)
        _write(folder.path / job, scheduler.script(tasks))
        round_ = dataclasses.replace(round_, array=scheduler.submit(tasks, job))
    try:
        folder.write_round(round_)
        after = finish(folder.path, folder.name, batch, round_)
        _write(folder.path / end, scheduler.script(after))
        round_ = dataclasses.replace(round_, finish=scheduler.submit(after, end))
        folder.write_round(round_)
        if batch.then is not None:
            last, following = f"then-{round_.number}.sh", then(folder.path, folder.name, batch, batch.then, round_)
            _write(folder.path / last, scheduler.script(following))
            round_ = dataclasses.replace(round_, then=scheduler.submit(following, last))
            folder.write_round(round_)
    except (KuuloError, OSError):
        scheduler.cancel(round_.ids)
        raise
    return round_


def _write(path: Path, script: str) -> None:
    atomic.write_bytes(path, os.fsencode(script), mode=0o700)
