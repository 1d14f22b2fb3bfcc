"""The table of engines. A module is imported when it is first asked for; it never imports its engine at the top.

Order is preference: when nobody names an engine, the first installed one that has the model is taken.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Dict, List

from kuulo.engines.base import EngineSpec

MODULES: Dict[str, str] = {
    "faster-whisper": "kuulo.engines.faster_whisper",
    "whisper-cpp": "kuulo.engines.whisper_cpp",
    "openai-whisper": "kuulo.engines.openai_whisper",
    "transformers": "kuulo.engines.transformers",
    "pocketsphinx": "kuulo.engines.pocketsphinx",
    "silero": "kuulo.engines.silero",
    "null": "kuulo.engines.null",
}

HIDDEN = frozenset({"null"})
"""Engines for measuring and testing alone; not listed to people."""


def module(name: str) -> Any:
    """The engine's module; raises KeyError for a name that is not in the table."""
    return importlib.import_module(MODULES[name])


def spec(name: str) -> EngineSpec:
    """The engine's SPEC; raises KeyError."""
    found: EngineSpec = module(name).SPEC
    return found


def specs(task: str = "transcribe") -> List[EngineSpec]:
    """Every engine for a task, best first."""
    return [s for s in (spec(n) for n in MODULES if n not in HIDDEN) if task in s.tasks]


def installed(engine: EngineSpec) -> bool:
    """Whether the engine's package can be imported here (nothing is imported)."""
    try:
        return importlib.util.find_spec(engine.module) is not None
    except (ImportError, ValueError):
        return False
