"""Who speaks when, without a download: Silero VAD, Resemblyzer's speaker encoder in numpy, and clustering by scipy.

The encoder is that of the package resemblyzer (Wan et al. 2018, "Generalized end-to-end loss for speaker
verification"): three LSTM layers of 256 over 40 mel bands of 1.6 s. Its weights are in resemblyzer.npz
(tools/voices.py), and nothing of PyTorch is needed. Each window is brought to one loudness first, as the original does
with an utterance, so that who moves away from the microphone stays who he is. Of two who speak together, one is found.

What all voices have in common is taken away before those of a recording are compared: an embedding has no negative
numbers, so all of them point the same way to a degree, and what tells them apart is the rest. docs/speakers.md says
what that is worth.

Parses on Python 3.9; imports numpy and scipy inside functions.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from kuulo.engines import silero
from kuulo.engines.base import SAMPLE_RATE, Diarization, EngineSpec, Native, Session, Unusable
from kuulo.engines.whisper_text import check_raw
from kuulo.transcript import Turn
from kuulo.wire import Task

SPEC = EngineSpec(
    name="resemblyzer",
    summary="Speakers by their voices, with a small encoder that comes with Kuulo: no download.",
    url="https://github.com/resemble-ai/Resemblyzer",
    licence="Apache-2.0",
    package="kuulo",
    module="faster_whisper",
    install="faster-whisper",
    tasks=("diarize",),
    devices=("cpu",),
    options={"speakers": Native("clusters", "auto: as many as are further apart than `threshold`")},
    packages=("faster-whisper", "onnxruntime", "numpy", "scipy"),
    voices=True,
    differs=("of two who speak at once it finds one",),
    # bench/speakers.py: 1 s of one core for a minute.
    speeds={"cpu": 60},
)

WEIGHTS = Path(__file__).with_name("resemblyzer.npz")
USUAL = Path(__file__).with_name("resemblyzer_usual.npy")
"""The mean embedding of about a hundred voices (tools/usual_voice.py), float32 (256,)."""

LAYERS, WIDTH, MELS = 3, 256, 40
FFT, HOP = 400, 160
"""Samples of a frame and of the step to the next (25 and 10 ms)."""

WINDOW, STEP = 160, 40
"""Frames that an embedding is of (1.6 s, what the encoder was trained on), and the step to the next."""

LOUDNESS = -30
"""dBFS to which each window is brought: resemblyzer's audio_norm_target_dBFS. The original makes quiet utterances
louder and leaves loud ones; here both are changed, so that how loud somebody speaks tells nothing of who it is."""

BATCH = 64
PIECE = 8
"""Windows in a piece of speech, 4.4 s at most, whose mean is clustered: so three hours stay a few thousand pieces."""

SHORT = 110
"""Frames: a shorter stretch of speech makes no speaker. Embeddings of less than 1.1 s were 0.23 to 0.35 from their
voice's centre (cosine distance), of 1.1 to 1.6 s 0.14, of a whole window 0.11: all short answers sound alike."""

MOST_PIECES = 4000
"""With more, pieces are longer: clustering takes the square of their number."""

DETECTION = {"min_silence_duration_ms": 200, "speech_pad_ms": 30}
ALIKE = 0.3
"""Cosine distance (of embeddings less USUAL, as all below), averaged over two groups of pieces, up to which they are
surely one speaker's."""

ALIKE_GIVEN = 0.43
"""The same where the number of speakers is given: larger groups tell better who they are, and two voices in one group
can no longer hide that there are two."""

SPREAD = 0.085
"""How far pieces are from the centre of their speaker, mean cosine distance, as a rule. Measured for pieces of PIECE
windows: 0.08 for espeak-ng's voices, 0.11 for real ones; where it is more, it is measured in the recording."""

CHANCE = 1.6
"""How many times as far as on average centres may be from where they belong, by chance."""

THRESHOLD = 0.15
"""How far apart the centres of two speakers are at least, in cosine distance, where pieces have SPREAD."""

SHARE = 0.03
LEAST = 2
"""Who has less than this share of the windows, or fewer windows (2 s), is no speaker of his own where the number is not
given."""

RAW = ("threshold",)


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Nothing."""
    return {}


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does nearly the same with the package."""
    return (
        "from resemblyzer import VoiceEncoder, preprocess_wav\n"
        "_, windows, slices = VoiceEncoder().embed_utterance(preprocess_wav(audio), return_partials=True, rate=2.5)\n"
        "# then clustering of `windows` less the mean of many voices; two speakers are further apart than "
        f"{raw.get('threshold', THRESHOLD)}"
    )


def load(task: Task) -> DiarizeSession:
    """The encoder and the detector. Raises Unusable for raw options that are not there."""
    check_raw(SPEC.name, task.raw, RAW)
    threshold = task.raw.get("threshold", THRESHOLD)
    if not isinstance(threshold, (int, float)) or not 0 <= threshold < 2:
        raise Unusable("threshold is a cosine distance, from 0 to 2", f"its default is {THRESHOLD}")
    least, most = task.options.get("speakers") or (1, 99)
    # The encoder multiplies small matrices, where OpenBLAS's threads mostly wait for each other, and with several
    # workers took six times as long as one. It is read when NumPy is loaded: a worker has not yet.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    detector = silero.load(Task("detect-speech", silero.SPEC.name, "its own", None, {}, dict(DETECTION)))
    return DiarizeSession(detector, Encoder(), usual(), int(least), int(most), float(threshold))


def usual() -> Any:
    """What USUAL holds."""
    import numpy as np

    try:
        return np.load(USUAL)
    except (OSError, ValueError) as error:
        raise Unusable(f"the usual voice cannot be read: {error}", "install Kuulo anew") from error


class DiarizeSession(Session):
    """A loaded encoder and detector."""

    def __init__(self, detector: Any, encoder: Encoder, usual: Any, least: int, most: int, threshold: float) -> None:
        self._detector = detector
        self._encoder = encoder
        self._usual = usual
        self._least, self._most, self._threshold = least, most, threshold

    def diarize(self, samples: Any) -> Diarization:
        """Who speaks when, in order and apart; speakers are named S1, S2, ... as they come, and their voices are the
        centres of their windows' embeddings, as the encoder gives them. `samples`: float32 (n,), 16 kHz, n >= 1; may
        be a memory map."""
        import numpy as np

        speech = self._detector.detect(samples)
        if not speech:
            return Diarization([])
        stretches = [windows_in(stretch) for stretch in speech]
        windows = [window for stretch in stretches for window in stretch]
        embedded = np.concatenate(list(self._embedded(samples, windows)))
        pieces = pieces_of([len(stretch) for stretch in stretches])
        plain = _means(embedded, pieces)
        # In place: of hours of speech they are tens of megabytes.
        embedded -= self._usual
        embedded /= np.maximum(np.linalg.norm(embedded, axis=1, keepdims=True), 1e-9)
        means = _means(embedded, pieces)
        weights = np.array([len(piece) for piece in pieces], float)
        long = np.array([windows[piece[0]][1] - windows[piece[0]][0] >= SHORT for piece in pieces])
        chosen, groups = speakers_of(means, weights, long, self._least, self._most, self._threshold)
        centres = _centres(means[chosen], weights[chosen], groups)[0]
        turns, names = turns_of(speech, windows, np.argmax(embedded @ centres.T, axis=1))
        heard = _centres(plain[chosen], weights[chosen], groups)[0]
        voices = {name: [float(x) for x in heard[group]] for group, name in names.items()}
        return Diarization(turns, voices, f"{SPEC.name}:{_digest()}")

    def _embedded(self, samples: Any, windows: Sequence[Tuple[int, int]]) -> Iterator[Any]:
        """Embeddings (b, 256) of windows (start, end in frames), a batch at a time."""
        import numpy as np

        for first in range(0, len(windows), BATCH):
            batch = windows[first : first + BATCH]
            yield self._encoder(np.stack([self._encoder.bands(samples, start, end) for start, end in batch]))


def _digest() -> str:
    """What makes embeddings comparable: the weights, and how sound is prepared for them."""
    prepared = f"{FFT} {HOP} {MELS} {WINDOW} {LOUDNESS}".encode()
    return hashlib.sha256(WEIGHTS.read_bytes() + prepared).hexdigest()[:16]


class Encoder:
    """Resemblyzer's encoder: mel bands (b, 160, 40) -> embeddings (b, 256) of length 1."""

    def __init__(self) -> None:
        import numpy as np
        from faster_whisper.feature_extractor import FeatureExtractor

        try:
            with np.load(WEIGHTS) as stored:
                self._weights = {name: stored[name].astype(np.float32) for name in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise Unusable(f"the speaker encoder cannot be read: {error}", "install Kuulo anew") from error
        self._filters = FeatureExtractor.get_mel_filters(SAMPLE_RATE, FFT, MELS).astype(np.float32)
        self._hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)

    def bands(self, samples: Any, start: int, end: int) -> Any:
        """Mel power (WINDOW, MELS) of frames `start` to `end` at LOUDNESS, padded with zeros: librosa's melspectrogram,
        centred."""
        import numpy as np

        first = start * HOP - FFT // 2
        last = (end - 1) * HOP + FFT // 2
        piece = np.zeros(last - first, np.float32)
        inside = samples[max(0, first) : max(0, last)]
        piece[max(0, -first) : max(0, -first) + len(inside)] = inside
        piece *= 10 ** (LOUDNESS / 20) / max(float(np.sqrt(np.mean(piece**2))), 1e-6)
        frames = np.lib.stride_tricks.sliding_window_view(piece, FFT)[::HOP]
        power = np.abs(np.fft.rfft(frames * self._hann, axis=1)) ** 2
        found = np.zeros((WINDOW, MELS), np.float32)
        found[: end - start] = power @ self._filters.T
        return found

    def __call__(self, bands: Any) -> Any:
        import numpy as np

        layer = bands
        for number in range(LAYERS):
            into, back = (self._weights[f"lstm.weight_{kind}_l{number}"].T for kind in ("ih", "hh"))
            bias = self._weights[f"lstm.bias_ih_l{number}"] + self._weights[f"lstm.bias_hh_l{number}"]
            gates = layer @ into + bias
            hidden = np.zeros((len(bands), WIDTH), np.float32)
            cell = np.zeros_like(hidden)
            layer = np.empty((len(bands), bands.shape[1], WIDTH), np.float32)
            for step in range(bands.shape[1]):
                gate = gates[:, step] + hidden @ back
                keep = _sigmoid(gate[:, WIDTH : 2 * WIDTH]) * cell
                cell = keep + _sigmoid(gate[:, :WIDTH]) * np.tanh(gate[:, 2 * WIDTH : 3 * WIDTH])
                hidden = _sigmoid(gate[:, 3 * WIDTH :]) * np.tanh(cell)
                layer[:, step] = hidden
        raw = np.maximum(layer[:, -1] @ self._weights["linear.weight"].T + self._weights["linear.bias"], 0)
        return raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9)


def _sigmoid(x: Any) -> Any:
    import numpy as np

    return 0.5 * (1 + np.tanh(0.5 * x))


def normalised(vector: Any) -> Any:
    import numpy as np

    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def frames_of(stretch: Tuple[int, int]) -> Tuple[int, int]:
    """A stretch of speech (ms) in frames of 10 ms, one at least."""
    start = stretch[0] // 10
    return start, max(start + 1, stretch[1] // 10)


def windows_in(stretch: Tuple[int, int]) -> List[Tuple[int, int]]:
    """Windows (start, end) in frames over a stretch of speech (ms): STEP apart, the last ends with it; one that is
    shorter than WINDOW is one window."""
    start, end = frames_of(stretch)
    last = max(start, end - WINDOW)
    return [(place, min(place + WINDOW, end)) for place in (*range(start, last, STEP), last)]


def pieces_of(counts: Sequence[int]) -> List[range]:
    """Windows in a row of one stretch of speech, PIECE at a time, or more of a very long recording. `counts`: how many
    windows each stretch has."""
    size = max(PIECE, -(-sum(counts) // MOST_PIECES))
    pieces, first = [], 0
    for count in counts:
        pieces += [range(at, min(at + size, first + count)) for at in range(first, first + count, size)]
        first += count
    return pieces


def _means(embedded: Any, pieces: Sequence[range]) -> Any:
    """The mean (p, 256) of the windows of each piece, of length 1."""
    import numpy as np

    return np.stack([normalised(embedded[piece.start : piece.stop].mean(0)) for piece in pieces])


def speakers_of(means: Any, weights: Any, long: Any, least: int, most: int, threshold: float) -> Tuple[Any, Any]:
    """Which pieces make the speakers (p,) bool, and the group of each of those, from 0: `least` to `most` groups where
    there are as many pieces. `means`: (p, 256) of length 1, the pieces' embeddings; `weights`: (p,) how many windows
    each has; `long`: (p,) bool, not shorter than SHORT.

    The long ones alone make speakers, else all short answers in a long recording would become one. The others help
    only where there would be fewer speakers than `least`."""
    import numpy as np

    every = np.ones(len(means), bool)
    if long.any():
        groups = grouped(means[long], weights[long], least, most, threshold)
        if groups.max() + 1 >= least:
            return long, groups
    return every, grouped(means, weights, least, most, threshold)


def grouped(means: Any, weights: Any, least: int, most: int, threshold: float) -> Any:
    """The group of each piece, from 0, in three stages.

    Agglomerative clustering (average linkage, cosine distance) up to ALIKE makes groups that are surely of one speaker.
    Then two become one, those that cost least (Ward's: the distance of their centres, by their sizes), as long as
    centres are not further apart than one voice's may be (`_allowed`). Last, the smallest group goes to the others
    while it is smaller than SHARE and LEAST say, and two may become one again."""
    import numpy as np
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(means) == 1 or most == 1:
        return np.zeros(len(means), int)
    tree = linkage(means, "average", metric="cosine")
    groups = fcluster(tree, ALIKE_GIVEN if least == most else ALIKE, "distance") - 1
    if groups.max() + 1 < least:
        return fcluster(tree, min(least, len(means)), "maxclust") - 1
    smallest = max(LEAST, SHARE * weights.sum())
    while True:
        groups = _merged(means, weights, groups, least, most, threshold)
        centres, sizes = _centres(means, weights, groups)
        if len(sizes) <= least or sizes.min() >= smallest:
            return groups
        left = np.delete(centres, sizes.argmin(), axis=0)
        groups = np.where(
            groups == sizes.argmin(), np.argmax(means @ left.T, axis=1), groups - (groups > sizes.argmin())
        )


def _merged(means: Any, weights: Any, groups: Any, least: int, most: int, threshold: float) -> Any:
    """Groups of which no two are one speaker's, or `least` groups; at most `most`."""
    import numpy as np

    while (count := int(groups.max()) + 1) > least:
        centres, sizes = _centres(means, weights, groups)
        apart = 1 - centres @ centres.T
        spread = float(np.average(1 - (means * centres[groups]).sum(1), weights=weights))
        cost = apart / (1 / sizes[:, None] + 1 / sizes[None])
        cost[np.tril_indices(count)] = np.inf
        if count <= most:
            cost[apart > _allowed(weights, groups, spread, threshold)] = np.inf
        first, second = np.unravel_index(int(cost.argmin()), cost.shape)
        if not np.isfinite(cost[first, second]):
            break
        groups = np.where(groups == second, first, groups)
        groups = groups - (groups > second)
    return groups


def _allowed(weights: Any, groups: Any, spread: float, threshold: float) -> Any:
    """How far apart (g, g) the centres of two groups of one voice may be. `spread`: mean distance of pieces from their
    groups' centres in this recording.

    A voice changes in the course of a recording, and clustering finds its extremes: that is `threshold`, and does not
    shrink as groups grow. And a centre is off by chance. A piece is off by SPREAD, a shorter one by more (by the root
    of its windows, since they overlap), a mean of pieces by the sum of theirs, each by the square of its share. Both
    are larger where voices vary more than SPREAD."""
    import numpy as np

    chance = SPREAD * PIECE**0.5 * np.bincount(groups, weights**1.5) / np.bincount(groups, weights) ** 2
    return max(1.0, spread / SPREAD) * (threshold + CHANCE * (chance[:, None] + chance[None]))


def _centres(means: Any, weights: Any, groups: Any) -> Tuple[Any, Any]:
    """Centres (g, 256) of length 1 of the groups, and how many windows each has."""
    import numpy as np

    count = int(groups.max()) + 1
    sums = np.zeros((count, means.shape[1]))
    np.add.at(sums, groups, means * weights[:, None])
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9), np.bincount(groups, weights)


def turns_of(
    speech: Sequence[Tuple[int, int]], windows: Sequence[Tuple[int, int]], groups: Sequence[int]
) -> Tuple[List[Turn], Dict[int, str]]:
    """Each 10 ms of speech belongs to the group that most windows over it have. Turns are in ms; with them the
    names of the groups that have one."""
    import numpy as np

    count = int(max(groups)) + 1
    ends = max(end for _, end in windows) + 1
    votes = np.zeros((ends, count), np.float32)
    for (start, end), group in zip(windows, groups):
        middle, half = (start + end) / 2, max(1.0, (end - start) / 2)
        # A window says most about its middle.
        votes[start:end, group] += 1.05 - np.abs(np.arange(start, end) + 0.5 - middle) / half
    owner = votes.argmax(1)
    turns: List[Tuple[int, int, int]] = []
    for start_ms, end_ms in speech:
        start, end = frames_of((start_ms, end_ms))
        at = start
        while at < end:
            to = at
            while to < end and owner[to] == owner[at]:
                to += 1
            turns.append((start_ms if at == start else at * 10, end_ms if to == end else to * 10, int(owner[at])))
            at = to
    names: Dict[int, str] = {}
    for _, _, group in turns:
        names.setdefault(group, f"S{len(names) + 1}")
    return [Turn(start, end, names[group]) for start, end, group in turns], names
