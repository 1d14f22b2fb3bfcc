"""One speaker for each channel: who speaks when in a recording with a microphone for each person.

Speech is looked for in every channel (Silero VAD). A microphone may also hear the others, more quietly: whether it
does, and how much more quietly, is found in the recording itself. A channel's speaker speaks where there is speech in
it that is clearly louder than what leaks in; so two who speak at once are both found.

Parses on Python 3.9; imports numpy inside functions.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from kuulo.engines import silero
from kuulo.engines.base import Diarization, EngineSpec, Native, Session
from kuulo.engines.whisper_text import check_raw
from kuulo.transcript import Turn
from kuulo.wire import Task

SPEC = EngineSpec(
    name="channels",
    summary="A speaker for each channel of a recording, what one microphone hears of the others left out.",
    url="https://github.com/snakers4/silero-vad",
    licence="MIT",
    package="kuulo",
    module="faster_whisper",
    install="kuulo",
    tasks=("diarize",),
    devices=("cpu",),
    options={"speakers": Native("channels", "as many as there are channels in which somebody speaks")},
    packages=("onnxruntime", "numpy"),
    # No model is computed: reading the samples is most of it.
    speeds={"cpu": 100},
)

FRAME = 160
"""Samples of a frame: 10 ms."""
SMOOTH = 20
"""Frames over which loudness is averaged: a syllable, since in the pauses within a word there is noise alone."""
AT_ONCE = 6000
"""Frames that are looked at together: a minute."""

OWN = 0.25
"""How much louder than what leaks into it a channel must be, to be its speaker's, as a share of the way from the one's
loudness alone to the other's. Of 0.25, 0.33 and 0.4 and of SMOOTH 5, 20 and 40 these two had the fewest errors in 48
synthetic conversations (voices that leak by -8 to -60 dB, with and without noise, up to 70 % of the turns overlapping):
2.5 % of the speech missed, 10 % false (detection alone, without leaks: 8 %), 0.1 % the wrong speaker's."""
UNKNOWN_DB = 20.0
"""How much quieter a voice is in another channel where nothing in the recording tells."""
LOUD = 90
"""Percentile of the loudness of a channel's speech that channels are made equal by."""

BLOCK, MOST_BLOCKS, LED = 8192, 60, 0.7
"""Samples (0.5 s) that are correlated at a time, at most so many times, and the share of their frames that the one
channel must lead."""
LATEST = 480
"""Samples (30 ms, 10 m of air) by which sound may come later to another microphone."""
LEAST_PEAK, CHANCE = 0.03, 6.0
"""Without leaks the peak was at most 0.025 in these conversations, and 0.056 in the one block of a real one; with leaks
that were louder than the noise at least 0.048."""

GAP_MS, SHORTEST_MS = 300, 200
"""A speaker's turns that are nearer than this are one; shorter ones are none."""

DETECTION = {"min_silence_duration_ms": 200, "speech_pad_ms": 30}


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Nothing."""
    return {}


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """There is no program that does it."""
    return "# Silero VAD on every channel; each frame belongs to the channels that are louder than what leaks into them"


def load(task: Task) -> ChannelsSession:
    """The detector. Raises Unusable."""
    check_raw(SPEC.name, task.raw, ())
    detector = silero.load(Task("detect-speech", silero.SPEC.name, "its own", None, {}, dict(DETECTION)))
    return ChannelsSession(detector)


class ChannelsSession(Session):
    """A loaded detector."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector

    def diarize(self, samples: Any) -> Diarization:
        """Who speaks when; speakers are named `channel 1`, `channel 2`, ... `samples`: float32 (n, channels), 16 kHz,
        n >= 1; may be a memory map."""
        import numpy as np

        levels = levels_of(samples)
        heard = np.zeros(levels.shape, bool)
        for channel in range(levels.shape[1]):
            for start_ms, end_ms in self._detector.detect(samples[:, channel]):
                heard[start_ms // 10 : -(-end_ms // 10), channel] = True
        own = owned(samples, levels, heard)
        turns = [
            Turn(start, end, f"channel {channel + 1}")
            for channel in range(own.shape[1])
            for start, end in stretches(own[:, channel])
        ]
        return Diarization(sorted(turns, key=lambda turn: (turn.start_ms, turn.end_ms, turn.speaker)))


def levels_of(samples: Any) -> Any:
    """Loudness in dB of each 10 ms (frames, channels), averaged over SMOOTH frames."""
    import numpy as np

    count = -(-len(samples) // FRAME)
    power = np.empty((count, samples.shape[1]), np.float64)
    for first in range(0, count, AT_ONCE):
        piece = np.asarray(samples[first * FRAME : (first + AT_ONCE) * FRAME], np.float64)
        missing = -len(piece) % FRAME
        piece = np.pad(piece, ((0, missing), (0, 0)))
        power[first : first + len(piece) // FRAME] = (piece.reshape(-1, FRAME, piece.shape[1]) ** 2).mean(1)
    window = np.ones(SMOOTH) / SMOOTH
    smooth = (
        np.stack([np.convolve(column, window, "same")[:count] for column in power.T], 1) if count > SMOOTH else power
    )
    return 10 * np.log10(smooth + 1e-10)


def owned(samples: Any, levels: Any, heard: Any) -> Any:
    """Which channels' speakers speak in each frame (frames, channels): those in whose channel speech was detected
    (`heard`), unless it is no louder than what leaks in."""
    import numpy as np

    own = np.array(heard)
    even = levels - loudness(levels, heard)
    pairs = [(a, b) for a in range(levels.shape[1]) for b in range(levels.shape[1]) if a != b]

    def leads(a: int, b: int) -> Any:
        return heard[:, a] & (even[:, a] > even[:, b])

    def quieter(a: int, b: int) -> float:
        first = leads(a, b)
        return float(np.median(even[first, a] - even[first, b])) if first.any() else UNKNOWN_DB

    for a, b in pairs:
        if leaks(samples, leads(a, b), a, b):
            beyond = OWN * (quieter(a, b) + quieter(b, a))
            own[:, b] &= even[:, a] - even[:, b] < quieter(a, b) - beyond
    return own


def loudness(levels: Any, heard: Any) -> Any:
    """How loud speech is in each channel, in dB (channels,): microphones are not equally sensitive."""
    import numpy as np

    return np.array(
        [np.percentile(column[said], LOUD) if said.any() else 0.0 for column, said in zip(levels.T, heard.T)]
    )


def leaks(samples: Any, leads: Any, a: int, b: int) -> bool:
    """Whether channel b has the sound of channel a, where that leads: by the cross-correlation with equal weight for
    all frequencies (Knapp and Carter 1976, "The generalized correlation method for estimation of time delay", PHAT),
    whose peak is chance's, about 1 / sqrt(samples), where the sounds are different ones."""
    import numpy as np

    frames = BLOCK // FRAME
    total, count = np.zeros(BLOCK + 1, complex), 0
    window = np.hanning(BLOCK)
    for first in range(0, len(leads) - frames, frames):
        if leads[first : first + frames].mean() >= LED and count < MOST_BLOCKS:
            piece = np.asarray(samples[first * FRAME : first * FRAME + BLOCK], np.float64)
            here, there = (np.fft.rfft(piece[:, channel] * window, 2 * BLOCK) for channel in (a, b))
            cross = here.conj() * there
            total += cross / (np.abs(cross) + 1e-12)
            count += 1
    if not count:
        return bool(leads.any())  # too short to tell: no word is given to two because of that
    correlation = np.abs(np.fft.irfft(total / count))
    peak = max(correlation[:LATEST].max(), correlation[-LATEST:].max())
    return bool(peak > max(LEAST_PEAK, CHANCE / np.sqrt(count * BLOCK)))


def stretches(own: Sequence[bool]) -> List[Tuple[int, int]]:
    """(start, end) in ms of the frames in a row that are true, gaps up to GAP_MS closed, and none shorter than
    SHORTEST_MS."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(own, bool), [False]]).astype(int)))
    joined: List[Tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2) * 10:
        if joined and start - joined[-1][1] <= GAP_MS:
            joined[-1] = (joined[-1][0], int(end))
        else:
            joined.append((int(start), int(end)))
    return [(start, end) for start, end in joined if end - start >= SHORTEST_MS]
