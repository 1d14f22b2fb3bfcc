"""Where a job's tasks go, and what comes after them: the site's places, and what the flags say. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from kuulo.errors import UsageError
from kuulo.jobs.settings import JobSettings
from kuulo.plan import Plan
from kuulo.schedulers.base import Queue


def wants_gpu(plan: Plan, *, there: bool) -> bool:
    """Whether the tasks get a GPU: where one is asked for, or where there are some (on this machine, or a place of the
    site's) and the engine can use one."""
    device = str(plan.options["device"])
    if device == "auto":
        return there and "cuda" in plan.spec.devices
    return device.startswith("cuda")


def without_gpu(queue: Queue, jobs: JobSettings) -> Queue:
    """Where what comes after the tasks goes, when these have GPUs: to the place for CPUs, where the site has one."""
    if not jobs.cpu.queue.partition:
        return dataclasses.replace(queue, gres=None)
    return dataclasses.replace(jobs.cpu.queue, account=queue.account or jobs.cpu.queue.account)


TASKS_ALONE = frozenset(
    {"cpus-per-task", "exclusive", "gpus", "gpus-per-node", "gpus-per-task", "gres", "mem", "mem-per-cpu",
     "mem-per-gpu", "nodelist", "nodes", "ntasks", "time", "tmp"}
)  # fmt: skip
"""The scheduler's own options that say what a task needs, and not what comes after."""


def for_finish(queue: Queue) -> Queue:
    """The queue without what tasks alone need."""
    return dataclasses.replace(queue, extra=tuple((k, v) for k, v in queue.extra if k not in TASKS_ALONE))


def queue_of(queue: Queue, asked: Mapping[str, Any]) -> Queue:
    """The place's queue with what the flags say of it. Raises UsageError."""
    extra = dict(queue.extra)
    for text in asked["raw"]:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("-")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", key):
            raise UsageError(f"--slurm {text!r} is not KEY=VALUE", do="for example --slurm exclude=node17")
        extra[key] = value if equals else ""
    return Queue(
        partition=asked["partition"] or extra.pop("partition", None) or queue.partition,
        account=asked["account"] or extra.pop("account", None) or queue.account,
        qos=asked["qos"] or extra.pop("qos", None) or queue.qos,
        constraint=extra.pop("constraint", None) or queue.constraint,
        gres=queue.gres,
        extra=tuple(sorted(extra.items())),
    )
