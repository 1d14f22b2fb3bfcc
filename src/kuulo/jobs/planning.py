"""From recordings that were looked at to a Batch: where its tasks go, what each asks for, and who does what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kuulo import schedulers
from kuulo.errors import UsageError
from kuulo.jobs.batch import Batch, Piece
from kuulo.jobs.settings import JobSettings, Place
from kuulo.jobs.survey import Looked
from kuulo.plan import Plan
from kuulo.schedulers.base import Queue, Resources
from kuulo.site import Site


def batch(site: Site, jobs: JobSettings, plan: Plan, looked: Looked, asked: Mapping[str, Any]) -> Batch:
    """The job's Batch. `asked`: the flags of `kuulo submit`. Raises UsageError, and CannotRun when the scheduler does
    not answer."""
    name = asked["scheduler"] or jobs.scheduler or schedulers.usual()
    schedulers.of(name)
    on_gpu = wants_gpu(plan, jobs)
    place = (jobs.gpu or Place(Queue(gres="gpu"))) if on_gpu else jobs.cpu
    queue = queue_of(place.queue, asked)
    cpus = asked["cpus"] or place.cpus
    tasks = [(Piece(n),) for n in range(len(looked.items))]
    resources = Resources(
        minutes=minutes(asked["time_"]) if asked["time_"] else 10,
        memory_mb=megabytes(asked["mem"]) if asked["mem"] else 2000,
        cpus=cpus,
        gpus=int(on_gpu),
    )
    return Batch(
        plan=plan,
        items=tuple(looked.items),
        tasks=tuple(tasks),
        resources=resources,
        queue=queue,
        scheduler=name,
        at_once=asked["array_limit"] or jobs.at_once,
        mail=asked["mail"],
        mailer=jobs.mail if name != "local" else "sendmail",
        refused=tuple(looked.refused),
    )


def wants_gpu(plan: Plan, jobs: JobSettings) -> bool:
    """Whether the tasks get a GPU: where one is asked for, or where the site has a place for them and the engine can
    use one."""
    device = str(plan.options["device"])
    if device == "auto":
        return jobs.gpu is not None and "cuda" in plan.spec.devices
    return device.startswith("cuda")


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
        partition=asked["partition"] or queue.partition,
        account=asked["account"] or queue.account,
        qos=asked["qos"] or queue.qos,
        constraint=queue.constraint,
        gres=queue.gres,
        extra=tuple(sorted(extra.items())),
    )


def minutes(text: str) -> int:
    """Minutes in `90`, `1:30:00`, `2-12:00:00`, as Slurm reads times; rounded up, at least 1. Raises UsageError."""
    found = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,5})(?::(\d{1,2}))?(?::(\d{1,2}))?", text.strip())
    if not found:
        raise UsageError(f"{text!r} is not a time", do="write minutes (90), HH:MM:SS or D-HH:MM:SS")
    days, *rest = found.groups()
    numbers = [int(n) for n in rest if n is not None]
    if days is not None:  # D-HH, D-HH:MM, D-HH:MM:SS
        hours, mins, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, mins, seconds = numbers
    else:  # MM, MM:SS
        hours, mins, seconds = 0, numbers[0], [*numbers, 0][1]
    return max(1, int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0))


def megabytes(text: str) -> int:
    """Megabytes in `8G`, `6000M`, `6000`, as Slurm reads sizes. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,9})([kmgt]?)b?", text.strip().lower())
    if not found or not int(found[1]):
        raise UsageError(f"{text!r} is not a size", do="write 8G or 6000M")
    factor = {"k": 1 / 1024, "": 1, "m": 1, "g": 1024, "t": 1024 * 1024}[found[2]]
    return max(1, round(int(found[1]) * factor))


def table(batch: Batch) -> str:
    """The plan for people: tasks, sound, what is asked for and why."""
    return ""
