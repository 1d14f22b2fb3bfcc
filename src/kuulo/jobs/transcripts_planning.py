"""From transcripts to a job: how many tasks work on them, which each has, and what it asks the scheduler for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import naming
from kuulo.errors import KuuloError
from kuulo.jobs import prompts_planning, transcripts
from kuulo.jobs.amounts import megabytes
from kuulo.jobs.batch import OnTranscripts, Refused, Transcripts
from kuulo.jobs.settings import JobSettings
from kuulo.llm import chain as chains
from kuulo.llm import pace, plan
from kuulo.llm.chain import Chain
from kuulo.machine import Machine
from kuulo.schedulers.base import Resources
from kuulo.site import Site


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `given`: options of the language model, as they were typed; `parameters`: of the tasks, and
    `template` is what another one than the first task's own was called."""

    chain: Chain
    sources: Sequence[Path]
    given: Mapping[str, Any]
    parameters: Mapping[str, str]
    template: str | None = None
    concurrency: int = 1
    overwrite: bool = False


def results(site: Site, jobs: JobSettings, wanted: Wanted, asked: Mapping[str, Any]) -> Transcripts:
    """The job. `asked`: flags for jobs. Raises KuuloError, also when the model cannot be asked there, and when none of
    the transcripts can be read."""

    def planned_on(machine: Machine) -> plan.ChatPlan:
        return plan.make_with(wanted.given, wanted.concurrency, machine)

    device = str(wanted.given.get("device", ""))
    there, node = prompts_planning.place(jobs, asked, asked["mem"], device, planned_on)
    chat = planned_on(node)
    prompts_planning.check_reach(chat, there)
    costs, refused = _looked_at(wanted)
    at_once = wanted.concurrency
    most = 1 if wanted.chain.is_together else max(1, len(costs) // at_once)
    shared = prompts_planning.shared_out(
        site, jobs, asked, there, chat, list(costs.values()), at_once=at_once, most=most
    )
    return Transcripts(
        what=OnTranscripts(
            **transcripts.settled(wanted.chain, wanted.given, wanted.parameters, chat, at_once, wanted.template)
        ),
        sources=tuple(costs),
        makes=wanted.chain.records(costs),
        tasks=shared.tasks,
        overwrite=wanted.overwrite,
        resources=Resources(
            shared.minutes,
            megabytes(asked["mem"]) if asked["mem"] else prompts_planning.memory_for(chat, shared.pace),
            there.cpus,
            prompts_planning.gpus_for(chat),
        ),
        queue=there.queue,
        finish_queue=there.finish_queue,
        scheduler=there.scheduler,
        at_once=asked["array_limit"] or jobs.at_once,
        mail=asked["mail"],
        mailer=there.mailer or jobs.mail,
        pace=shared.pace,
        refused=tuple(refused),
        notes=(*shared.notes, *chat.notes),
    )


def _looked_at(wanted: Wanted) -> tuple[dict[Path, float], list[Refused]]:
    """What each transcript costs, in tokens of answers, and those that cannot be read. Raises the first one's
    KuuloError when none can."""
    costs: dict[Path, float] = {}
    errors: list[tuple[Path, KuuloError]] = []
    for source in wanted.sources:
        try:
            lines = chains.read(source).lines
        except KuuloError as error:
            errors.append((source, error))
            continue
        tokens = sum(len(line.text) for line in lines) / pace.CHARACTERS
        costs[source] = sum(
            pace.tokens(tokens, max(pace.USUAL_ANSWER, link.task.answers * tokens)) for link in wanted.chain.links
        )
    if not costs and errors:
        raise errors[0][1]
    return costs, [Refused(naming.shown(source), error.what, error.do) for source, error in errors]
