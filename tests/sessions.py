"""Engines loaded with the miniature, in this process, for the contract tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kuulo import engines
from kuulo.wire import Task
from models_fixture import Miniature

GREEDY: Mapping[str, Any] = {
    "language": "auto",
    "task": "transcribe",
    "beam_size": 1,
    "temperature": (0.0,),
    "condition_on_previous_text": True,
    "word_times": False,
    "device": "cpu",
    "compute_type": "auto",
    "threads": 1,
}

# openai-whisper leaves its vocabulary file to the garbage collector.
UNCLOSED = [
    pytest.mark.filterwarnings("ignore:unclosed file.*tiktoken:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*tiktoken:pytest.PytestUnraisableExceptionWarning"),
]


def task(miniature: Miniature, name: str, raw: Mapping[str, Any] | None = None, **changes: Any) -> Task:
    """What to load the engine with: GREEDY, changed, as far as it honours the options. Skips the test where the engine
    is not installed."""
    spec = engines.spec(name)
    if not engines.installed(spec):
        pytest.skip(f"{name} is not installed")
    if spec.kind == "program":
        pytest.skip(f"{name} needs more than its package: tests/test_other_programs.py has its sessions")
    given = {k: v for k, v in {**GREEDY, **changes}.items() if k in spec.options}
    path = str(miniature.path(spec.model_formats[0])) if spec.model_formats else None
    return Task("transcribe", name, "miniature", path, given, dict(raw or {}))
