"""Whether a recording's channels are those of different speakers. Loudness is as `audio.levels` gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECOND = 100
"""Frames over which loudness is averaged."""
LOUD_DB = 25.0
"""How far below the loudest second speech may be."""
APART_DB = 6.0
"""How much louder one channel is than the others while its speaker speaks, at least: twice the amplitude."""
SHARE = 0.1
"""Of the loud seconds, how many each of two channels leads at least."""
SAME = 1e-3
"""Amplitude of the difference, as a share of the sound's, up to which channels hold the same (-60 dB)."""

BLOCK = 1 << 20


def differ(levels: Any) -> bool:
    """Whether the channels (frames of 10 ms, channels) are led in turn by clearly louder ones, as those of several
    microphones are and those of music or of a room are not."""
    import numpy as np

    count = len(levels) // SECOND
    if levels.shape[1] < 2 or count < 4:
        return False
    seconds = levels[: count * SECOND].reshape(count, SECOND, -1).mean(1)
    loudest = seconds.max(1)
    loud = seconds[loudest > loudest.max() * 10 ** (-LOUD_DB / 20)]
    ranked = np.sort(loud, axis=1)
    apart_db = 20 * np.log10((ranked[:, -1] + 1e-9) / (ranked[:, -2] + 1e-9))
    leads = np.bincount(loud.argmax(1), minlength=levels.shape[1]) / len(loud)
    return bool(np.median(apart_db) >= APART_DB and (leads >= SHARE).sum() >= 2)


def same(path: Path, samples: int, channels: int) -> bool:
    """Whether all channels of decoded sound (float32, a value of each channel in turn) hold the same."""
    import numpy as np

    sound = np.memmap(path, dtype="<f4", mode="r", shape=(samples, channels))
    apart = whole = 0.0
    for first in range(0, samples, BLOCK):
        piece = np.asarray(sound[first : first + BLOCK], np.float64)
        apart += float(((piece - piece[:, :1]) ** 2).sum())
        whole += float((piece**2).sum())
    return apart <= SAME**2 * whole
