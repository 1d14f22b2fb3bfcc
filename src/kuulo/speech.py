"""Where to cut a long recording, and how to leave out what holds no speech. Pure; times in ms, audio at 16 kHz.

Standard library alone at the top; parses on Python 3.9.
"""

from __future__ import annotations

import bisect
from typing import Any, List, Sequence, Tuple

PER_MS = 16
"""Samples in a ms at 16 kHz."""

FRAME_MS = 10
QUIET_MS = 300


def quiet_cuts(samples: Any, longest_ms: int, look_back_ms: int) -> List[Tuple[int, int]]:
    """Sections (start, end) of at most `longest_ms` that cover the whole recording without a gap.

    Each ends in the middle of the quietest 300 ms of its last `look_back_ms`; the earliest, where several are equally
    quiet. `samples` (float32, shape (n,)) may be a memory map: a section's end alone is read."""
    length_ms = -(-len(samples) // PER_MS)
    cuts, start = [], 0
    while length_ms - start > longest_ms:
        latest = start + longest_ms
        earliest = max(start + FRAME_MS, latest - look_back_ms)
        end = earliest + quietest_ms(samples[earliest * PER_MS : latest * PER_MS])
        cuts.append((start, end))
        start = end
    cuts.append((start, length_ms))
    return cuts


def quietest_ms(samples: Any) -> int:
    """Offset in ms of the middle of the quietest QUIET_MS, or of the whole when it is shorter than that."""
    import numpy as np

    width = FRAME_MS * PER_MS
    frames = len(samples) // width
    if frames == 0:
        return len(samples) // PER_MS
    energy = np.square(np.asarray(samples[: frames * width], dtype=np.float64).reshape(frames, width)).sum(axis=1)
    span = min(QUIET_MS // FRAME_MS, frames)
    sums = np.convolve(energy, np.ones(span), mode="valid")
    # Sums of equal frames differ in their last bits; a silence must not be cut at random.
    quietest = int(np.flatnonzero(sums <= sums.min() + 1e-9)[0])
    return max(1, quietest * FRAME_MS + span * FRAME_MS // 2)


class Clock:
    """The clock of speech that was joined without what lay between: maps its times back to the recording's."""

    def __init__(self, ranges: Sequence[Tuple[int, int]]) -> None:
        self._starts = [start for start, _ in ranges]
        self._joined = [0]
        for start, end in ranges:
            self._joined.append(self._joined[-1] + end - start)

    def original(self, ms: int, end: bool) -> int:
        """The recording's time of `ms`. At a seam a beginning belongs to the later stretch and an end to the
        earlier."""
        find = bisect.bisect_left if end else bisect.bisect_right
        index = min(max(find(self._joined, ms) - 1, 0), len(self._starts) - 1)
        within = min(max(ms, self._joined[index]), self._joined[index + 1])
        return self._starts[index] + within - self._joined[index]


def keep(samples: Any, ranges: Sequence[Tuple[int, int]], path: str) -> Tuple[Any, Clock]:
    """The speech in `ranges` (ms; in order, apart, at least one within the recording) joined, float32 (m,), and its
    clock. It is written to the file `path` and mapped: ten hours of speech are not held in memory."""
    import numpy as np

    length_ms = -(-len(samples) // PER_MS)
    inside = [(start, min(end, length_ms)) for start, end in ranges if start < length_ms]
    with open(path, "wb") as out:
        for start, end in inside:
            out.write(np.asarray(samples[start * PER_MS : end * PER_MS], dtype="<f4").tobytes())
    return np.memmap(path, dtype="<f4", mode="r"), Clock(inside)
