"""From recordings that were looked at to a Batch: where its tasks go, what each asks for, and who does what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from kuulo import engines, machine, schedulers, speeds
from kuulo.errors import UsageError
from kuulo.jobs import packing
from kuulo.jobs.amounts import clock, megabytes, minutes
from kuulo.jobs.batch import Batch, Pace
from kuulo.jobs.packing import Aim, Costs
from kuulo.jobs.queues import for_finish, queue_of, wants_gpu, without_gpu
from kuulo.jobs.settings import JobSettings, Place
from kuulo.jobs.survey import Looked
from kuulo.plan import WORKER_OVERHEAD_BYTES, Plan
from kuulo.schedulers.base import Limits, Queue, Resources
from kuulo.site import Site

MOST_TASKS = 1000
TASK_MINUTES = 60
MARGINS = {speeds.MEASURED: (1.3, 2), speeds.PUBLISHED: (2.0, 5), speeds.GUESS: (2.0, 5)}
"""How much more time is asked for than is estimated: so many times, and minutes to be warned and to stop in."""

BYTES_PER_CPU = 4 << 30
"""Memory of a usual node for each of its cores: so many workers are planned as fit into it."""

MEMORY_MARGIN = 1.2
MEMORY_STEP_MB = 256
LEAST_MB = 1024
BASE_BYTES = 300_000_000
"""Memory of a task beside its workers: decoding, and what is waiting."""


@dataclasses.dataclass(frozen=True)
class Where:
    """Where a job's tasks go: the scheduler and its queue there, what that allows, and the cores of each task."""

    scheduler: str
    on_gpu: bool
    queue: Queue
    finish_queue: Queue
    limits: Limits
    cpus: int

    @property
    def mailer(self) -> str | None:
        """Who sends mail, where the place decides it: the queue of this machine has no mailer of its own."""
        return "sendmail" if self.scheduler == "local" else None


def where(jobs: JobSettings, asked: Mapping[str, Any], wants: Callable[[bool], bool]) -> Where:
    """`asked`: flags for jobs. `wants(there)`: whether the tasks are to have a GPU, where there are some or not. Raises
    UsageError, and CannotRun when the scheduler does not answer."""
    name = asked["scheduler"] or jobs.scheduler or schedulers.usual()
    on_gpu = wants(machine.gpus() > 0 if name == "local" else jobs.gpu is not None)
    place = (jobs.gpu or Place(Queue(gres="gpu"))) if on_gpu else jobs.cpu
    queue = queue_of(place.queue, asked)
    return Where(
        scheduler=name,
        on_gpu=on_gpu,
        queue=queue,
        finish_queue=for_finish(without_gpu(queue, jobs) if on_gpu else queue),
        limits=schedulers.of(name).limits(queue),
        cpus=asked["cpus"] or (machine.cores() if name == "local" else place.cpus),
    )


def aim(jobs: JobSettings, asked: Mapping[str, Any], limits: Limits, source: str) -> Aim:
    """What the tasks should be like, by the flags and the settings. `source`: what their lengths are estimated from."""
    return Aim(
        task_s=60.0 * (minutes(asked["task_time"]) if asked["task_time"] else jobs.task_minutes or TASK_MINUTES),
        most_tasks=min(limits.tasks, MOST_TASKS),
        limit_s=_limit_s(minutes(asked["time_"]) if asked["time_"] else limits.minutes, source),
    )


def time_limit(asked: Mapping[str, Any], limits: Limits, longest_s: float, source: str) -> tuple[int, list[str]]:
    """Minutes that each task asks for, and what to say of it. Raises UsageError for more than is allowed."""
    time = minutes(asked["time_"]) if asked["time_"] else minutes_for(longest_s, source)
    if limits.minutes is None or time <= limits.minutes:
        return time, []
    if asked["time_"]:
        raise UsageError(
            f"--time {asked['time_']} is more than the partition allows, {clock(60 * limits.minutes)}",
            do="less: what takes longer goes on in another run by itself",
        )
    limit = clock(60 * limits.minutes)
    return limits.minutes, [f"the partition's limit is {limit}: what takes longer goes on in another run by itself"]


def batch(site: Site, jobs: JobSettings, plan: Plan, looked: Looked, asked: Mapping[str, Any]) -> Batch:
    """The job's Batch. `asked`: the flags of `kuulo submit`. Raises UsageError, and CannotRun when the scheduler does
    not answer."""
    there = where(jobs, asked, lambda gpus: wants_gpu(plan, there=gpus))
    memory_mb = megabytes(asked["mem"]) if asked["mem"] else None
    room_mb = memory_mb or (machine.memory_bytes() >> 20 if there.scheduler == "local" else None)
    workers = plan.options["workers"] or (1 if there.on_gpu else workers_on(plan, there.cpus, room_mb))
    place = there.queue.partition or there.scheduler
    words, turns = paces(site, plan, there.cpus, on_gpu=there.on_gpu, place=place)
    costs, source = Costs(words, turns), speeds.least_sure(words, turns)
    aimed = dataclasses.replace(
        aim(jobs, asked, there.limits, source),
        cut=asked["cut"] and not plan.options["pack"],
        from_ms=plan.options["from"] or 0,
    )
    tasks = packing.pack(looked.items, costs, aimed)
    longest_s = max((packing.task_s(task, looked.items, costs) for task in tasks), default=0.0)
    time, notes = time_limit(asked, there.limits, longest_s, source)
    return Batch(
        plan=dataclasses.replace(plan, options={**plan.options, "workers": workers}),
        items=tuple(looked.items),
        tasks=tuple(tasks),
        resources=Resources(
            minutes=time,
            memory_mb=memory_mb or memory_for(plan, words, turns, workers),
            cpus=there.cpus,
            gpus=int(there.on_gpu),
        ),
        **queued(jobs, asked, there),
        pace=words,
        turns_pace=turns,
        refused=tuple(looked.refused),
        notes=tuple(notes),
    )


def queued(jobs: JobSettings, asked: Mapping[str, Any], there: Where) -> dict[str, Any]:
    """What any Job has of its place, of the settings and of its flags."""
    return {
        "queue": there.queue,
        "finish_queue": there.finish_queue,
        "scheduler": there.scheduler,
        "at_once": asked["array_limit"] or jobs.at_once,
        "mail": asked["mail"],
        "mailer": there.mailer or jobs.mail,
    }


def workers_on(plan: Plan, cpus: int, memory_mb: int | None) -> int:
    """How many workers a task on CPUs has: as many as cores and memory allow."""
    memory = memory_mb << 20 if memory_mb else cpus * BYTES_PER_CPU
    return max(1, min(cpus // (plan.options["threads"] or 1), (memory - BASE_BYTES) // worker_bytes(plan)))


def worker_bytes(plan: Plan) -> int:
    """Memory of a worker with its model, carefully."""
    return WORKER_OVERHEAD_BYTES + 2 * (plan.model.bytes if plan.model else 0)


def paces(site: Site, plan: Plan, cpus: int, *, on_gpu: bool, place: str) -> tuple[Pace, Pace | None]:
    """How fast the words are, and the turns where speakers are told apart."""
    tables = [speeds.read(path) for path in (site.speeds_file(), site.centre.speeds) if path]
    device = "cuda" if on_gpu else "cpu"
    batch_size = int(plan.options["batch_size"])
    words = speeds.Work(plan.engine, plan.model.name if plan.model else "", device, cpus, batch_size=batch_size)
    bytes_ = plan.model.bytes if plan.model else 0
    if plan.diarizer is None:
        return speeds.estimate(words, tables, place, bytes_), None
    spec = engines.spec(plan.diarizer.engine)
    own = device if device in spec.devices else "cpu"
    model = plan.diarizer.model
    alone = speeds.Work(spec.name, model.name if model else "", own, cpus)
    turns = speeds.estimate(alone, tables, place, model.bytes if model else 0)
    both = speeds.estimate(dataclasses.replace(words, diarizer=spec.name), tables, place, bytes_)
    if both.source == speeds.MEASURED:
        known = dataclasses.replace(turns, source=speeds.MEASURED, why=f"{turns.why}; with the words as measured")
        return speeds.without(both, turns), known
    return speeds.estimate(words, tables, place, bytes_), turns


def memory_for(plan: Plan, words: Pace, turns: Pace | None, workers: int) -> int:
    """MB to ask for: what was measured, or what a worker may take by the size of its model, and a margin."""
    need = float(words.memory_bytes)
    if words.source != speeds.MEASURED:
        need = workers * worker_bytes(plan) + BASE_BYTES
    if turns:
        need += turns.memory_bytes
    steps = math.ceil(MEMORY_MARGIN * need / (MEMORY_STEP_MB << 20))
    return max(LEAST_MB, steps * MEMORY_STEP_MB)


def minutes_for(seconds: float, source: str) -> int:
    """The time limit for what is estimated to take so long."""
    factor, more = MARGINS[source]
    return math.ceil(factor * seconds / 60) + more


def _limit_s(limit: int | None, source: str) -> float | None:
    """How long a task may be estimated to be, so that its time limit is no more than so many minutes."""
    if limit is None:
        return None
    factor, more = MARGINS[source]
    return max(60.0, (limit - more) * 60 / factor)
