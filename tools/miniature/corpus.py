"""Sentences of random words, spoken and kept in shards: what the training windows are put together from.

    python tools/miniature/corpus.py FOLDER SHARDS [--first N]

A shard is about 20 minutes of speech. Its number is its seed: the same sentences in the same voices on every machine.
(espeak-ng's voices flutter, so that the same sentence lasts some milliseconds more or less each time.)
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from espeak import Speaker, Utterance, Voice
from words import ACCENTS, VARIANTS, WORDS, held_out

SENTENCES = 500
LANGUAGES = ("en", "fi", "sv")
SHARES = (0.44, 0.28, 0.28)


@dataclass(frozen=True)
class Sentence:
    """`samples` int16 (n,) at RATE; `words` and their `times` (start, end) in samples.

    `phones`: espeak-ng's names of the phonemes, from `phone_starts` in samples on."""

    language: str
    words: list[str]
    times: list[tuple[int, int]]
    samples: Any
    phones: list[str]
    phone_starts: Any


def drawn(random_: random.Random) -> tuple[str, list[str]]:
    """Language and words of a sentence that is not kept out of training."""
    language = random_.choices(LANGUAGES, SHARES)[0]
    while True:
        words = random_.choices(WORDS[language], k=random_.choice((1, 2, 3, 4, 5, 6, 7, 8, 9)))
        if not held_out(" ".join(words)):
            return language, words


def drawn_voice(random_: random.Random, language: str, variants: tuple[str, ...] = VARIANTS, wide: int = 0) -> Voice:
    """A voice; its speed, pitch and range up to `wide` beyond those of the evaluation."""
    variant = random_.choice(variants)
    name = random_.choice(ACCENTS[language]) + (f"+{variant}" if variant else "")
    pitch, range_ = (random_.randint(30 - wide, 70 + wide) for _ in range(2))
    return Voice(name, random_.randint(130 - wide, 190 + wide), pitch, range_)


def word_times(spoken: Utterance, words: list[str]) -> list[tuple[int, int]] | None:
    """Start and end of each word, in samples, without the pauses that espeak-ng puts between words.

    None where espeak-ng reads the text in other pieces than its words (it does so with some abbreviations)."""
    if len(spoken.words) != len(words):
        return None
    times = []
    for start, end, _ in spoken.words:
        pauses = [s for s, e, phone in spoken.phones if phone.startswith("_") and s > start and e <= end + 160]
        times.append((start, min([end, *pauses])))
    return times


def sentences(speaker: Speaker, seed: int) -> Iterator[Sentence]:
    """The sentences of the shard `seed`."""
    random_ = random.Random(seed)
    count = 0
    while count < SENTENCES:
        language, words = drawn(random_)
        spoken = speaker.say(" ".join(words), drawn_voice(random_, language, wide=18))
        times = word_times(spoken, words)
        if times is None or not len(spoken.samples):
            continue
        phones = ["" if phone.startswith("_") else phone for _, _, phone in spoken.phones]
        yield Sentence(language, words, times, spoken.samples, phones, np.array([s for s, _, _ in spoken.phones]))
        count += 1


def shard_path(folder: Path, seed: int) -> Path:
    return folder / f"{seed:05d}.npz"


def write_shard(folder: Path, speaker: Speaker, seed: int) -> None:
    """Nothing when it is there already."""
    path = shard_path(folder, seed)
    if path.exists():
        return
    made = list(sentences(speaker, seed))
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(
        partial,
        samples=np.concatenate([s.samples for s in made]),
        lengths=np.array([len(s.samples) for s in made]),
        languages=np.array([LANGUAGES.index(s.language) for s in made]),
        counts=np.array([len(s.words) for s in made]),
        words=np.array([WORDS[s.language].index(word) for s in made for word in s.words]),
        times=np.array([time for s in made for time in s.times]),
        phone_counts=np.array([len(s.phones) for s in made]),
        phones=np.array([phone for s in made for phone in s.phones]),
        phone_starts=np.concatenate([s.phone_starts for s in made]),
    )
    partial.replace(path)


def read_shard(path: Path) -> list[Sentence]:
    with np.load(path) as stored:
        sound = np.split(stored["samples"], np.cumsum(stored["lengths"])[:-1])
        cuts = np.cumsum(stored["counts"])[:-1]
        words, times = np.split(stored["words"], cuts), np.split(stored["times"], cuts)
        cuts = np.cumsum(stored["phone_counts"])[:-1]
        phones, starts = np.split(stored["phones"], cuts), np.split(stored["phone_starts"], cuts)
        languages = [LANGUAGES[number] for number in stored["languages"]]
    return [
        Sentence(
            language=language,
            words=[WORDS[language][word] for word in words[n]],
            times=[(int(start), int(end)) for start, end in times[n]],
            samples=sound[n],
            phones=phones[n].tolist(),
            phone_starts=starts[n],
        )
        for n, language in enumerate(languages)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shards", type=int)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    speaker = Speaker()
    for seed in range(given.first, given.first + given.shards):
        write_shard(given.folder, speaker, seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
