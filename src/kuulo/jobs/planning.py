"""From recordings that were looked at to a Batch: where its tasks go, what each asks for, and who does what."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import engines, machine, schedulers, speeds
from kuulo.errors import UsageError
from kuulo.jobs import packing
from kuulo.jobs.batch import TURNS, WHOLE, Batch, Pace, Piece
from kuulo.jobs.packing import Aim, Costs
from kuulo.jobs.settings import JobSettings, Place
from kuulo.jobs.survey import Looked
from kuulo.plan import WORKER_OVERHEAD_BYTES, Plan
from kuulo.schedulers.base import Queue, Resources
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


def batch(site: Site, jobs: JobSettings, plan: Plan, looked: Looked, asked: Mapping[str, Any]) -> Batch:
    """The job's Batch. `asked`: the flags of `kuulo submit`. Raises UsageError, and CannotRun when the scheduler does
    not answer."""
    name = asked["scheduler"] or jobs.scheduler or schedulers.usual()
    scheduler = schedulers.of(name)
    on_gpu = wants_gpu(plan, jobs)
    place = (jobs.gpu or Place(Queue(gres="gpu"))) if on_gpu else jobs.cpu
    queue = queue_of(place.queue, asked)
    limits = scheduler.limits(queue)
    cpus = asked["cpus"] or (machine.cores() if name == "local" else place.cpus)
    memory_mb = megabytes(asked["mem"]) if asked["mem"] else None
    workers = plan.options["workers"] or (1 if on_gpu else workers_on(plan, cpus, memory_mb))
    words, turns = paces(site, plan, cpus, on_gpu=on_gpu, place=queue.partition or name)
    costs = Costs(words, turns)
    aim = Aim(
        task_s=60.0 * (minutes(asked["task_time"]) if asked["task_time"] else jobs.task_minutes or TASK_MINUTES),
        most_tasks=min(limits.tasks, MOST_TASKS),
        limit_s=_limit_s(minutes(asked["time_"]) if asked["time_"] else limits.minutes, words.source),
        cut=asked["cut"] and not plan.options["pack"],
        from_ms=plan.options["from"] or 0,
    )
    tasks = packing.pack(looked.items, costs, aim)
    longest_s = max((packing.task_s(task, looked.items, costs) for task in tasks), default=0.0)
    notes = []
    time = minutes(asked["time_"]) if asked["time_"] else minutes_for(longest_s, words.source)
    if limits.minutes is not None and time > limits.minutes:
        if asked["time_"]:
            raise UsageError(
                f"--time {asked['time_']} is more than the partition allows, {clock(60 * limits.minutes)}",
                do="less: what takes longer goes on in another run by itself",
            )
        time = limits.minutes
        notes.append(f"the partition's limit is {clock(60 * time)}: what takes longer goes on in another run by itself")
    return Batch(
        plan=dataclasses.replace(plan, options={**plan.options, "workers": workers}),
        items=tuple(looked.items),
        tasks=tuple(tasks),
        resources=Resources(
            minutes=time,
            memory_mb=memory_mb or memory_for(plan, words, turns, workers),
            cpus=cpus,
            gpus=int(on_gpu),
        ),
        queue=queue,
        finish_queue=_for_finish(_without_gpu(queue, jobs) if on_gpu else queue),
        scheduler=name,
        at_once=asked["array_limit"] or jobs.at_once,
        mail=asked["mail"],
        mailer=jobs.mail if name != "local" else "sendmail",
        pace=words,
        turns_pace=turns,
        refused=tuple(looked.refused),
        notes=tuple(notes),
    )


def workers_on(plan: Plan, cpus: int, memory_mb: int | None) -> int:
    """How many workers a task on CPUs has: as many as cores and memory allow."""
    memory = memory_mb << 20 if memory_mb else cpus * BYTES_PER_CPU
    return max(1, min(cpus // (plan.options["threads"] or 1), (memory - BASE_BYTES) // worker_bytes(plan)))


def worker_bytes(plan: Plan) -> int:
    """Memory of a worker with its model, carefully."""
    return WORKER_OVERHEAD_BYTES + 2 * (plan.model.bytes if plan.model else 0)


def paces(site: Site, plan: Plan, cpus: int, *, on_gpu: bool, place: str) -> tuple[Pace, Pace | None]:
    """How fast the words are, and the turns where speakers are told apart."""
    tables = [speeds.read(path) for path in (site.speeds_file(), site.speeds) if path]
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
        return speeds.without(both, turns), turns
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


def wants_gpu(plan: Plan, jobs: JobSettings) -> bool:
    """Whether the tasks get a GPU: where one is asked for, or where the site has a place for them and the engine can
    use one."""
    device = str(plan.options["device"])
    if device == "auto":
        return jobs.gpu is not None and "cuda" in plan.spec.devices
    return device.startswith("cuda")


def _without_gpu(queue: Queue, jobs: JobSettings) -> Queue:
    """Where what comes after the tasks goes, when these have GPUs: to the place for CPUs, where the site has one."""
    if not jobs.cpu.queue.partition:
        return dataclasses.replace(queue, gres=None)
    return dataclasses.replace(jobs.cpu.queue, account=queue.account or jobs.cpu.queue.account)


TASKS_ALONE = frozenset(
    {"cpus-per-task", "exclusive", "gpus", "gpus-per-node", "gpus-per-task", "gres", "mem", "mem-per-cpu", "mem-per-gpu",
     "nodelist", "nodes", "ntasks", "time", "tmp"}
)  # fmt: skip
"""The scheduler's own options that say what a task needs, and not what comes after."""


def _for_finish(queue: Queue) -> Queue:
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


def table(made: Batch) -> str:
    """The plan for people: tasks, sound, what is asked for and why."""
    ask, pace = made.resources, made.pace
    costs = Costs(pace, made.turns_pace) if pace else None
    times = [packing.task_s(task, made.items, costs) for task in made.tasks] if costs else []
    sound = sum(packing.length_ms(item) for item in made.items) / 1000
    cut = len({piece.item for task in made.tasks for piece in task if piece.kind != WHOLE})
    lines = [
        f"recordings  {len(made.items)}, {duration(sound)} of sound" + (f"; {cut} cut into parts" if cut else ""),
        f"tasks       {len(made.tasks)}" + (f", {made.at_once} at a time" if made.at_once else ""),
    ]
    if pace and times:
        lines += [
            f"speed       {pace.speed:.3g} times real time: {pace.why}",
            *([f"speakers    {made.turns_pace.speed:.3g}: {made.turns_pace.why}"] if made.turns_pace else []),
            f"estimate    {_range(times)} each, {duration(pace.load_s)} of it to load",
        ]
        factor, more = MARGINS[pace.source]
        reason = (
            f"{factor:g} times the longest and {more} min"
            if ask.minutes == minutes_for(max(times), pace.source)
            else "as asked for"
        )
        lines.append(f"time limit  {clock(60 * ask.minutes)} each: {reason}")
    workers = made.plan.options["workers"]
    lines.append(f"memory      {ask.memory_mb} MB each: {workers} {'worker' if workers == 1 else 'workers'}")
    lines.append(f"cores       {ask.cpus} each" + (f", {ask.gpus} GPU" if ask.gpus else ""))
    lines.append(f"where       {_where(made)}")
    lines += [f"note        {note}" for note in made.notes]
    lines += ["", f"{'task':>6}  {'recordings':>10}  {'sound':>10}  {'estimate':>10}"]
    for number, task in enumerate(made.tasks[:SHOWN]):
        sound = sum(packing.piece_ms(piece, made.items) for piece in task if piece.kind != TURNS) / 1000
        seconds = duration(times[number]) if times else ""
        lines.append(f"{number:>6}  {_number(task):>10}  {duration(sound):>10}  {seconds:>10}")
    if len(made.tasks) > SHOWN:
        lines.append(f"   ... and {len(made.tasks) - SHOWN} more, each shorter")
    return "\n".join(lines)


def _range(times: Sequence[float]) -> str:
    shortest, longest = duration(min(times)), duration(max(times))
    return longest if shortest == longest else f"{shortest} to {longest}"


SHOWN = 20
"""Tasks that the table shows."""


def _number(task: Sequence[Piece]) -> str:
    """How many recordings and parts a task has."""
    parts = sum(piece.kind != WHOLE for piece in task)
    return f"{len(task) - parts}" + (f"+{parts} parts" if parts else "")


def _where(made: Batch) -> str:
    """The scheduler and what it is told of the queue."""
    queue = made.queue
    told = {"partition": queue.partition, "account": queue.account, "QOS": queue.qos, "constraint": queue.constraint}
    usual = os.environ.get("SBATCH_PARTITION")
    if made.scheduler == "slurm" and usual and not queue.partition:
        told["partition"] = f"{usual} ($SBATCH_PARTITION)"
    return ", ".join([made.scheduler, *(f"{name} {value}" for name, value in told.items() if value)])


def duration(seconds: float) -> str:
    """For people: 45 s, 12.5 min, 3.2 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """A time limit: 1:30:00, 2-12:00:00."""
    days, rest = divmod(round(seconds), 86_400)
    return (f"{days}-" if days else "") + f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
