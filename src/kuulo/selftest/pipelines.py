"""What is tried: each engine with the miniature, whose words are known to be right, and with the model that it would
take; each engine that tells speakers apart beside the first of those, or alone, where it has to use a GPU; each engine
for language models with the small one that comes with Kuulo."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo import engines, miniature, plan, speakers, survey
from kuulo.engines.base import EngineSpec
from kuulo.errors import CannotRun, KuuloError
from kuulo.llm import tiny
from kuulo.llm.endpoint import CHAT
from kuulo.llm.plan import ENDPOINT
from kuulo.miniature.writers import WRITERS
from kuulo.models import built_in
from kuulo.models.store import Store
from kuulo.plan import DIARIZE, TRANSCRIBE, Facts, Model
from kuulo.site import Site


@dataclass(frozen=True)
class Pipeline:
    """An engine with a model, None when it brings its own, and who tells speakers apart; that one alone where it is the
    engine itself. `trouble`: why it cannot even begin. `left_out`: why it is not tried. `exact`: the model is one that
    comes with Kuulo, and has to hear the words, or to answer as it was taught."""

    facts: Facts
    spec: EngineSpec
    model: Model | None = None
    speaker_engine: str = ""
    trouble: KuuloError | None = None
    left_out: str = ""

    @property
    def exact(self) -> bool:
        return self.model is not None and self.model.built_in

    @property
    def alone(self) -> bool:
        """Whether speakers are told apart, and nothing else."""
        return self.speaker_engine == self.spec.name

    @property
    def answers(self) -> bool:
        """Whether it is a language model that is tried."""
        return CHAT in self.spec.tasks

    @property
    def where(self) -> str:
        environment = self.facts.environments.get(self.spec.environment or self.spec.name)
        return str(environment.folder) if environment else "beside Kuulo"


def every(
    site: Site, folder: Path, names: Sequence[str] = (), model: str | None = None, *, gpu: bool = False
) -> Iterator[Pipeline]:
    """The pipelines, the best engine first. The miniature is written into `folder`. Raises UsageError, CannotRun."""
    facts = survey.facts(site)
    for name in names:
        plan.known_engine(name, None)
    store = Store(folder / "models")
    first: Pipeline | None = None
    tried = 0
    for spec in _specs(TRANSCRIBE, facts, names):
        for pipeline in _of_engine(spec, facts, store, model, gpu=gpu):
            tried += 1
            first = first or (pipeline if not pipeline.trouble and not pipeline.left_out else None)
            yield pipeline
    for spec in [s for s in _specs(DIARIZE, facts, names) if s.name != speakers.CHANNELS]:
        beside = _of_speakers(spec, facts, store, first, gpu=gpu)
        if beside:
            tried += 1
            yield beside
    for spec in [s for s in _specs(CHAT, facts, names) if s.kind != ENDPOINT]:
        for pipeline in _of_chat(spec, facts, model, named=spec.name in names, gpu=gpu):
            tried += 1
            yield pipeline
    if not tried:
        raise CannotRun(
            "there is nothing to try: no engine is installed",
            looked_at=", ".join(names) or "kuulo engines",
            do="kuulo engines install faster-whisper",
        )


def _specs(task: str, facts: Facts, names: Sequence[str]) -> list[EngineSpec]:
    """The engines for a task that are installed, or broken, or named."""
    here = [s for s in engines.specs(task) if facts.installed.get(s.name) or s.name in facts.broken]
    named = [s for s in engines.specs(task) if s.name in names and s.name in facts.denied]
    return [*(s for s in here if s.name in names or not names), *named]


def _of_engine(spec: EngineSpec, facts: Facts, store: Store, named: str | None, *, gpu: bool) -> Iterator[Pipeline]:
    trouble = facts.broken.get(spec.name) or facts.denied.get(spec.name)
    if trouble:
        yield Pipeline(facts, spec, trouble=trouble)
    elif gpu and (why := _without_gpu(spec, facts)):
        yield Pipeline(facts, spec, left_out=why)
    elif named and not spec.model_formats:
        yield Pipeline(facts, spec, left_out="it takes no other model than its own")
    elif not spec.model_formats:
        yield Pipeline(facts, spec)
    elif named and named != miniature.NAME:
        try:
            yield Pipeline(facts, spec, facts.find_model(named, spec.model_formats))
        except KuuloError as error:
            yield Pipeline(facts, spec, trouble=error)
    else:
        yield from _with_models(spec, facts, store, alone=named == miniature.NAME)


def _with_models(spec: EngineSpec, facts: Facts, store: Store, *, alone: bool) -> Iterator[Pipeline]:
    """With the miniature, and with the best of the store."""
    found = _miniature(spec, store)
    if found:
        yield Pipeline(facts, spec, found)
    own = [m for m in facts.models if m.format in spec.model_formats and not m.built_in]
    best = min(own, key=lambda m: (m.rank, m.name), default=None)
    if best and not alone:
        yield Pipeline(facts, spec, best)
    elif not found:
        yield Pipeline(facts, spec, left_out=f"no store has a model as {' or '.join(spec.model_formats)}")


def _of_chat(spec: EngineSpec, facts: Facts, model: str | None, *, named: bool, gpu: bool) -> Iterator[Pipeline]:
    """An engine for language models, with the tiny one. A model of the store is tried where it is named: large ones
    take minutes to load, and more memory than each machine has. `named`: the engine is, so that a model that it does
    not have is its failure, and not just another's model."""
    if trouble := facts.broken.get(spec.name) or facts.denied.get(spec.name):
        yield Pipeline(facts, spec, trouble=trouble)
    elif gpu and (why := _without_gpu(spec, facts)):
        yield Pipeline(facts, spec, left_out=why)
    elif model and model != miniature.NAME:
        try:
            yield Pipeline(facts, spec, facts.find_model(model, spec.model_formats))
        except KuuloError as error:
            if named:
                yield Pipeline(facts, spec, trouble=error)
    elif found := tiny.model(spec.model_formats):
        yield Pipeline(facts, spec, found)
    else:
        formats = " or ".join(spec.model_formats)
        yield Pipeline(facts, spec, left_out=f"no small model comes with Kuulo as {formats}: name one with --model")


def _of_speakers(spec: EngineSpec, facts: Facts, store: Store, first: Pipeline | None, *, gpu: bool) -> Pipeline | None:
    """An engine that tells speakers apart, beside the first that recognises, or the quickest that there is. With a GPU
    it is alone: what a GPU does is seen of one engine at a time. None where nobody recognises."""
    alone = Pipeline(facts, spec, speaker_engine=spec.name)
    if trouble := facts.broken.get(spec.name) or facts.denied.get(spec.name):
        return dataclasses.replace(alone, trouble=trouble)
    if gpu and (why := _without_gpu(spec, facts)):
        return dataclasses.replace(alone, left_out=why)
    best = min(
        (m for m in facts.models if m.format in spec.model_formats), key=lambda m: (m.rank, m.name), default=None
    )
    if spec.model_formats and best is None:
        why = f"no store has a model as {' or '.join(spec.model_formats)}"
        return dataclasses.replace(alone, left_out=why)
    if gpu:
        return dataclasses.replace(alone, model=best)
    whole = first or _quickest(facts, store)
    return dataclasses.replace(whole, speaker_engine=spec.name) if whole else None


def _quickest(facts: Facts, store: Store) -> Pipeline | None:
    for spec in [s for s in engines.specs(TRANSCRIBE) if facts.installed.get(s.name)]:
        if not spec.model_formats or (model := _miniature(spec, store)):
            return Pipeline(facts, spec, model if spec.model_formats else None)
    return None


def _miniature(spec: EngineSpec, store: Store) -> Model | None:
    formats = [format_ for format_ in spec.model_formats if format_ in WRITERS]
    return survey.model(built_in.write(store, formats[0])) if formats else None


def _without_gpu(spec: EngineSpec, facts: Facts) -> str:
    """Why an engine cannot use a GPU; nothing when it can."""
    if "cuda" not in spec.devices:
        return "it uses no GPU"
    environment = facts.environments.get(spec.home)
    return "it is installed for the CPU" if environment and environment.variant == "cpu" else ""
