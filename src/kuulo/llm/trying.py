"""Has an engine for language models answer, through everything that an answer goes through: its server in the engine's
environment, offline, and a client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo.engines.base import EngineSpec
from kuulo.llm import facts as looked
from kuulo.llm import options, plan, session, tiny
from kuulo.llm.plan import ChatFacts, ChatPlan
from kuulo.plan import Facts, Model
from kuulo.site import Site


@dataclass(frozen=True)
class Trial:
    """An engine with a model, ready to be asked."""

    plan: ChatPlan

    @property
    def device(self) -> str:
        return "cuda" if self.plan.on_gpu else "cpu"

    def ask(self, questions: Iterable[str]) -> dict[str, str]:
        """What it answers to each, always the likeliest. Raises KuuloError."""
        with session.opened(self.plan) as talk:
            return {one: talk.ask([{"role": "user", "content": one}]).text for one in questions}


def prepare(
    spec: EngineSpec, model: Model, facts: Facts, scratch: Path, *, timeout_s: int, settings: Mapping[str, Any]
) -> Trial:
    """`facts`: of the machine, and of where the engine is. `settings`: the machine's options, as device and threads.
    Raises KuuloError."""
    given = {
        **settings, "engine": spec.name, "model": model.name, "scratch": str(scratch), "timeout": timeout_s,
        "context": tiny.CONTEXT, "max_tokens": tiny.LONGEST,
    }  # fmt: skip
    settled = options.settle(Site(), {name: value for name, value in given.items() if _can(spec, name)}, {})
    return Trial(plan.resolve(settled, ChatFacts(facts, looked.shape_of, looked.gpu_bytes())))


def _can(spec: EngineSpec, name: str) -> bool:
    return name in spec.options or not options.BY_NAME[name].engine
