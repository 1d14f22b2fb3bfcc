"""Silero VAD: which parts of a recording hold speech. Its weights come inside the faster-whisper package.

Parses on Python 3.9; imports faster-whisper inside functions.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Dict, List, Mapping, Tuple

from kuulo.engines.base import SAMPLE_RATE, EngineSpec, Session, Unusable
from kuulo.speech import PER_MS
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

WINDOW = 512
"""Samples that the model judges at a time."""

CONTEXT = 64
"""Samples before a window that it sees too."""

BATCH = 10_000
"""Windows (320 s) for one call of the model, as in faster-whisper: equal batches, equal probabilities."""


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
    from faster_whisper import vad

    valid = [f.name for f in dataclasses.fields(vad.VadOptions)]
    unknown = sorted(set(task.raw) - set(valid))
    if unknown:
        raise Unusable(f"speech detection has no option {unknown[0]!r}", f"its options: {', '.join(valid)}")
    model = vad.get_vad_model().session
    if {i.name for i in model.get_inputs()} != {"input", "h", "c"}:
        raise Unusable("the detector in this faster-whisper is another one than Kuulo knows", "use faster-whisper 1.2")
    return DetectSession(model, vad.VadOptions(**task.raw))


class DetectSession(Session):
    """A loaded detector."""

    def __init__(self, model: Any, options: Any) -> None:
        self._model = model
        self._options = options

    def detect(self, samples: Any) -> List[Tuple[int, int]]:
        """(start, end) in ms of each stretch of speech, in order and apart. `samples`: float32 (n,), 16 kHz, n >= 1.

        What faster-whisper's get_speech_timestamps gives, whatever the length, in constant memory when `samples` is
        a memory map."""
        found: List[Tuple[int, int]] = []
        for chunk in _timestamps(_Piecewise(self._model, samples), self._options):
            # Stretches may meet within a ms.
            start = max(chunk["start"] // PER_MS, found[-1][1] if found else 0)
            end = -(-chunk["end"] // PER_MS)
            if start < end:
                found.append((start, end))
        return found


def _timestamps(audio: _Piecewise, options: Any) -> List[Dict[str, int]]:
    """faster-whisper's own get_speech_timestamps; `audio` stands for the samples and for the model. The original
    copies the whole recording three times, 0.7 GB for each hour."""
    from faster_whisper import vad

    original = vad.get_speech_timestamps
    names = {**vars(vad), "get_vad_model": lambda: _Piecewise.probabilities}
    found: List[Dict[str, int]] = types.FunctionType(original.__code__, names)(audio, options, SAMPLE_RATE)
    return found


class _Piecewise:
    """Samples that are padded and judged a batch at a time, with the model's state carried from batch to batch."""

    ndim = 1

    def __init__(self, model: Any, samples: Any) -> None:
        self._model = model
        self._samples = samples
        self._windows = len(samples) // WINDOW + 1  # padded to whole windows, and by a whole one where they are whole
        self.shape = (len(samples),)

    def __len__(self) -> int:
        return self.shape[0]

    def __array_function__(self, function: Any, kinds: Any, arguments: Any, named: Any) -> _Piecewise:
        """numpy.pad(self, ...): `probabilities` pads what it reads."""
        if function.__name__ != "pad":
            raise TypeError(f"unexpected numpy.{function.__name__}")
        return self

    def probabilities(self) -> Any:
        """What SileroVADModel gives for the padded samples: float32, one row for each window."""
        import numpy as np

        state = carry = np.zeros((1, 1, 128), np.float32)
        found = []
        for first in range(0, self._windows, BATCH):
            given = {"input": self._rows(first, min(first + BATCH, self._windows)), "h": state, "c": carry}
            output, state, carry = self._model.run(None, given)
            del given  # before the next is made
            found.append(output)
        return np.concatenate(found)

    def _rows(self, first: int, last: int) -> Any:
        """Windows from `first` to before `last`, each with its context: float32 (last - first, CONTEXT + WINDOW)."""
        import numpy as np

        rows = np.zeros((last - first, CONTEXT + WINDOW), np.float32)
        piece = self._samples[first * WINDOW : last * WINDOW]
        full = len(piece) // WINDOW
        rows[:full, CONTEXT:] = piece[: full * WINDOW].reshape(full, WINDOW)
        if full < len(rows):
            rows[full, CONTEXT : CONTEXT + len(piece) % WINDOW] = piece[full * WINDOW :]
        rows[1:, :CONTEXT] = rows[:-1, -CONTEXT:]
        if first:
            rows[0, :CONTEXT] = self._samples[first * WINDOW - CONTEXT : first * WINDOW]
        if last == self._windows:
            rows[-1, -CONTEXT:] = 0  # as the original does, in place
        return rows
