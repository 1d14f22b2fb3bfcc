"""From transcripts to a job: how many tasks work on them, which each has, and what it asks the scheduler for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import naming
from kuulo.errors import KuuloError
from kuulo.jobs import prompts_planning, transcripts
from kuulo.jobs.batch import Refused, Transcripts
from kuulo.jobs.settings import JobSettings
from kuulo.llm import chain as chains
from kuulo.llm import pace, plan
from kuulo.llm.chain import Chain
from kuulo.llm.plan import ChatPlan
from kuulo.machine import Machine
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

    def planned_on(self, machine: Machine) -> ChatPlan:
        return plan.make_with(self.given, self.concurrency, machine)


def results(site: Site, jobs: JobSettings, wanted: Wanted, asked: Mapping[str, Any]) -> Transcripts:
    """The job. `asked`: flags for jobs. Raises KuuloError, also when the model cannot be asked there, and when none of
    the transcripts can be read."""

    there, chat = prompts_planning.placed(jobs, wanted, asked)
    costs, refused = _looked_at(wanted)
    at_once = wanted.concurrency
    most = 1 if wanted.chain.is_together else max(1, len(costs) // at_once)
    shared = prompts_planning.shared_out(
        site, jobs, asked, there, chat, list(costs.values()), at_once=at_once, most=most
    )
    return Transcripts(
        what=transcripts.settled(wanted.chain, wanted.given, wanted.parameters, chat, at_once, wanted.template),
        sources=tuple(costs),
        records=wanted.chain.records(costs),
        overwrite=wanted.overwrite,
        refused=tuple(refused),
        **shared,
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
