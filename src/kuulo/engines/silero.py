"""Silero VAD: which parts of a recording hold speech. Its weights come inside the faster-whisper package.

Parses on Python 3.9; imports faster-whisper inside functions.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Tuple

from kuulo.engines.base import SAMPLE_RATE, EngineSpec, Session, Unusable
from kuulo.wire import Task

SPEC = EngineSpec(
    name="silero",
    summary="Speech detection with Silero VAD, whose weights faster-whisper brings.",
    url="https://github.com/snakers4/silero-vad",
    licence="MIT",
    package="faster-whisper",
    module="faster_whisper",
    install="faster-whisper",
    tasks=("detect-speech",),
    devices=("cpu",),
    options={},
    packages=("onnxruntime", "numpy"),
)

BLOCK_MS = 30 * 60 * 1000
"""Longer recordings are looked at in blocks, cut at quiet places, so that memory stays bounded."""

LOOK_BACK_MS = 60_000


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Nothing: it has no common options."""
    return {}


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with faster-whisper's own function."""
    arguments = ", ".join(f"{k}={v!r}" for k, v in raw.items())
    return (
        "from faster_whisper.vad import VadOptions, get_speech_timestamps\n"
        f"get_speech_timestamps(audio, VadOptions({arguments}))"
    )


def load(task: Task) -> DetectSession:
    """The detector. Raises Unusable for raw options that VadOptions does not have."""
    from faster_whisper.vad import VadOptions

    valid = [f.name for f in dataclasses.fields(VadOptions)]
    unknown = sorted(set(task.raw) - set(valid))
    if unknown:
        raise Unusable(f"speech detection has no option {unknown[0]!r}", f"its options: {', '.join(valid)}")
    return DetectSession(VadOptions(**task.raw))


class DetectSession(Session):
    """A loaded detector."""

    def __init__(self, options: Any) -> None:
        self._options = options

    def detect(self, samples: Any) -> List[Tuple[int, int]]:
        """(start, end) in ms of each stretch of speech, in order. `samples`: float32 (n,), 16 kHz, n >= 1."""
        from kuulo import speech

        if len(samples) * 1000 // SAMPLE_RATE <= BLOCK_MS:
            return self._block(samples, 0)
        found: List[Tuple[int, int]] = []
        for start, end in speech.quiet_cuts(samples, BLOCK_MS, LOOK_BACK_MS):
            found += self._block(samples[start * 16 : end * 16], start)
        return found

    def _block(self, samples: Any, offset_ms: int) -> List[Tuple[int, int]]:
        import numpy as np
        from faster_whisper.vad import get_speech_timestamps

        audio = np.asarray(samples, dtype=np.float32)
        chunks = get_speech_timestamps(audio, self._options)
        return [(offset_ms + c["start"] // 16, offset_ms + -(-c["end"] // 16)) for c in chunks]
