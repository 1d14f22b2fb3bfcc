"""From prompts to a job: how many tasks ask them, which each asks, and what it asks the scheduler for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from kuulo import machine, speeds
from kuulo.errors import CannotRun
from kuulo.jobs import packing, planning
from kuulo.jobs.amounts import clock, counted, duration, megabytes
from kuulo.jobs.batch import Pace, Prompts, Share, Transcripts
from kuulo.jobs.planning import MARGINS, Where
from kuulo.jobs.settings import JobSettings
from kuulo.jobs.table import where_of
from kuulo.llm import batch as batches
from kuulo.llm import memory, pace, plan
from kuulo.llm.batch import Request
from kuulo.llm.plan import ChatPlan
from kuulo.llm.serving import address
from kuulo.llm.templates import Template
from kuulo.machine import Machine
from kuulo.schedulers.base import Resources
from kuulo.site import Site

PROMPTS_TIMES = 5
"""Memory for all prompts, which each task reads, in sizes of them (445 MB were seen for 108 MB)."""

STEP_MB = 512
MEASURED_MARGIN = 1.25
UNLIMITED = 1 << 60
LEAST_ROUNDS = 4
"""A task has at least so many prompts for each that it asks at a time: else its slots stand empty at the end."""


class Asking(Protocol):
    """What is to be asked. `given`: options of the language model, as they were typed; `planned_on`: how it is asked on
    such a machine."""

    @property
    def given(self) -> Mapping[str, Any]: ...
    def planned_on(self, machine: Machine) -> ChatPlan: ...


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `given`: options of the language model, as they were typed; `named`: what the template was
    called."""

    source: Path
    target: Path
    requests: Sequence[Request]
    given: Mapping[str, Any]
    template: Template | None = None
    named: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    concurrency: int | None = None
    any_model: bool = False
    overwrite: bool = False

    def planned_on(self, machine: Machine) -> ChatPlan:
        return plan.make_for(self.given, self.concurrency, batches.AT_ONCE, machine)


def prompts(site: Site, jobs: JobSettings, wanted: Wanted, asked: Mapping[str, Any]) -> Prompts:
    """The job. `asked`: flags for jobs. Raises KuuloError, also when the model cannot be asked there."""
    there, chat = placed(jobs, wanted, asked)
    at_once = batches.at_once(chat, wanted.concurrency)
    size = sum(pace.characters(one) for one in wanted.requests)
    costs = [pace.cost(one, chat.options["max_tokens"]) for one in wanted.requests]
    most = max(1, len(costs) // (LEAST_ROUNDS * at_once))
    shared = shared_out(
        site, jobs, asked, there, chat, costs, at_once=at_once, most=most, more_mb=PROMPTS_TIMES * (size >> 20)
    )
    return Prompts(
        source=wanted.source,
        target=wanted.target,
        digest=batches.digest(wanted.requests),
        number=len(wanted.requests),
        bytes=size,
        asked=settled(wanted.given, chat),
        engine=chat.engine,
        model=chat.model_name,
        model_sha256=chat.model.digest if chat.model else None,
        concurrency=wanted.concurrency,
        template=_named(wanted),
        template_sha256=wanted.template.digest if wanted.template else None,
        variables=dict(wanted.variables),
        any_model=wanted.any_model,
        overwrite=wanted.overwrite,
        **shared,
    )


def shared_out(
    site: Site,
    jobs: JobSettings,
    asked: Mapping[str, Any],
    there: Where,
    chat: ChatPlan,
    costs: Sequence[float],
    *,
    at_once: int,
    most: int,
    more_mb: int = 0,
) -> dict[str, Any]:
    """What any Job has, with shares of about the same cost. `costs`: in tokens of answers (pace.py), of what is asked
    in order; `at_once`: how many are asked at a time in each task; `most`: tasks at most; `more_mb`: memory beside the
    model's. Raises UsageError."""
    tables = [speeds.read(path) for path in (site.speeds_file(), site.centre.speeds) if path]
    speed = pace.estimate(chat, at_once, there.cpus, tables, there.queue.partition or there.scheduler)
    seconds = [cost / speed.speed for cost in costs]
    aim = planning.aim(jobs, asked, there.limits, speed.source)
    tasks = shares(seconds, min(most, packing.tasks_for(sum(seconds), speed.load_s, aim)))
    longest_s = max((speed.load_s + sum(seconds[one.begin : one.end]) for one in tasks), default=0.0)
    time, notes = planning.time_limit(asked, there.limits, longest_s, speed.source)
    memory_mb = megabytes(asked["mem"]) if asked["mem"] else memory_for(chat, speed) + more_mb
    return {
        **planning.queued(jobs, asked, there),
        "tasks": tuple((one,) for one in tasks),
        "resources": Resources(time, memory_mb, there.cpus, gpus_for(chat)),
        "pace": speed,
        "notes": (*notes, *chat.notes),
    }


def placed(jobs: JobSettings, wanted: Asking, asked: Mapping[str, Any]) -> tuple[Where, ChatPlan]:
    """Where the tasks go, and how they ask the model there. Raises KuuloError."""
    where, node = place(jobs, asked, asked["mem"], str(wanted.given.get("device", "")), wanted.planned_on)
    chat = wanted.planned_on(node)
    check_reach(chat, where)
    return where, chat


def place(
    jobs: JobSettings,
    asked: Mapping[str, Any],
    mem: str | None,
    device: str,
    planned_on: Callable[[Machine], ChatPlan],
) -> tuple[Where, Machine]:
    """Where a language model is asked in a job, and what a node is like there. `mem` and `device` are as typed:
    memory is asked for as it is needed, unless somebody said how much there is; with a device `cuda`, of which a node
    without a GPU is refused, there is to be one. Raises KuuloError."""
    given = megabytes(mem) << 20 if mem else None

    def wants(there: bool) -> bool:
        gpus = int(there or device.startswith("cuda"))
        return gpus_for(planned_on(Machine(machine.cores(), given or UNLIMITED, gpus))) > 0

    where = planning.where(jobs, asked, wants)
    room = machine.memory_bytes() if where.scheduler == "local" else UNLIMITED
    return where, Machine(where.cpus, given or room, int(where.on_gpu))


def gpus_for(chat: ChatPlan) -> int:
    """How many GPUs a plan needs on its node: for all of the model, or for layers of it."""
    return int(chat.options["tensor_parallel"] or 1) if chat.on_gpu or chat.options["gpu_layers"] else 0


def check_reach(chat: ChatPlan, where: Where) -> None:
    """Raises CannotRun where a plan asks an endpoint that no other machine reaches, and a job runs on another one."""
    if where.scheduler == "local" or not chat.base_url or not (chat.socket or _is_loopback(chat.base_url)):
        return
    raise CannotRun(
        "the endpoint is on this machine alone, and a job runs on another one",
        looked_at=str(chat.socket or chat.base_url),
        do="leave the endpoint out, and the job starts the model itself",
    )


def memory_for(chat: ChatPlan, speed: Pace | None = None) -> int:
    """MB to ask for where nobody has said it: what was measured, or else the model and the rest; with a margin."""
    if speed is not None and speed.source == speeds.MEASURED:
        return memory.steps(MEASURED_MARGIN * speed.memory_bytes / 2**20, STEP_MB)
    return memory.to_ask_for(chat.need.total if chat.need else 0, STEP_MB)


def shares(costs: Sequence[float], number: int) -> list[Share]:
    """The prompts in so many shares of about the same cost, in order; fewer, where prompts are fewer. Pure."""
    number = max(1, min(number, len(costs)))
    whole, begin, gone, found = sum(costs), 0, 0.0, list[Share]()
    for n, one in enumerate(costs):
        gone += one
        left, tasks = len(costs) - n - 1, number - len(found) - 1
        if tasks and (left == tasks or gone >= whole * (len(found) + 1) / number):
            found.append(Share(begin, n + 1))
            begin = n + 1
    return [*found, Share(begin, len(costs))]


def table(made: Prompts | Transcripts) -> str:
    """The plan for people. Pure."""
    ask, speed = made.resources, made.pace
    if isinstance(made, Prompts):
        head, model, engine = f"prompts     {made.number}", made.model, made.engine
    else:
        head = f"results     {made.number}: {', '.join(made.what.tasks)} of {counted(len(made.sources), 'transcript')}"
        model, engine = made.what.model, made.what.asked["engine"]
    lines = [head, f"tasks       {len(made.tasks)}"]
    if made.at_once:
        lines[-1] += f", {made.at_once} at a time"
    lines.append(f"model       {model or 'the one that the endpoint has'} ({engine})")
    if speed:
        factor, more = MARGINS[speed.source]
        lines.append(f"speed       {speed.speed:,.{0 if speed.speed >= 100 else 1}f} tokens a second: {speed.why}")
        lines.append(f"to load     {duration(speed.load_s)}")
        lines.append(f"time limit  {clock(60 * ask.minutes)} each: {factor:g} times the longest and {more} min")
    lines.append(f"memory      {ask.memory_mb} MB each")
    lines.append(f"cores       {ask.cpus} each" + (f", {ask.gpus} GPU" if ask.gpus else ""))
    lines.append(f"where       {where_of(made)}")
    lines += [f"note        {note}" for note in made.notes]
    return "\n".join(lines)


def settled(given: Mapping[str, Any], chat: ChatPlan) -> dict[str, Any]:
    """The options that a job makes its plan with: what was typed, what this shell's variables say, and what was
    chosen. The rest is the settings', which nodes see too."""
    simple = {name: chat.options[name] for name in chat.given if isinstance(chat.options[name], (str, int, float))}
    chosen = {"engine": chat.engine, **({"model": chat.model_name} if chat.model_name else {})}
    return {**simple, **chosen, **given}


def _named(wanted: Wanted) -> str | None:
    """How the template is found again from another folder: by its path, where it was named so."""
    if wanted.template is None or wanted.named is None or wanted.template.origin != "file":
        return wanted.named
    return str(Path(wanted.named).expanduser().absolute())


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or address.is_loopback(host)
    except ValueError:  # another name
        return False
