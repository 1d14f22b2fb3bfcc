"""From what was asked to what will be done: Request -> Plan, with nothing left to decide.

`resolve` is pure: everything it needs to know of the machine, the stores and the engines comes in as `Facts`.
Every refusal happens here, before anything is decoded or queued.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo import engines, miniature, options, speakers
from kuulo import roster as rosters
from kuulo.engines.base import EngineSpec, Unusable
from kuulo.environments import recipe
from kuulo.environments.installed import Environment
from kuulo.errors import EngineMissing, KuuloError, ModelMissing, OptionRefused, UsageError
from kuulo.machine import Machine
from kuulo.roster import Roster
from kuulo.site import Settings

BETTER = "kuulo models pull small"
"""The command that gets a model that is good enough for a first serious transcript, and small enough for a laptop."""

PACK_LONGEST_MS = 14_000
"""Recordings longer than this are not packed: two would not fit into a window."""

MANY_THREADS = 8
"""CPU threads of one worker beyond which Whisper engines gain nothing (measured by AaltoSciComp, and here)."""

WORKER_OVERHEAD_BYTES = 700_000_000
"""Memory of a worker beside its model: the interpreter, the engine, windows in work."""


@dataclass(frozen=True)
class Model:
    """A model as a plan needs it. `digest` identifies its files; `origin` says where it was found. One that is
    `built_in` is for demonstration: it serves only who names it."""

    name: str
    format: str
    path: Path
    digest: str
    bytes: int
    origin: str
    revision: str | None = None
    multilingual: bool | None = None
    translates: bool | None = None
    rank: int = 1000
    built_in: bool = False


@dataclass(frozen=True)
class Facts:
    """What `resolve` may know: the machine, who is installed, here or in an environment, and the models in the stores.

    `find_model(name_or_path, formats)` gives the Model or raises ModelMissing."""

    machine: Machine
    installed: Mapping[str, bool]
    models: Sequence[Model]
    find_model: Any
    stores: str = ""
    environments: Mapping[str, Environment] = field(default_factory=dict)
    broken: Mapping[str, KuuloError] = field(default_factory=dict)
    """What is wrong with an engine's environment. The engine counts as not installed, also when it is beside Kuulo too:
    nobody chose that one."""
    denied: Mapping[str, KuuloError] = field(default_factory=dict)
    """Engines that this site does not offer to us: they count as not installed."""


@dataclass(frozen=True)
class Diarizer:
    """The engine that tells speakers apart, its model, None when it brings its own, and why these."""

    engine: str
    model: Model | None
    why: str
    environment: Environment | None

    @property
    def model_name(self) -> str:
        return self.model.name if self.model else "its own"


TRANSCRIBE, DIARIZE = "transcribe", "diarize"
"""What a plan is for: its engine's task."""


@dataclass(frozen=True)
class Plan:
    """A request resolved. `options` has every common option by name; `why` says why this engine and model. `diarizer`:
    who tells speakers apart beside the recognition. Where that is all that is asked, `job` is DIARIZE, and the engine
    does it."""

    engine: str
    model: Model | None
    why: str
    options: Mapping[str, Any]
    given: tuple[str, ...]
    raw: Mapping[str, Any]
    workers: int
    threads: int
    notes: tuple[str, ...] = ()
    environment: Environment | None = None
    key: str = field(default="")
    job: str = TRANSCRIBE
    diarizer: Diarizer | None = None
    roster: Roster | None = None

    @property
    def spec(self) -> EngineSpec:
        return engines.spec(self.engine)

    @property
    def model_name(self) -> str:
        return self.model.name if self.model else "its own"

    def engine_options(self) -> dict[str, Any]:
        """What the worker is told: the options that the engine honours."""
        chosen = {n: v for n, v in self.options.items() if n in self.spec.options}
        if self.job == DIARIZE:
            return self.speaker_options(self.spec)
        if "threads" in chosen:
            chosen["threads"] = self.threads
        if self.options["pack"] or (self.diarizer and has_word_times(self.spec, self.raw)):
            chosen["word_times"] = True
        return chosen

    @property
    def by_channel(self) -> bool:
        """Whether each channel is a speaker's."""
        return str(self.options["speakers"]) == speakers.CHANNELS

    def speaker_options(self, spec: EngineSpec) -> dict[str, Any]:
        """What the engine that tells speakers apart is told. Where it is beside the recognition and cannot have its
        device, it takes the CPU."""
        device = str(self.options["device"])
        able = device.partition(":")[0] in ("auto", *spec.devices)
        told = {**number_of(self.options), "device": device if able else "cpu", "threads": self.threads}
        return {name: value for name, value in told.items() if name in spec.options}

    def key_for(self, audio_sha256: str) -> str:
        """Digest of everything that decides this recording's words: equal key, nothing to do again."""
        return hashlib.sha256(f"{self.key}:{audio_sha256}".encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """For `--dry-run --json` and plan files."""
        diarizer = None
        if self.diarizer:
            where = self.diarizer.environment
            diarizer = {
                "engine": self.diarizer.engine,
                "model": _model_json(self.diarizer.model),
                "why": self.diarizer.why,
                "environment": where.to_json() if where else None,
            }
        return {
            "schema": 1,
            "job": self.job,
            "engine": self.engine,
            "model": _model_json(self.model),
            "diarizer": diarizer,
            "why": self.why,
            "options": {k: _plain(v) for k, v in self.options.items()},
            "given": list(self.given),
            "engine_options": dict(self.raw),
            "workers": self.workers,
            "threads": self.threads,
            "notes": list(self.notes),
            "environment": self.environment.to_json() if self.environment else None,
            "key": self.key,
        }


def number_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """How many speakers there are, at least and at most, as engines are told."""
    wanted = speakers.parse(str(values["speakers"])) or speakers.Wanted()
    return {"speakers": [wanted.least, wanted.most]}


def _model_json(model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {k: v for k, v in dataclasses.asdict(model).items() if k != "rank"} | {"path": str(model.path)}


def resolve(settings: Settings, facts: Facts, recordings: int = 1) -> Plan:
    """The plan for `recordings` recordings. Raises UsageError, OptionRefused, EngineMissing or ModelMissing."""
    given = settings.given()
    spec, model, why = choose(settings, facts)
    check_options(spec, model, settings.values, given)
    workers, threads = share_out(spec, model, settings.values, facts.machine, recordings)
    raw = dict(settings.values["engine_option"] or {})
    raw |= spec.files_of(raw)
    notes = [] if settings.values["engine"] else [f"{why.what}. {why.do}" for why in facts.broken.values()]
    if spec.quality_note:
        notes.append(f"{spec.quality_note} For a better transcript: {BETTER}")
    if model and model.built_in:
        notes.append(f"{miniature.NOTE} For real recordings: {BETTER}")
    roster = read_roster(settings.values)
    plan = Plan(
        engine=spec.name,
        model=model,
        why=why,
        options=settings.values,
        given=tuple(sorted(given)),
        raw=raw,
        workers=workers,
        threads=threads,
        notes=tuple(notes),
        environment=facts.environments.get(spec.name),
        diarizer=choose_diarizer(settings.values, facts, roster) if settings.values["speakers"] != "none" else None,
        roster=roster,
    )
    return dataclasses.replace(plan, key=key_of(plan))


def resolve_diarization(settings: Settings, facts: Facts, recordings: int = 1) -> Plan:
    """The plan for telling the speakers of recordings apart, and no more. Raises as `resolve`."""
    values = settings.values
    roster = read_roster(values)
    chosen = choose_diarizer(values, facts, roster)
    spec = engines.spec(chosen.engine)
    name = str(values["device"]).partition(":")[0]
    if name not in ("auto", *spec.devices):
        raise OptionRefused(f"{spec.name} cannot do this: --device: its devices are {', '.join(spec.devices)}")
    workers, threads = share_out(spec, chosen.model, values, facts.machine, recordings)
    plan = Plan(
        engine=spec.name,
        model=chosen.model,
        why=chosen.why,
        options=values,
        given=tuple(sorted(settings.given())),
        raw=dict(values["speaker_option"] or {}),
        workers=workers,
        threads=threads,
        environment=chosen.environment,
        job=DIARIZE,
        roster=roster,
    )
    return dataclasses.replace(plan, key=key_of(plan))


def read_roster(values: Mapping[str, Any]) -> Roster | None:
    """The voices that have names. Raises UsageError."""
    if not values["roster"]:
        return None
    if values["speakers"] == "none":
        raise UsageError("--roster names the speakers, and nobody tells them apart", do="add --speakers auto")
    return rosters.read(Path(values["roster"]).expanduser())


def choose_diarizer(values: Mapping[str, Any], facts: Facts, roster: Roster | None = None) -> Diarizer:
    """Who tells the speakers apart: the engine and model that are named, else the roster's engine, else the first that
    is installed and has its model. Raises UsageError, EngineMissing, ModelMissing."""
    own = roster.engine if roster else None
    wanted, model = values["speaker_engine"] or own, values["speaker_model"]
    if (values["speakers"] == speakers.CHANNELS) != (wanted == speakers.CHANNELS):
        if wanted == speakers.CHANNELS:
            raise UsageError("the engine channels gives each channel a speaker", do="--speakers channels")
        if wanted:
            raise UsageError(
                f"--speakers channels is not for {wanted}, which tells voices apart",
                do="leave out --speaker-engine and --roster, or take --speakers auto",
            )
        wanted = speakers.CHANNELS
    if own and wanted != own:
        raise UsageError(
            f"--speaker-engine {wanted} cannot compare voices with the roster's, which are of {own}",
            do=f"leave --speaker-engine out, or enrol the voices anew with {wanted}",
        )
    if wanted:
        spec = named_engine(str(wanted), facts, DIARIZE)
        if why_not := _miscount(spec, values):
            raise OptionRefused(
                f"{spec.name} cannot do this: --speakers {values['speakers']}: {why_not}",
                do="take --speakers auto, or another --speaker-engine",
            )
        if not spec.model_formats:
            if model:
                raise OptionRefused(
                    f"--speaker-model: {spec.name} brings its own model and takes no other",
                    do="leave --speaker-model out, or name another --speaker-engine",
                )
            why = (
                "the roster's"
                if own
                else f"named by {'--speaker-engine' if values['speaker_engine'] else '--speakers'}"
            )
            return _diarizer(spec, None, why, facts)
        if model:
            found = facts.find_model(str(model), spec.model_formats)
            return _diarizer(spec, found, "engine and model named", facts)
        best = _best([m for m in facts.models if m.format in spec.model_formats])
        if best is None:
            raise ModelMissing(
                f"no store has a model for {spec.name}", looked_at=facts.stores, do="kuulo models list --catalog"
            )
        return _diarizer(spec, best, f"engine named; {best.name} is the best of its models in the store", facts)
    usable = [s for s in engines.specs(DIARIZE) if facts.installed.get(s.name) and s.name != speakers.CHANNELS]
    if not usable and facts.denied:
        raise UsageError("this site offers you no engine that tells speakers apart", looked_at=", ".join(facts.denied))
    if not usable:
        raise EngineMissing("no engine that tells speakers apart is installed", do="pip install kuulo")
    if model:
        spec, found, why = _for_model(str(model), usable, facts)
        if why_not := _miscount(spec, values):
            raise OptionRefused(
                f"{spec.name} with {found.name} cannot do this: --speakers {values['speakers']}: {why_not}",
                do="take --speakers auto, or another --speaker-model",
            )
        return _diarizer(spec, found, why, facts)
    for spec in usable:
        if _miscount(spec, values):
            continue
        best = _best([m for m in facts.models if m.format in spec.model_formats])
        if best or not spec.model_formats:
            return _diarizer(spec, best, "the first installed engine in order of preference that has its model", facts)
    raise ModelMissing("no store has a model that tells speakers apart", looked_at=facts.stores)


def _miscount(spec: EngineSpec, values: Mapping[str, Any]) -> str | None:
    """Why an engine cannot find as many speakers as were asked for; None where it can, or nothing was asked."""
    if values["speakers"] in ("auto", speakers.CHANNELS, "none"):
        return None
    if "speakers" not in spec.options:
        return "how many there are cannot be said"
    why: str | None = engines.module(spec.name).refuse(number_of(values)).get("speakers")
    return why


def with_voices(facts: Facts) -> str | None:
    """The first installed engine that gives voices, and has its model: for who enrols one."""
    for spec in engines.specs(DIARIZE):
        has_model = not spec.model_formats or any(model.format in spec.model_formats for model in facts.models)
        if spec.voices and facts.installed.get(spec.name) and has_model:
            return spec.name
    return None


def _diarizer(spec: EngineSpec, model: Model | None, why: str, facts: Facts) -> Diarizer:
    return Diarizer(spec.name, model, why, facts.environments.get(spec.name))


def choose(settings: Settings, facts: Facts) -> tuple[EngineSpec, Model | None, str]:
    """The engine, its model, and why. No engine stands in for another that was named."""
    wanted_engine, wanted_model = settings.values["engine"], settings.values["model"]
    if wanted_engine:
        spec = named_engine(str(wanted_engine), facts)
        if not spec.model_formats:
            if wanted_model:
                raise OptionRefused(
                    f"--model: {spec.name} brings its own model and takes no other",
                    do="leave --model out, or name another engine",
                )
            return spec, None, "named by --engine"
        if wanted_model:
            return spec, facts.find_model(str(wanted_model), spec.model_formats), "engine and model named"
        best = _best([m for m in facts.models if m.format in spec.model_formats and not m.built_in])
        if best is None:
            raise ModelMissing(
                f"no store has a model for {spec.name}",
                looked_at=facts.stores,
                do=f"kuulo models pull small --format {spec.model_formats[0]}",
            )
        return spec, best, f"engine named; {best.name} is the best of its models in the store"
    usable = [s for s in engines.specs() if facts.installed.get(s.name)]
    if wanted_model:
        return _for_model(str(wanted_model), usable, facts)
    return _best_of_all(settings, usable, facts)


def known_engine(name: str, task: str | None = TRANSCRIBE) -> EngineSpec:
    """The engine of that name for a task, None for any, installed or not; raises UsageError for an unknown one,
    EngineMissing for one of another package that does not work."""
    try:
        spec = engines.spec(name) if name in engines.names() else None
    except Unusable as error:
        raise EngineMissing(error.what, do=error.do) from error
    if spec is None or (task and task not in spec.tasks):
        known = [s.name for s in engines.specs(task or TRANSCRIBE)]
        near = difflib.get_close_matches(name, known, n=1)
        do = f"did you mean {near[0]}?" if near else None
        if by_program := recipe.of_program(name):
            do = f"{name} is the program of the engine {by_program}: name that"
        what = f"there is no engine {name!r}" if spec is None else f"the engine {name} cannot {task}"
        raise UsageError(what, looked_at="kuulo engines: " + ", ".join(known), do=do)
    return spec


def named_engine(name: str, facts: Facts, task: str = TRANSCRIBE) -> EngineSpec:
    """The engine of that name; raises UsageError for an unknown one, EngineMissing when it is not installed, CannotRun
    when its environment is broken."""
    spec = known_engine(name, task)
    for why in (facts.denied, facts.broken):
        if name in why:
            raise why[name]
    if not facts.installed.get(name):
        home = spec.environment or name
        raise EngineMissing(
            f"the engine {name} is not installed",
            looked_at=f"Python module {spec.module}",
            do=f"kuulo engines install {home}" if recipe.has(home) else f"pip install {spec.install}",
        )
    return spec


def _for_model(wanted: str, usable: Sequence[EngineSpec], facts: Facts) -> tuple[EngineSpec, Model, str]:
    """The best installed engine for which a model of that name or path is there."""
    first_error: ModelMissing | None = None
    for spec in usable:
        if not spec.model_formats:
            continue
        try:
            model = facts.find_model(wanted, spec.model_formats)
        except ModelMissing as error:
            first_error = first_error or error
            continue
        return (
            spec,
            model,
            f"{spec.name} is the first installed engine, in order of preference, that has {model.name}",
        )
    if first_error is None:
        raise EngineMissing("no engine that takes models is installed", do="pip install kuulo")
    raise first_error


def _best_of_all(
    settings: Settings, usable: Sequence[EngineSpec], facts: Facts
) -> tuple[EngineSpec, Model | None, str]:
    formats = {f: s for s in reversed(usable) for f in s.model_formats}
    order = [s.name for s in usable]
    candidates = [m for m in facts.models if m.format in formats and not m.built_in]
    if candidates:
        model = min(candidates, key=lambda m: (m.rank, order.index(formats[m.format].name), m.name))
        spec = formats[model.format]
        why = f"{model.name} is the best model in the store, and {spec.name} the first installed engine that takes it"
        return spec, model, why
    embedded = next((s for s in usable if not s.model_formats), None)
    if embedded is None:
        raise ModelMissing("no store has a model", looked_at=facts.stores, do=BETTER)
    given = settings.given()
    refused = refusals(embedded, None, settings.values, given)
    if refused:
        reasons = "; ".join(f"{flag(n)}: {why}" for n, why in refused.items())
        raise ModelMissing(
            f"no store has a Whisper model, and the built-in engine {embedded.name} cannot do this ({reasons})",
            looked_at=facts.stores,
            do=BETTER,
        )
    return embedded, None, "no Whisper model is in the store, so the built-in engine serves"


def _best(models: Sequence[Model]) -> Model | None:
    return min(models, key=lambda m: (m.rank, m.name), default=None)


def check_options(spec: EngineSpec, model: Model | None, values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises OptionRefused, naming every option that the engine cannot honour and the engines that can."""
    refused = refusals(spec, model, values, given)
    if refused:
        lines = []
        for name, why in refused.items():
            others = able(name, values[name], spec)
            lines.append(f"{flag(name)}: {why}" + (f" ({', '.join(others)} can)" if others else ""))
        raise OptionRefused(
            f"{spec.name} cannot do this: " + "; ".join(lines), do=f"kuulo explain --engine {spec.name}"
        )
    if values["from"] is not None and values["to"] is not None and values["to"] <= values["from"]:
        raise UsageError("--to is not after --from")
    layout = [n for n in ("max_line_width", "max_words_per_line", "highlight_words") if values[n]]
    if layout and not values["word_times"]:
        raise UsageError(f"{flag(layout[0])} needs the words' times", do="add --word-times")
    if values["max_line_count"] and not values["max_line_width"]:
        raise UsageError("--max-line-count needs --max-line-width")


def able(name: str, value: Any, but: EngineSpec) -> list[str]:
    """The names of the other engines that honour this value of an option."""
    return [spec.name for spec in engines.specs() if spec.name != but.name and _can(spec, name, value)]


def _can(spec: EngineSpec, name: str, value: Any) -> bool:
    """Whether an engine honours this value of an option, whatever the model."""
    return name in spec.options and name not in engines.module(spec.name).refuse({name: value})


def refusals(
    spec: EngineSpec, model: Model | None, values: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, str]:
    """Options that were given and that the engine cannot honour: {option: why}. A value that is what the engine
    would do anyway is not refused."""
    refused = {}
    for name, value in given.items():
        option = options.BY_NAME[name]
        if option.engine and name not in spec.options and value != _NOTHING_ASKED.get(name, option.default):
            refused[name] = f"{spec.name} has nothing like it"
    if values["pack"] and not has_word_times(spec, values["engine_option"] or {}):
        refused["pack"] = "the words are given back by their times, which it does not have"
    about: dict[str, Any] = {n: v for n, v in given.items() if n in spec.options}
    if model:
        about |= {"model": model.name, "multilingual": model.multilingual, "translates": model.translates}
    refused |= engines.module(spec.name).refuse(about)
    name, _, number = str(values["device"]).partition(":")
    if "device" in given and name != "auto" and (name not in spec.devices or not (number.isdigit() or number == "")):
        refused["device"] = f"its devices are {', '.join(spec.devices)}"
    return refused


_NOTHING_ASKED = {
    "beam_size": 1,
    "condition_on_previous_text": False,
    "hotwords": None,
    "initial_prompt": None,
    "temperature": (0.0,),
}
"""Values that ask an engine without the option for nothing, where that is not the default."""


def flag(name: str) -> str:
    """The option as people type it."""
    return options.BY_NAME[name].flags[0].split("/")[0]


def share_out(
    spec: EngineSpec, model: Model | None, values: Mapping[str, Any], machine: Machine, recordings: int
) -> tuple[int, int]:
    """(workers, threads of each). Two workers with one thread do more than one with two, so on a CPU there are as
    many workers as cores, recordings and memory allow; a GPU gets one."""
    device = str(values["device"])
    on_gpu = device.startswith("cuda") or (device == "auto" and machine.gpus > 0 and "cuda" in spec.devices)
    threads = values["threads"]
    if values["workers"]:
        workers = values["workers"]
    elif on_gpu:
        workers = 1
    else:
        need = WORKER_OVERHEAD_BYTES + 2 * (model.bytes if model else 0)
        workers = max(1, min(machine.cores // (threads or 1), recordings, machine.memory_bytes // need))
    if not threads:
        threads = max(1, min(MANY_THREADS, machine.cores // workers))
    return workers, threads


def has_word_times(spec: EngineSpec, raw: Mapping[str, Any]) -> bool:
    """Whether the engine can say when each word was spoken, with these raw options."""
    return "word_times" in spec.options and (spec.words_need is None or spec.words_need in raw)


def key_of(plan: Plan) -> str:
    """Digest of what decides the words, whatever the recording."""
    chosen = {o.name: _plain(plan.options[o.name]) for o in options.OPTIONS if o.result}
    chosen["engine"] = plan.engine
    chosen["model"] = plan.model.digest if plan.model else None
    chosen["job"] = plan.job
    # What the file holds, and not where it is.
    chosen["roster"] = dataclasses.asdict(plan.roster) if plan.roster else None
    if plan.diarizer:
        chosen["speaker_engine"] = plan.diarizer.engine
        chosen["speaker_model"] = plan.diarizer.model.digest if plan.diarizer.model else None
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
