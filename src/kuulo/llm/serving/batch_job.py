"""A server in a job of the scheduler: `kuulo serve` on a node, with the key and the name that are here already."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kuulo import atomic, schedulers
from kuulo.errors import CannotRun, UsageError
from kuulo.jobs.amounts import clock, megabytes, minutes
from kuulo.jobs.queues import queue_of
from kuulo.jobs.settings import JobSettings, Place
from kuulo.llm import memory
from kuulo.llm.serving import keys
from kuulo.llm.serving.registry import ServerFolder, Submitted
from kuulo.schedulers.base import Array, Queue, Resources

SCRIPT = "job.sh"
SLURM = "slurm"
STEP_MB = 1024


@dataclass(frozen=True)
class Ask:
    """What a job asks for."""

    resources: Resources
    queue: Queue


def ask(asked: Mapping[str, Any], jobs: JobSettings, need_bytes: int, *, can_use_gpu: bool) -> Ask:
    """From the flags, the site's places, and what the models take. Raises UsageError, CannotRun."""
    on_gpu = asked["gpus"] if asked["gpus"] is not None else int(can_use_gpu and jobs.gpu is not None)
    place = (jobs.gpu or Place(Queue(gres="gpu"))) if on_gpu else jobs.cpu
    queue = queue_of(place.queue, asked)
    time_ = minutes(asked["time_"])
    limit = schedulers.of(SLURM).limits(queue).minutes
    if limit is not None and time_ > limit:
        if asked["time_given"]:
            raise UsageError(
                f"--time {asked['time_']} is more than the partition allows", looked_at=clock(60 * limit), do="less"
            )
        time_ = limit
    memory_mb = megabytes(asked["mem"]) if asked["mem"] else memory.to_ask_for(need_bytes, STEP_MB)
    return Ask(Resources(time_, memory_mb, asked["cpus"] or place.cpus, on_gpu), queue)


def array(folder: ServerFolder, words: Sequence[str], wanted: Ask) -> Array:
    """The submission. `words`: what follows `kuulo serve`. Pure. When its node fails or others take it, it is over:
    who asked it has gone meanwhile, and another server has another address."""
    once = dataclasses.replace(wanted.queue, extra=(*wanted.queue.extra, ("no-requeue", "")))
    return Array(
        name=f"kuulo-serve-{folder.name}",
        folder=folder.path,
        # this Kuulo, whatever the PATH of a node; nothing is imported from the folder it stands in
        command=(sys.executable, "-P", "-m", "kuulo", "serve", *words, "--in-job", folder.name),
        resources=wanted.resources,
        queue=once,
        log=folder.log.name,
        comment=f"kuulo serve {folder.name}",
    )


def submit(folder: ServerFolder, words: Sequence[str], wanted: Ask) -> Submitted:
    """Submit it. Raises KuuloError; nothing is queued or left behind then."""
    scheduler = schedulers.of(SLURM)
    try:
        keys.new(folder.key)
        job = array(folder, words, wanted)
        atomic.write_bytes(folder.path / SCRIPT, os.fsencode(scheduler.script(job)), mode=0o700)
        submitted = Submitted(SLURM, scheduler.submit(job, SCRIPT), time.time())
        try:
            folder.write_job(submitted)
        except OSError:
            scheduler.cancel([submitted.id])
            raise
    except OSError as error:
        folder.remove()
        raise CannotRun(f"the job cannot be written down: {error.strerror}", looked_at=str(folder.path)) from error
    except BaseException:
        folder.remove()
        raise
    return submitted


def last_lines(folder: ServerFolder, number: int = 8) -> str:
    """The end of what its job printed, indented; empty where there is nothing."""
    try:
        lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line[:300]}" for line in lines[-number:])
