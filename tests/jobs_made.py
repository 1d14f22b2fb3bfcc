"""Jobs for tests, made without a scheduler: plans, batches, and their tasks done here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from kuulo import audio, plan, site, survey
from kuulo.jobs import plan_file, task
from kuulo.jobs.batch import TURNS, WORDS, Batch, Item, Piece
from kuulo.jobs.folder import Folder, Jobs
from kuulo.plan import Plan
from kuulo.schedulers.base import Queue, Resources


def planned(output: Path, **given: Any) -> Plan:
    """The plan for these options."""
    files = site.load({})
    return plan.resolve(site.settle(files, {"output": str(output), **given}, {}), survey.facts(files))


def item(path: Path) -> Item:
    """A recording as a job has it."""
    facts = path.stat()
    return Item(path, PurePath(path.stem), audio.probe(path).duration_ms or 0, facts.st_size, facts.st_mtime_ns)


def cut(length_ms: int, parts: int, number: int = 0, *, turns: bool = False) -> list[Piece]:
    """The pieces of a recording that is cut into so many parts."""
    ends = [length_ms * n // parts for n in range(parts + 1)]
    pieces = [Piece(number, WORDS, ends[n], ends[n + 1], n, parts) for n in range(parts)]
    return [*pieces, Piece(number, TURNS, 0, length_ms, parts, parts)] if turns else pieces


def batch(made: Plan, items: Sequence[Item], tasks: Sequence[Sequence[Piece]]) -> Batch:
    """A batch of these tasks."""
    return Batch(
        plan=made,
        items=tuple(items),
        tasks=tuple(tuple(t) for t in tasks),
        resources=Resources(10, 1000, 1),
        queue=Queue(),
        scheduler="local",
    )


def folder(place: Path, made: Batch) -> Folder:
    """A job's folder with this batch."""
    new = Jobs(place).new()
    plan_file.write(new.path, made)
    for name in ("logs", "tasks"):
        (new.path / name).mkdir()
    return new


def do(job: Folder, made: Batch, round_: int = 1) -> list[int]:
    """Do all tasks here, in the order of their numbers; their exit codes."""
    os.environ.pop("SLURM_JOB_ID", None)
    return [task.run(job.path, round_, number) for number in range(len(made.tasks))]
