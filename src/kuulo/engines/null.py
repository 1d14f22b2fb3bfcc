"""An engine that hears nothing and says a fixed sentence for each 30 s: for measuring what is around an engine.

Hidden: it is named by tests and by `bench/`, never listed, never chosen. Its raw options make it misbehave on
purpose: `wait_ms` for each window, `crash_at_ms` (the process dies), `fail_at_ms` (an exception), `memory_mb` (takes so
much of it), `gpu_batch` (a GPU whose memory is full with more windows together than this).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

from kuulo.engines.base import (
    SAMPLE_RATE,
    Checkpoint,
    EngineSpec,
    Language,
    Native,
    Progress,
    Said,
    Session,
    Unusable,
)
from kuulo.transcript import Segment, Word
from kuulo.wire import Task

WINDOW_MS = 30_000
VALID = ("wait_ms", "crash_at_ms", "fail_at_ms", "crash_once", "memory_mb", "gpu_batch")

SPEC = EngineSpec(
    name="null",
    summary="Says a fixed sentence for each 30 s of audio; for measurements and tests.",
    url="",
    licence="MIT",
    package="kuulo",
    module="kuulo",
    install="kuulo",
    tasks=("transcribe",),
    devices=("cpu",),
    options={
        "batch_size": Native("batch"),
        "word_times": Native("words"),
        "language": Native("language"),
        "device": Native("device"),
    },
)


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    return {}


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    return "(nothing is called)"


class _Session(Session):
    def __init__(self, task: Task) -> None:
        self._words = bool(task.options.get("word_times"))
        self._raw = task.raw
        self._batch = int(task.options.get("batch_size", 1))
        self._ballast = b""

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        length_ms = len(samples) * 1000 // SAMPLE_RATE
        yield Language("en", None)
        start = int((state or {}).get("at_ms", 0))
        while start < length_ms:
            yield Checkpoint(start, {"at_ms": start})
            end = min(start + WINDOW_MS, length_ms)
            time.sleep(self._raw.get("wait_ms", 0) / 1000)
            self._misbehave(start)
            middle = (start + end) // 2
            words = (Word(" Window", start, middle, 1.0), Word(f" {start // WINDOW_MS}.", middle, end, 1.0))
            yield Segment(start, end, f" Window {start // WINDOW_MS}.", words if self._words else ())
            yield Progress(end)
            start = end

    def _misbehave(self, at_ms: int) -> None:
        crash = self._raw.get("crash_at_ms")
        once = self._raw.get("crash_once")
        if crash is not None and at_ms >= crash and not (once and Path(once).exists()):
            if once:
                Path(once).touch()
            os.kill(os.getpid(), 9)
        if self._raw.get("memory_mb") and not self._ballast:
            self._ballast = b"x" * (int(self._raw["memory_mb"]) << 20)
        if self._batch > self._raw.get("gpu_batch", self._batch):
            raise RuntimeError("CUDA out of memory. Asked for by a test.")
        fail = self._raw.get("fail_at_ms")
        if fail is not None and at_ms >= fail:
            raise RuntimeError("asked to fail")


def load(task: Task) -> Session:
    unknown = set(task.raw) - set(VALID)
    if unknown:
        raise Unusable(f"unknown option {sorted(unknown)[0]!r}", "valid: " + ", ".join(VALID))
    return _Session(task)
