"""Carries out a pipeline of a language model: questions to its server, and what was answered."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from kuulo import machine
from kuulo.llm import tiny, trying
from kuulo.selftest.outcome import Stage
from kuulo.selftest.pipelines import Pipeline
from kuulo.site import Site

LIMIT_S = 1800
"""How long a server may take to load its model, and an answer may stand still."""

GPU_TIMES = 16
"""So often it is asked where a GPU is watched: one answer is over before it is seen."""

OF_THE_MACHINE = ("device", "gpu_layers", "tensor_parallel", "threads")
QUESTION = "Say in one sentence what you can do."
"""For models that were taught nothing of ours."""


class Answering:
    """A server that is asked. Raises KuuloError."""

    def __init__(self, pipeline: Pipeline, site: Site, home: Path, *, gpu: bool) -> None:
        model = pipeline.model
        assert model is not None
        self._exact, self._times = pipeline.exact, GPU_TIMES if gpu else 1
        self._seconds = 0.0
        self._said: dict[str, str] = {}
        facts = dataclasses.replace(
            pipeline.facts, machine=machine.this(), models=[model], find_model=lambda name, formats: model
        )
        settings = {name: site.centre.llm[name] for name in OF_THE_MACHINE if name in site.centre.llm}
        self._trial = trying.prepare(pipeline.spec, model, facts, home, timeout_s=LIMIT_S, settings=settings)
        self.device = self._trial.device

    def go(self) -> None:
        began = time.monotonic()
        questions = [*tiny.ANSWERS] if self._exact else [QUESTION]
        self._said = self._trial.ask(questions * self._times)
        self._seconds = time.monotonic() - began

    def stages(self) -> list[Stage]:
        engine = Stage("engine", True, f"on {self.device}, {self._seconds:.1f} s with the start of its server")
        return [engine, self._right() if self._exact else self._something()]

    def _right(self) -> Stage:
        said = tiny.Said(self._said)
        if said.enough:
            return Stage("answers", True, said.words)
        return Stage(
            "answers",
            False,
            f"{said.words}: too few, it does not compute as it should",
            said.worst,
            "is it built for this processor? Else please report this, with `kuulo selftest --json`",
        )

    def _something(self) -> Stage:
        text = self._said[QUESTION]
        if tiny.words(text):
            return Stage("answers", True, f"{len(tiny.words(text))} words; none are known that it should say")
        return Stage("answers", False, "it said no word", f"asked: {QUESTION!r}; said: {text!r}", "kuulo models verify")
