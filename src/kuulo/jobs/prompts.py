"""A job that asks a language model: what its tasks and its end have in common.

A task asks its share of the prompts, and keeps every answer in a journal beside OUT (llm/batch.py) as soon as it is
there. The prompts themselves are read again on the node: no word of them is in the job's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kuulo import naming
from kuulo.errors import CannotRun, UsageError
from kuulo.jobs.batch import Prompts
from kuulo.llm import batch as batches
from kuulo.llm import plan, templates
from kuulo.llm.batch import Request
from kuulo.llm.plan import ChatPlan
from kuulo.llm.templates import Template


@dataclass(frozen=True)
class Way:
    """How a task's questions were asked: it decides which answer is whose. `note`: for records."""

    identity: str
    model: str
    defaults: Mapping[str, Any]
    note: Mapping[str, Any]
    concurrency: int


def template(job: Prompts) -> Template | None:
    """The template that a folder is asked about with. Raises CannotRun when it is another one by now."""
    if job.template is None:
        return None
    found = templates.find(job.template)
    if found.digest != job.template_sha256:
        raise changed(f"the template {found.name}", found.source)
    return found


def requests(job: Prompts) -> list[Request]:
    """The prompts. Raises CannotRun when they are others than those that the job was submitted with."""
    made = template(job)
    try:
        found = batches.read(job.source) if made is None else batches.of_folder(job.source, made, job.variables)[0]
    except UsageError as error:
        raise CannotRun(error.what, looked_at=error.looked_at, do="submit it again") from error
    if batches.digest(found) != job.digest:
        raise changed("what is asked", naming.shown(job.source))
    return found


def chat_plan(job: Prompts) -> ChatPlan:
    """How the model is asked on this node. Raises KuuloError, also when the model is another one by now."""
    made = plan.make_for(job.asked, job.concurrency, batches.AT_ONCE)
    if made.engine != job.engine or (made.model.digest if made.model else None) != job.model_sha256:
        raise changed(f"the model {job.model}", str(made.model.path) if made.model else made.engine)
    return made


def settled(job: Prompts, found: Sequence[Request], way: Way) -> list[Request]:
    """Prompts as they are sent."""
    return batches.settled(found, way.defaults, way.model, job.any_model)


def ways(events: Iterable[Mapping[str, Any]]) -> list[Way]:
    """How a task's questions were asked, in all its lives, the last one first."""
    told = [event["way"] for event in events if event["type"] == "ready" and "way" in event]
    return [Way(**one) for one in reversed(told)]


def changed(
    what: str, looked_at: str, *, so: str = "other answers would come of it", do: str = "submit it again"
) -> CannotRun:
    """What a job needs is not what it was submitted with."""
    return CannotRun(f"{what} has changed since the job was submitted: {so}", looked_at=looked_at, do=do)
