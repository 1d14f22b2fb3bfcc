"""A job's plan for people: what is asked for, and why. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kuulo import speeds
from kuulo.jobs import packing
from kuulo.jobs.amounts import clock, counted, duration
from kuulo.jobs.batch import TURNS, WHOLE, Batch, Job, Piece
from kuulo.jobs.packing import Costs
from kuulo.jobs.planning import MARGINS, minutes_for


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
        source = speeds.least_sure(pace, made.turns_pace)
        factor, more = MARGINS[source]
        reason = (
            f"{factor:g} times the longest and {more} min"
            if ask.minutes == minutes_for(max(times), source)
            else "as asked for"
        )
        lines.append(f"time limit  {clock(60 * ask.minutes)} each: {reason}")
    workers = made.plan.options["workers"]
    lines.append(f"memory      {ask.memory_mb} MB each: {counted(workers, 'worker')}")
    lines.append(f"cores       {ask.cpus} each" + (f", {ask.gpus} GPU" if ask.gpus else ""))
    lines.append(f"where       {where_of(made)}")
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


def where_of(made: Job) -> str:
    """The scheduler and what it is told of the queue."""
    queue = made.queue
    told = {"partition": queue.partition, "account": queue.account, "QOS": queue.qos, "constraint": queue.constraint}
    usual = os.environ.get("SBATCH_PARTITION")
    if made.scheduler == "slurm" and usual and not queue.partition:
        told["partition"] = f"{usual} ($SBATCH_PARTITION)"
    return ", ".join([made.scheduler, *(f"{name} {value}" for name, value in told.items() if value)])
