"""From what was asked to how a language model will be asked: settings -> ChatPlan, with nothing left to decide.

`resolve` is pure: what it needs to know comes in as `ChatFacts`. Every refusal is here, before anything is started.
`make` is the thin edge that looks the facts up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo import engines
from kuulo.engines.base import EngineSpec
from kuulo.environments.installed import Environment
from kuulo.errors import CannotRun, EngineMissing, ModelMissing, OptionRefused, UsageError
from kuulo.llm import memory, options
from kuulo.llm import schema as schemas
from kuulo.llm.endpoint import CHAT
from kuulo.llm.memory import Need, Shape
from kuulo.machine import Machine
from kuulo.plan import Facts, Model, known_engine, named_engine
from kuulo.site import Settings

ENDPOINT = "endpoint"
"""The kind of an engine that starts nothing: somebody else's server is asked."""

SERVER_OPTIONS = ("context", "parallel", "gpu_layers", "tensor_parallel", "threads", "device")
GET_A_MODEL = "kuulo models list --catalog, then kuulo models pull NAME; or kuulo models add FILE.gguf"


@dataclass(frozen=True)
class ChatFacts:
    """What `resolve` may know. `shape_of`: what a model's files tell; `gpu_bytes`: memory of our GPUs together, None
    where it is not known; `key`: an endpoint's key, already read."""

    facts: Facts
    shape_of: Callable[[Model], Shape]
    gpu_bytes: int | None = None
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ChatPlan:
    """A request resolved. `options` has every option by name. Of an engine that starts a server: `model`, `context`
    (tokens of each question), `threads`, `need` (of memory). Of an endpoint: `base_url`, `socket`, `secret` (its key,
    which is in no JSON)."""

    engine: str
    model: Model | None
    model_name: str | None
    why: str
    options: Mapping[str, Any]
    given: tuple[str, ...]
    raw: Mapping[str, Any]
    context: int | None = None
    threads: int = 1
    need: Need | None = None
    on_gpu: bool = False
    environment: Environment | None = None
    base_url: str | None = None
    socket: Path | None = None
    secret: str | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    key: str = ""

    @property
    def spec(self) -> EngineSpec:
        return engines.spec(self.engine)

    @property
    def starts_server(self) -> bool:
        return self.spec.kind != ENDPOINT

    def request_options(self) -> dict[str, Any]:
        """What is sent with each question: for `client.chat` and `client.stream`."""
        return options.request_values(self.options)

    def server_options(self) -> dict[str, Any]:
        """What the engine's server is told: nothing in it is left to decide."""
        chosen = {name: self.options[name] for name in SERVER_OPTIONS}
        if chosen["device"] == "auto" and chosen["gpu_layers"] is None:
            chosen["device"] = "cuda" if self.on_gpu else "cpu"
        return {**chosen, "context": self.context, "threads": self.threads}

    def to_json(self) -> dict[str, Any]:
        """For `--dry-run --json`, plan files and provenance. No key is in it."""
        model = None
        if self.model:
            told = {
                k: v
                for k, v in dataclasses.asdict(self.model).items()
                if k not in ("rank", "multilingual", "translates")
            }
            model = {**told, "path": str(self.model.path)}
        return {
            "schema": 1,
            "job": CHAT,
            "engine": self.engine,
            "model": model,
            "model_name": self.model_name,
            "why": self.why,
            "options": {k: list(v) if isinstance(v, tuple) else v for k, v in self.options.items()},
            "given": list(self.given),
            "engine_options": dict(self.raw),
            "context": self.context,
            "threads": self.threads,
            "memory": dataclasses.asdict(self.need) if self.need else None,
            "environment": self.environment.to_json() if self.environment else None,
            "endpoint": str(self.socket or self.base_url) if self.base_url else None,
            "notes": list(self.notes),
            "key": self.key,
        }


def resolve(settings: Settings, known: ChatFacts) -> ChatPlan:
    """The plan. Raises UsageError, OptionRefused, EngineMissing, ModelMissing, or CannotRun for want of memory."""
    values = settings.values
    if values["schema"] is not None:  # read once, before anything is started
        schema = schemas.read(str(values["schema"]))
        settings = dataclasses.replace(settings, values={**values, "schema": schema})
    wanted = values["engine"]
    spec = _named(str(wanted), known.facts) if wanted else None
    if values["endpoint"] or (spec and spec.kind == ENDPOINT):
        return _with_key(_at_endpoint(settings, known, spec))
    if spec is None:
        spec, model, why = _chosen(settings, known.facts)
    else:
        model, why = _model_for(spec, settings, known.facts)
    check_options(spec, settings)
    return _with_key(_with_server(settings, known, spec, model, why))


def make(
    flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ, elsewhere: Machine | None = None
) -> ChatPlan:
    """The plan for options that were typed, under this machine's settings; on this machine, or on one like
    `elsewhere`. Raises as `resolve`."""
    from kuulo import site
    from kuulo.llm import facts

    files = site.load()
    settings = options.settle(files, flags, environ)
    known = facts.look(files, settings, environ)
    if elsewhere is not None:
        there = dataclasses.replace(known.facts, machine=elsewhere)
        known = dataclasses.replace(known, facts=there, gpu_bytes=None)
    return resolve(settings, known)


def make_for(
    flags: Mapping[str, Any], concurrency: int | None, usual: int, elsewhere: Machine | None = None
) -> ChatPlan:
    """As `make`, for many questions at a time: where a server is started and nobody said with how many slots, it has as
    many as are asked at a time, or else as memory allows, up to `usual`."""
    resolved = make(flags, elsewhere=elsewhere)
    if not resolved.starts_server or "parallel" in resolved.given or "parallel" not in resolved.spec.options:
        return resolved
    if concurrency:
        return make({**flags, "parallel": concurrency}, elsewhere=elsewhere)
    slots = usual
    while slots > 1:
        try:
            return make({**flags, "parallel": slots}, elsewhere=elsewhere)
        except CannotRun as error:
            if type(error) is not CannotRun:
                raise
            slots //= 2
    return resolved


def make_with(flags: Mapping[str, Any], concurrency: int, elsewhere: Machine | None = None) -> ChatPlan:
    """As `make_for`, for so many questions at a time, or for one: then slots are as somebody says."""
    if concurrency == 1:
        return make(flags, elsewhere=elsewhere)
    return make_for(flags, concurrency, concurrency, elsewhere)


def check_options(spec: EngineSpec, settings: Settings) -> None:
    """Raises OptionRefused, naming every option that the engine cannot honour and the engines that can."""
    refused = refusals(spec, settings)
    if refused:
        lines = []
        for name, why in refused.items():
            others = able(name, settings.values[name], spec)
            lines.append(f"{flag(name)}: {why}" + (f" ({', '.join(others)} can)" if others else ""))
        raise OptionRefused(
            f"{spec.name} cannot do this: {'; '.join(lines)}", do=f"kuulo llm explain --engine {spec.name}"
        )


def refusals(spec: EngineSpec, settings: Settings) -> dict[str, str]:
    """Options that were given and that the engine cannot honour: {option: why}."""
    given = settings.given()
    refused = {}
    for name, value in given.items():
        option = options.BY_NAME[name]
        if option.engine and name not in spec.options and value != option.default:
            refused[name] = f"{spec.name} has nothing like it"
    refused |= engines.module(spec.name).refuse({n: v for n, v in given.items() if n in spec.options})
    device = str(settings.values["device"])
    if "device" in given and "device" in spec.options and device not in ("auto", *spec.devices):
        refused["device"] = f"its devices are {', '.join(spec.devices)}"
    if spec.kind == ENDPOINT and settings.values["engine_option"]:
        refused["engine_option"] = "there is no server to start that could be told"
    return refused


def able(name: str, value: Any, but: EngineSpec) -> list[str]:
    """The names of the other engines that honour this value of an option."""
    return [
        spec.name
        for spec in engines.specs(CHAT)
        if spec.name != but.name
        and name in spec.options
        and name not in engines.module(spec.name).refuse({name: value})
    ]


def flag(name: str) -> str:
    """The option as people type it."""
    return options.BY_NAME[name].flags[0].split("/")[0]


def known(name: str) -> EngineSpec:
    """The engine for language models of that name, installed or not; the name of an environment
    is that of the engine in it that can chat. Raises UsageError."""
    return known_engine(_alias(name), CHAT)


def _named(name: str, facts: Facts) -> EngineSpec:
    return named_engine(_alias(name), facts, CHAT)


def _alias(name: str) -> str:
    return next((s.name for s in engines.specs(CHAT) if s.environment == name), name)


def _at_endpoint(settings: Settings, known: ChatFacts, spec: EngineSpec | None) -> ChatPlan:
    values = settings.values
    able_to = next(s for s in engines.specs(CHAT) if s.kind == ENDPOINT)
    if spec is not None and spec.kind != ENDPOINT:
        raise UsageError(
            f"--endpoint is an address of a server that runs, and {spec.name} would start one",
            do=f"leave one of them out, or say --engine {able_to.name}",
        )
    spec = spec or _named(able_to.name, known.facts)
    if not values["endpoint"]:
        raise UsageError(f"{spec.name} needs an address", do="--endpoint http://HOST:PORT/v1, or KUULO_LLM_ENDPOINT")
    check_options(spec, settings)
    base_url, socket = parse_endpoint(str(values["endpoint"]))
    return ChatPlan(
        engine=spec.name,
        model=None,
        model_name=values["model"],
        why="an endpoint was named",
        options=settings.values,
        given=tuple(sorted(settings.given())),
        raw={},
        base_url=base_url,
        socket=socket,
        secret=known.key,
    )


def parse_endpoint(text: str) -> tuple[str, Path | None]:
    """`http://HOST:PORT[/v1]` or `unix:/PATH` -> the address that ends in /v1, and the socket. Raises UsageError."""
    from urllib.parse import urlsplit

    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:").removeprefix("//")).expanduser()
        return "http://localhost/v1", path.absolute()
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"--endpoint: {text.partition('@')[2] or text!r} is no address", do="http://HOST:PORT/v1")
    if parts.username or parts.password:
        raise UsageError("--endpoint: a key does not belong into an address", do="--key-file FILE")
    address = text.rstrip("/")
    return (address if address.endswith("/v1") or parts.path.strip("/") else f"{address}/v1"), None


def _chosen(settings: Settings, facts: Facts) -> tuple[EngineSpec, Model, str]:
    """The best installed engine that has the model that is wanted, or the best model that is there."""
    usable = [s for s in engines.specs(CHAT) if s.kind != ENDPOINT and facts.installed.get(s.name)]
    if not usable:
        raise EngineMissing(
            "no engine for language models is installed",
            looked_at=", ".join(s.name for s in engines.specs(CHAT)),
            do=f"kuulo engines install {engines.specs(CHAT)[0].name}; or ask a server that runs: --endpoint URL",
        )
    wanted = settings.values["model"]
    if wanted:
        spec, model = _first_with(str(wanted), usable, facts)
        return spec, model, f"{spec.name} is the first installed engine, in order of preference, that has {model.name}"
    formats = {f: s for s in reversed(usable) for f in s.model_formats}
    order = [s.name for s in usable]
    candidates = [m for m in facts.models if m.format in formats]
    if not candidates:
        raise ModelMissing("no store has a language model", looked_at=facts.stores, do=GET_A_MODEL)
    best = min(candidates, key=lambda m: (m.rank, order.index(formats[m.format].name), m.name))
    spec = formats[best.format]
    why = f"{best.name} is the best language model in the store, and {spec.name} the first installed engine for it"
    return spec, best, why


def _first_with(wanted: str, usable: Sequence[EngineSpec], facts: Facts) -> tuple[EngineSpec, Model]:
    first: ModelMissing | None = None
    for spec in usable:
        try:
            return spec, facts.find_model(wanted, spec.model_formats)
        except ModelMissing as error:
            first = first or error
    assert first is not None
    raise first


def _model_for(spec: EngineSpec, settings: Settings, facts: Facts) -> tuple[Model, str]:
    wanted = settings.values["model"]
    if wanted:
        return facts.find_model(str(wanted), spec.model_formats), "engine and model named"
    candidates = [m for m in facts.models if m.format in spec.model_formats]
    if not candidates:
        raise ModelMissing(f"no store has a model for {spec.name}", looked_at=facts.stores, do=GET_A_MODEL)
    best = min(candidates, key=lambda m: (m.rank, m.name))
    return best, f"engine named; {best.name} is the best of its models in the store"


def _with_server(settings: Settings, known: ChatFacts, spec: EngineSpec, model: Model, why: str) -> ChatPlan:
    values, machine = settings.values, known.facts.machine
    parallel = int(values["parallel"])
    shape = known.shape_of(model)
    on_gpu = machine.gpus > 0 and values["device"] != "cpu" and "cuda" in spec.devices and values["gpu_layers"] is None
    if values["device"] == "cuda" and not machine.gpus:
        raise CannotRun("--device cuda, and no GPU is here", do="ask for a GPU, or take --device cpu")
    available = known.gpu_bytes if on_gpu and known.gpu_bytes else machine.memory_bytes
    context = values["context"] or memory.choose_context(shape, available, parallel)
    notes = []
    if shape.context and context > shape.context:
        if "context" in settings.given():
            notes.append(
                f"{model.name} was trained for {shape.context} tokens of context, and may write nonsense beyond"
            )
        else:
            context = shape.context
    if shape.template is False:
        notes.append(f"{model.name} has no chat template: it continues text, and need not answer")
    need = memory.need(shape, context, parallel)
    if need.total > available:
        raise _too_little(model, shape, need, available, known, spec, on_gpu=on_gpu)
    raw = dict(values["engine_option"] or {})
    return ChatPlan(
        engine=spec.name,
        model=model,
        model_name=model.name,
        why=why,
        options=values,
        given=tuple(sorted(settings.given())),
        raw=raw | spec.files_of(raw),
        context=context,
        threads=int(values["threads"] or machine.cores),
        need=need,
        on_gpu=on_gpu,
        environment=known.facts.environments.get(spec.home),
        notes=tuple(notes),
    )


def _too_little(
    model: Model, shape: Shape, need: Need, available: int, known: ChatFacts, spec: EngineSpec, *, on_gpu: bool
) -> CannotRun:
    """Names the largest context, or else the largest model of the store, that would fit."""
    where = "the GPU has" if on_gpu else "this machine or job gives"
    fits = memory.largest_context(shape, available, need.parallel)
    others = [(m.name, known.shape_of(m)) for m in known.facts.models if m.format in spec.model_formats]
    smaller = memory.largest_fitting([o for o in others if o[0] != model.name], available, memory.STEP)
    if fits >= memory.STEP:
        do = f"the largest context that fits is {fits}: --context {fits}"
        if need.parallel > 1:
            do += f", or a smaller --parallel than {need.parallel}"
    elif smaller:
        do = f"the largest model of the store that fits is {smaller}: --model {smaller}"
    else:
        do = "no model of the store fits: take a smaller one, or ask for more memory"
    return CannotRun(
        f"{model.name} takes {memory.said(need.total)}, and {where} {memory.said(available)}",
        looked_at=str(need),
        do=do,
    )


def _with_key(plan: ChatPlan) -> ChatPlan:
    """With the digest of everything that decides an answer beside the question."""
    deciding = {
        "engine": plan.engine,
        "model": plan.model.digest if plan.model else [plan.base_url, str(plan.socket or ""), plan.model_name],
        "options": {
            o.name: plan.options[o.name]
            for o in options.OPTIONS
            if o.result and o.name not in ("engine", "model", "endpoint", "context")
        },
        "context": plan.context,
        "raw": dict(plan.raw),
    }
    text = json.dumps(deciding, sort_keys=True, default=list)
    return dataclasses.replace(plan, key=hashlib.sha256(text.encode()).hexdigest())
