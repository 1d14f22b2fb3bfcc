"""The table of engines. A module is imported when it is first asked for; it never imports its engine at the top.

Order is preference: when nobody names an engine, the first installed one that has the model is taken.

Engines of other packages come after ours: their entry points in the group `kuulo.engines` say name and module. They
are looked for when somebody asks for the table, or for a name that is not in it. One that does not work is a
Trouble, and the others go on. Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import shutil
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

from kuulo.engines.base import EngineSpec, Unusable

MODULES: Dict[str, str] = {
    "faster-whisper": "kuulo.engines.faster_whisper",
    "whisper-cpp": "kuulo.engines.whisper_cpp",
    "openai-whisper": "kuulo.engines.openai_whisper",
    "transformers": "kuulo.engines.transformers",
    "sherpa-onnx": "kuulo.engines.sherpa_onnx",
    "whisperx": "kuulo.engines.whisperx",
    "insanely-fast-whisper": "kuulo.engines.insanely_fast_whisper",
    "whisper-diarization": "kuulo.engines.whisper_diarization",
    "pocketsphinx": "kuulo.engines.pocketsphinx",
    "silero": "kuulo.engines.silero",
    "pyannote": "kuulo.engines.pyannote",
    "sherpa-speakers": "kuulo.engines.sherpa_speakers",
    "nemo": "kuulo.engines.nemo",
    "resemblyzer": "kuulo.engines.resemblyzer",
    "channels": "kuulo.engines.channels",
    "llama-cpp": "kuulo.engines.llama_cpp",
    "vllm": "kuulo.engines.vllm",
    "transformers-chat": "kuulo.engines.transformers_chat",
    "openai": "kuulo.engines.openai",
    "null": "kuulo.engines.null",
}

HIDDEN = frozenset({"null"})
"""Engines for measuring and testing alone; not listed to people."""


GROUP = "kuulo.engines"
"""The group of entry points in which other packages name their engines."""

OWED = ("refuse", "native", "load")
"""Functions that an engine's module has beside its SPEC: see base.py."""


@dataclass(frozen=True)
class Plugin:
    """An engine that the distribution `package` brings in the module `module`."""

    name: str
    module: str
    package: str


@dataclass(frozen=True)
class Trouble:
    """An engine of another package that cannot be used, and why."""

    name: str
    package: str
    why: str

    def __str__(self) -> str:
        return f"the engine {self.name} of the package {self.package} cannot be used: {self.why}"


def module(name: str) -> Any:
    """The engine's module. Raises KeyError for a name that nobody has, Unusable for another package's engine that does
    not work."""
    if name in MODULES:
        return importlib.import_module(MODULES[name])
    if name not in _found()[0]:
        raise KeyError(name)
    found, why = _imported(name)
    if why:
        raise Unusable(str(why), f"mend, update or uninstall the package {why.package}")
    return found


def spec(name: str) -> EngineSpec:
    """The engine's SPEC; raises as `module`."""
    found: EngineSpec = module(name).SPEC
    return found


def names() -> List[str]:
    """Every engine's name, best first, those of other packages last; also of such as do not work."""
    return [*MODULES, *_found()[0]]


def every() -> List[EngineSpec]:
    """Every engine that works, best first, also those that are not for people."""
    return [*(spec(name) for name in MODULES), *(spec(n) for n in _found()[0] if not _imported(n)[1])]


def specs(task: str = "transcribe") -> List[EngineSpec]:
    """Every engine for a task, best first."""
    return [s for s in every() if s.name not in HIDDEN and task in s.tasks]


def troubles() -> List[Trouble]:
    """What is wrong with the engines of other packages."""
    plugins, clashes = _found()
    return [*clashes, *(why for why in (_imported(name)[1] for name in plugins) if why)]


@functools.lru_cache(maxsize=None)
def _found() -> Tuple[Dict[str, Plugin], List[Trouble]]:
    """Engines of other packages by name, and those whose name is taken. Nothing is imported."""
    plugins: Dict[str, Plugin] = {}
    clashes = []
    for name, value, package in sorted(_entry_points()):
        if name in MODULES:
            clashes.append(Trouble(name, package, "Kuulo has an engine of this name"))
        elif name not in plugins:
            plugins[name] = Plugin(name, value, package)
        elif plugins[name].module != value:
            clashes.append(Trouble(name, package, f"the package {plugins[name].package} has an engine of this name"))
    return plugins, clashes


def _entry_points() -> List[Tuple[str, str, str]]:
    """(name, module, distribution) of each entry point in the group."""
    found = []
    for distribution in importlib.metadata.distributions():
        for point in distribution.entry_points:
            if point.group == GROUP:
                found.append((point.name, point.value, str(distribution.metadata["Name"])))
    return found


@functools.lru_cache(maxsize=None)
def _imported(name: str) -> Tuple[Any, Any]:
    """The module of another package's engine and None, or None and the Trouble with it."""
    plugin = _found()[0][name]

    def trouble(why: str) -> Tuple[None, Trouble]:
        return None, Trouble(plugin.name, plugin.package, why)

    try:
        found = importlib.import_module(plugin.module)
    except (Exception, SystemExit) as error:  # whatever the code of others does; it is told
        return trouble(f"importing {plugin.module} fails: {type(error).__name__}: {error}")
    about = getattr(found, "SPEC", None)
    if not isinstance(about, EngineSpec):
        return trouble(f"{plugin.module} has no SPEC that is an EngineSpec")
    if about.name != name:
        return trouble(f"its SPEC calls it {about.name}")
    missing = [function for function in OWED if not callable(getattr(found, function, None))]
    if missing:
        return trouble(f"{plugin.module} has no function {missing[0]}")
    return found, None


def installed(engine: EngineSpec) -> bool:
    """Whether the engine's package can be imported here (nothing is imported), or a program of it is on the PATH."""
    try:
        if importlib.util.find_spec(engine.module) is not None:
            return True
    except (ImportError, ValueError):
        pass
    return any(shutil.which(program) for program in engine.programs)
