"""dtmf: hears the tones of telephone keys (ITU-T Q.23), and nothing else.

A key is two tones at the same time, one of four low and one of four high frequencies. Each frame of 40 ms is asked how
much of its energy is in the strongest low and the strongest high one. Parses on Python 3.9; imports numpy inside
functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kuulo.engines.base import SAMPLE_RATE, EngineSpec, Language, Native, Progress, Said, Session, Unusable
from kuulo.transcript import Segment, Word
from kuulo.wire import Task

SPEC = EngineSpec(
    name="dtmf",
    summary="Hears the tones of telephone keys.",
    url="https://example.org/kuulo-dtmf",
    licence="MIT",
    package="kuulo-dtmf",
    module="kuulo_dtmf",
    install="kuulo-dtmf",
    tasks=("transcribe",),
    devices=("cpu",),
    packages=("numpy",),
    options={
        "language": Native("", "keys have none"),
        "task": Native("", "transcribe alone"),
        "word_times": Native("one word for each key"),
        "device": Native("", "cpu alone"),
    },
    quality_note="dtmf hears the tones of telephone keys alone: speech is nothing to it.",
    differs=("hears no speech",),
)

LOW = (697, 770, 852, 941)
HIGH = (1209, 1336, 1477, 1633)
KEYS = ("123A", "456B", "789C", "*0#D")

FRAME_MS, HOP_MS = 40, 10
BLOCK_MS = 60_000
"""Audio that is looked at together; it bounds the memory."""

PAUSE_MS = 1000
"""Silence that ends a segment."""

PURE = 0.7
"""How much of a frame's energy is in the two tones, at least."""

QUIET = 1e-3
"""Root mean square below which nothing is heard (-60 dB)."""

RAW = {"shortest_ms": 40}
"""Options for --engine-option: how long a tone lasts at least (Q.24 says 40 ms)."""


def refuse(options: Mapping[str, Any]) -> dict[str, str]:
    """A language, translations, and everything but the CPU."""
    refused = {}
    if options.get("language") not in (None, "auto"):
        refused["language"] = "keys have no language"
    if options.get("task") == "translate":
        refused["task"] = "there is nothing to translate"
    if str(options.get("device") or "auto").partition(":")[0] not in ("auto", "cpu"):
        refused["device"] = "it runs on the CPU alone"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same without Kuulo."""
    shortest = {**RAW, **raw}["shortest_ms"]
    return f"import kuulo_dtmf\npressed = list(kuulo_dtmf.keys(audio, shortest_ms={shortest!r}))"


def load(task: Task) -> Session:
    """A session; raises Unusable for raw options that it does not have."""
    unknown = sorted(set(task.raw) - set(RAW))
    if unknown:
        raise Unusable(f"dtmf has no option {unknown[0]!r}", f"its options: {', '.join(RAW)}")
    return Keys(bool(task.options.get("word_times")), int({**RAW, **task.raw}["shortest_ms"]))


class Keys(Session):
    """Hears keys; nothing is carried over from one recording to the next."""

    def __init__(self, word_times: bool, shortest_ms: int) -> None:
        self._word_times = word_times
        self._shortest_ms = shortest_ms

    def transcribe(self, samples: Any, state: dict[str, Any] | None = None) -> Iterator[Said]:
        yield Language("und")
        phrase: list[Word] = []
        for word in keys(samples, self._shortest_ms):
            if phrase and word.start_ms - phrase[-1].end_ms >= PAUSE_MS:
                yield self._segment(phrase)
                yield Progress(phrase[-1].end_ms)
                phrase = []
            phrase.append(word)
        if phrase:
            yield self._segment(phrase)
        yield Progress(len(samples) * 1000 // SAMPLE_RATE)

    def _segment(self, words: list[Word]) -> Segment:
        sure = sum(word.confidence or 0.0 for word in words) / len(words)
        shown = tuple(words) if self._word_times else ()
        text = "".join(word.text for word in words)
        return Segment(words[0].start_ms, words[-1].end_ms, text, shown, confidence=round(sure, 4))


def keys(samples: Any, shortest_ms: int = 40) -> Iterator[Word]:
    """The keys that were pressed in `samples` (float32, 16 kHz), in order, each a Word such as " 5"."""
    length_ms = len(samples) * 1000 // SAMPLE_RATE
    now, start, end, purest = "", 0, 0, 0.0
    for at_ms, key, purity in [*_frames(samples), (length_ms, "", 0.0)]:
        if key and key == now:
            end, purest = at_ms, max(purest, purity)
            continue
        if now and end + HOP_MS - start >= shortest_ms:
            # A frame counts from its middle: the tone fills more than half of it.
            begin = min(start + FRAME_MS // 2 - HOP_MS, length_ms)
            yield Word(f" {now}", begin, max(begin, min(end + FRAME_MS // 2 + HOP_MS, length_ms)), round(purest, 4))
        now, start, end, purest = key, at_ms, at_ms, purity


def _frames(samples: Any) -> Iterator[tuple[int, str, float]]:
    """(ms, key or nothing, purity) of each frame."""
    import numpy as np

    size, hop = FRAME_MS * SAMPLE_RATE // 1000, HOP_MS * SAMPLE_RATE // 1000
    window = np.hanning(size)
    time = np.arange(size) / SAMPLE_RATE
    waves = np.exp(-2j * np.pi * np.outer(time, LOW + HIGH)) * window[:, None]
    block = BLOCK_MS * SAMPLE_RATE // 1000
    for first in range(0, len(samples) - size + 1, block):
        part = np.asarray(samples[first : first + block + size - hop], dtype=np.float64)
        frames = np.lib.stride_tricks.sliding_window_view(part, size)[::hop]
        # A sine of amplitude a has the power a^2 / 2, and gives (a / 2 * sum of the window)^2 here.
        tones = 2 * np.abs(frames @ waves) ** 2 / window.sum() ** 2
        power = ((frames * window) ** 2).sum(axis=1) / (window**2).sum()
        low, high = tones[:, :4], tones[:, 4:]
        purity = (low.max(axis=1) + high.max(axis=1)) / np.maximum(power, 1e-12)
        both = np.minimum(low.max(axis=1), high.max(axis=1)) > 0.05 * power
        heard = (power > QUIET**2) & (purity > PURE) & both
        for number in range(len(frames)):
            at_ms = (first + number * hop) * 1000 // SAMPLE_RATE
            key = KEYS[low[number].argmax()][high[number].argmax()] if heard[number] else ""
            yield at_ms, key, float(min(1.0, purity[number]))
