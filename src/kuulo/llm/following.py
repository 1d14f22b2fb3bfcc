"""What follows a transcription: `kuulo transcribe --then`, in one plan and one job.

Everything is settled before the first recording is heard: tasks, parameters, templates, the language model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kuulo.errors import UsageError
from kuulo.llm import chain as chains
from kuulo.llm import options, plan, tasks
from kuulo.llm.chain import Chain
from kuulo.llm.plan import ChatPlan
from kuulo.machine import Machine


@dataclass(frozen=True)
class Following:
    """Tasks on transcripts that are not there yet. `flags`: options of the language model; `parameters`: of the tasks
    and their templates; `concurrency`: transcripts that are worked on at a time."""

    chain: Chain
    flags: Mapping[str, Any]
    plan: ChatPlan
    parameters: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 1

    @property
    def names(self) -> str:
        return ", ".join(link.task.name for link in self.chain.links)

    def to_json(self) -> dict[str, Any]:
        links = [
            {"task": one.task.name, "template": one.template.name, "template_sha256": one.template.digest}
            | {"parameters": dict(one.values)}
            for one in self.chain.links
        ]
        return {"tasks": links, "plan": self.plan.to_json()}

    def shown(self) -> list[str]:
        """For `--dry-run`."""
        by = f"{self.plan.engine}, model {self.plan.model_name or 'of the endpoint'}"
        return [
            f"then {one.task.name}: template {one.template.name} ({one.template.origin}), {by}"
            for one in self.chain.links
        ]


def of(values: Mapping[str, Any], elsewhere: Machine | None = None) -> Following:
    """What `then` and `then_option` ask for, on this machine or one like `elsewhere`. Raises UsageError, and as
    `plan.make` when no model can be asked."""
    told = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values["then_option"].items()}
    concurrency = _concurrency(told.pop("concurrency", "1"))
    flags = {key: value for key, value in told.items() if key in options.BY_NAME}
    parameters = {key: value for key, value in told.items() if key not in flags}
    chain = chains.chain(tasks.names(str(values["then"])), parameters)
    return Following(chain, flags, plan.make_with(flags, concurrency, elsewhere), parameters, concurrency)


def _concurrency(text: str) -> int:
    """Raises UsageError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise UsageError(f"concurrency={text}: a number from 1 to 1024 is expected", do="--then-option concurrency=4")
    return int(text)
