"""Makes the mean of many voices' embeddings: src/kuulo/engines/resemblyzer_usual.npy.

    python tools/usual_voice.py FOLDER ...    # of Debian's klettres-data and ktuberling-data, unpacked:
                                              # usr/share/klettres/* usr/share/ktuberling/sounds/*

Half of the voices are espeak-ng's (apt install espeak-ng), in variants that bench/speakers.py does not measure with;
the others are people's, who say letters and words in some thirty languages: a folder is one voice. Of each about a
minute, and each weighs the same. Folders with less than SHORTEST_S of sound are left out.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kuulo import audio
from kuulo.atomic import write_bytes
from kuulo.engines import resemblyzer, silero
from kuulo.errors import KuuloError
from kuulo.wire import Task

sys.path.insert(0, str(Path(__file__).resolve().parent / "miniature"))
from espeak import RATE, Speaker, Voice
from words import WORDS

VARIANTS = (
    "Alex", "Andrea", "Annie", "caleb", "f1", "f3", "f5", "grandpa", "kaukovalta", "m1", "m3", "m5", "m7", "Marco",
    "Michael", "miguel", "quincy", "RicishayMax", "RicishayMax3", "steph2", "zac",
)  # fmt: skip
LANGUAGES = ("cs", "de", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "ru", "sv", "tr")
TAKES = 2
"""Pitches and speeds that each variant has."""
LENGTH_S, SHORTEST_S = 60, 8
WORD_GAP_S, SENTENCE_GAP_S = 0.1, 0.5
"""Silence after a file of a person, and after a sentence of espeak-ng."""


def spoken() -> Iterator[list[Any]]:
    """The sentences of each voice of espeak-ng, float32 from -1 to 1."""
    speaker, draw = Speaker(), random.Random(1)
    names = [f"en-us+{variant}" for variant in VARIANTS for _ in range(TAKES)]
    names += [f"{language}+{variant}" for language, variant in zip(LANGUAGES, VARIANTS, strict=False)]
    for name in names:
        voice = Voice(name, draw.randint(140, 180), draw.randint(35, 65))
        sentences: list[Any] = []
        while sum(map(len, sentences)) < LENGTH_S * RATE:
            text = " ".join(draw.choices(WORDS["en"], k=draw.randint(3, 12)))
            sentences.append(speaker.say(text, voice).samples.astype(np.float32) / 32768)
        yield sentences


def recorded(folder: Path) -> list[Any]:
    """Sound of a folder's files in a fixed, shuffled order, float32."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in {".mp3", ".ogg", ".wav"})
    random.Random(1).shuffle(files)
    words: list[Any] = []
    with tempfile.TemporaryDirectory() as scratch:
        pcm = Path(scratch) / "sound.f32"
        for file in files:
            try:
                audio.decode(file, pcm)
            except KuuloError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            words.append(np.fromfile(pcm, "<f4"))
            if sum(map(len, words)) > LENGTH_S * RATE:
                break
    return words


class Embedding:
    """Means of embeddings, of windows as the engine takes them."""

    def __init__(self) -> None:
        raw = dict(resemblyzer.DETECTION)
        self._detector = silero.load(Task("detect-speech", silero.SPEC.name, "its own", None, {}, raw))
        self._encoder = resemblyzer.Encoder()

    def __call__(self, sounds: Sequence[Any], gap_s: float) -> Any:
        """The mean (256,) for one voice's sounds, `gap_s` of silence after each; None where no speech is found."""
        gap = np.zeros(int(gap_s * RATE), np.float32)
        samples = np.concatenate([part for sound in sounds for part in (sound, gap)])
        windows = [window for stretch in self._detector.detect(samples) for window in resemblyzer.windows_in(stretch)]
        if not windows:
            return None
        return self._encoder(np.stack([self._encoder.bands(samples, *window) for window in windows])).mean(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    given = parser.parse_args()
    embedding = Embedding()
    people = [words for folder in given.folders if sum(map(len, words := recorded(folder))) >= SHORTEST_S * RATE]
    means = [embedding(words, WORD_GAP_S) for words in people]
    means += [embedding(sentences, SENTENCE_GAP_S) for sentences in spoken()]
    found = np.stack([mean for mean in means if mean is not None])
    packed = io.BytesIO()
    np.save(packed, found.mean(0).astype(np.float32))
    write_bytes(resemblyzer.USUAL, packed.getvalue())
    print(f"{resemblyzer.USUAL}: the mean of {len(found)} voices, {len(people)} of them people's")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
