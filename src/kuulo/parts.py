"""Long recordings that are heard in parts, by several runs at the same time, and joined afterwards.

A part's nominal ends are decided before anybody has looked at the sound. The real ones are quiet places before them,
and both neighbours find the same, since they look at the same samples: `audio.decode` gives equal ones for any range.
What a part gave is in its journal, in the output folder, until all are joined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import speech
from kuulo.audio import Decoded
from kuulo.engines.base import SAMPLE_RATE
from kuulo.journal import Heard
from kuulo.transcript import Segment

LOOK_BACK_MS = 60_000
"""A part ends at the quietest place in this much audio before its nominal end."""

WORDS, TURNS = "words", "turns"
PER_MS = SAMPLE_RATE // 1000


@dataclass(frozen=True)
class Part:
    """A part of a recording, in the recording's time: the words between two places, or who speaks when in all of it.
    The places are more than LOOK_BACK_MS apart, or parts would overlap.
    `from_ms` is None at the recording's beginning, or where --from is, and `to_ms` None at its end."""

    kind: str
    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def name(self) -> str:
        """What tells it from the recording's other parts: for a file's name."""
        return self.kind if self.kind == TURNS else f"{self.kind}-{self.from_ms or 0}-{self.to_ms or 'end'}"

    @property
    def decode_from_ms(self) -> int | None:
        """Where decoding begins, so that the quiet place is found."""
        return None if self.from_ms is None else max(0, self.from_ms - LOOK_BACK_MS)


def trim(part: Part, pcm: Path, decoded: Decoded) -> Decoded:
    """Cut what was decoded, from `part.decode_from_ms` to `part.to_ms` or the recording's end, to the part, between
    quiet places. `pcm`: the samples, float32, which are rewritten. Raises OSError."""
    import numpy as np

    samples = np.memmap(pcm, dtype="<f4", mode="r", shape=(decoded.samples,)) if decoded.samples else np.zeros(0, "<f4")
    begin, end = 0, decoded.samples
    if part.from_ms is not None:
        begin = _quiet(samples[: (part.from_ms - decoded.offset_ms) * PER_MS])
    if part.to_ms is not None:
        window = max(0, part.to_ms - LOOK_BACK_MS - decoded.offset_ms) * PER_MS
        if window < decoded.samples:
            end = window + _quiet(samples[window : (part.to_ms - decoded.offset_ms) * PER_MS])
    del samples
    _keep(pcm, begin, max(begin, end))
    return dataclasses.replace(decoded, samples=max(begin, end) - begin, offset_ms=decoded.offset_ms + begin // PER_MS)


def _quiet(window: Any) -> int:
    """The sample in the middle of the window's quietest place."""
    return speech.quietest_ms(window) * PER_MS


def _keep(pcm: Path, begin: int, end: int) -> None:
    """Leave of a file of samples those from `begin` to `end`, without holding them in memory."""
    with pcm.open("r+b") as file:
        at, step = begin * 4, 1 << 22
        while begin and at < end * 4:
            file.seek(at)
            block = file.read(min(step, end * 4 - at))
            file.seek(at - begin * 4)
            file.write(block)
            at += len(block)
        file.truncate((end - begin) * 4)


def empty(part: Part) -> Decoded:
    """A part beyond the recording's end, which is earlier than its header says."""
    return Decoded(0, part.from_ms or 0)


def joined(heard: Sequence[Heard]) -> list[Segment]:
    """The segments of parts in their order, in the recording's time. Each part has ended (`Heard.end`)."""
    segments: list[Segment] = []
    for part in heard:
        assert part.end is not None
        segments += [segment.shifted(part.end["offset_ms"]) for segment in part.segments]
    return segments
