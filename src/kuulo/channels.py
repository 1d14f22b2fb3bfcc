"""Whether a recording's channels are those of different speakers. Loudness is as `audio.levels` gives it: sums of the
samples' sizes over each 10 ms, float64 (frames, channels)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kuulo.engines.base import SAMPLE_RATE

FRAME = SAMPLE_RATE // 100
"""Samples of a frame: 10 ms."""
SECOND = 100
"""Frames over which loudness is averaged, to tell who speaks."""
SYLLABLE = 20
"""Frames over which loudness is averaged, to tell whether two channels have the same sound."""
LOUD_DB = 25.0
"""How far below the loudest second speech may be."""
APART_DB = 6.0
"""How much louder one channel is than the others while its speaker speaks, at least: twice the amplitude."""
SHARE = 0.1
"""Of the loud seconds, how many each of two channels leads at least."""
SAME_DB = 1.0
"""Standard deviation of the difference in loudness of two channels up to which they hold the same. Measured: of one
channel twice at most 0.4 (less sensitive, noise 20 dB below, 2.5 ms later, low-passed; a real recording 0.1); of two
voices that leak with -3 dB 3.0, and with -6 dB where one of them has 2 % of the time 1.7."""
QUIETER_DB = 20.0
"""How much quieter the same may be in another channel; what is quieter leaks in from a speaker who is alone."""
SILENT_DB = 50.0
"""How far below the loudest channel one without sound stays."""

BLOCK = 6000
"""Frames that are read together: a minute."""


def levels(path: Path, samples: int, channels: int) -> Any:
    """Loudness of decoded sound (float32, a value of each channel in turn)."""
    import numpy as np

    sound = np.memmap(path, dtype="<f4", mode="r", shape=(samples, channels))
    found = []
    for first in range(0, samples, BLOCK * FRAME):
        sizes = np.abs(sound[first : first + BLOCK * FRAME])
        sizes = np.pad(sizes, ((0, -len(sizes) % FRAME), (0, 0)))
        found.append(sizes.reshape(-1, FRAME, channels).sum(1, dtype=np.float64))
    return np.concatenate(found)


def differ(levels: Any) -> bool:
    """Whether the channels are led in turn by clearly louder ones, as those of several microphones are and those of
    music or of a room are not."""
    import numpy as np

    loud = _loud(levels, SECOND)
    if levels.shape[1] < 2 or len(levels) < 4 * SECOND or not len(loud):
        return False
    leads = np.bincount(loud.argmax(1), minlength=levels.shape[1]) / len(loud)
    return lead_db(loud) >= APART_DB and bool((leads >= SHARE).sum() >= 2)


def same(levels: Any) -> bool:
    """Whether all channels hold the same sound, some of them quieter perhaps."""
    import numpy as np

    loud = _db(_loud(levels, SYLLABLE))
    if not len(loud):
        return False
    apart = loud - loud[:, :1]
    return bool(np.all(apart.std(0) <= SAME_DB) and np.ptp(apart.mean(0)) <= QUIETER_DB)


def doubt(levels: Any) -> str | None:
    """Why the channels may be no speakers' own, as a sentence; None where nothing speaks against it."""
    loud = _loud(levels, SECOND)
    if not len(loud):
        return None
    loudest = _db(loud.max(0))
    if (loudest > loudest.max() - SILENT_DB).sum() < 2:
        return "only one of its channels has sound, and all of it is given to one speaker"
    if lead_db(loud) < APART_DB:
        return "its channels are about equally loud, as those of one microphone for all are"
    return None


def lead_db(loud: Any) -> float:
    """How much louder the loudest channel is than the next, the median of some seconds (seconds, channels)."""
    import numpy as np

    ranked = _db(np.sort(loud, axis=1))
    return float(np.median(ranked[:, -1] - ranked[:, -2]))


def _loud(levels: Any, frames: int) -> Any:
    """Mean loudness of so many frames at a time (n, channels), of those times in which somebody speaks."""
    count = len(levels) // frames
    means = levels[: count * frames].reshape(count, frames, levels.shape[1]).mean(1)
    loudest = means.max(1, initial=0.0)
    return means[(loudest > 0) & (loudest > loudest.max(initial=0.0) * 10 ** (-LOUD_DB / 20))]


def _db(loudness: Any) -> Any:
    import numpy as np

    return 20 * np.log10(loudness + 1e-9)
