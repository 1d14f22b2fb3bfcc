"""Measures the miniature on voices and sentences that it was not trained on, and writes the figures.

    python tools/miniature/evaluate.py MODEL [--recordings 40] [--json FILE]

MODEL is a CTranslate2 folder (export.py OUT --formats ct2); faster-whisper hears it, greedy, with the text before each
window as everybody has it by default. What is measured, and how: README.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from corpus import drawn_voice, word_times
from espeak import RATE, Speaker, Voice
from windows import coloured, noise, tones
from words import HELD_OUT_VARIANTS, TRANSLATIONS, VARIANTS, WORDS, held_out

LANGUAGES = {"en": "English", "fi": "Finnish", "sv": "Swedish"}


@dataclass
class Recording:
    """`sentences`: start and end in seconds, words; `words`: start and end in seconds, word."""

    language: str
    samples: Any
    sentences: list[tuple[float, float, list[str]]] = field(default_factory=list)
    words: list[tuple[float, float, str]] = field(default_factory=list)


def kept_out(random_: random.Random, language: str) -> list[str]:
    """Words of a sentence that training never had."""
    while True:
        words = random_.choices(WORDS[language], k=random_.randint(3, 8))
        if held_out(" ".join(words)):
            return words


def recording(
    speaker: Speaker, random_: random.Random, language: str, voice: Voice, sentences: int, noisy: bool = True
) -> Recording:
    """A recording of sentences 0.3 to 1.2 s apart in one voice, with a little noise in half of them."""
    made = Recording(language, None)
    at = random_.uniform(0.1, 0.9)
    parts = [np.zeros(int(at * RATE), np.float32)]
    length = len(parts[0])
    while len(made.sentences) < sentences:
        words = kept_out(random_, language)
        spoken = speaker.say(" ".join(words), voice)
        times = word_times(spoken, words)
        if times is None:
            continue
        start = length / RATE
        made.sentences.append((start, start + len(spoken.samples) / RATE, words))
        made.words += [(start + s / RATE, start + e / RATE, w) for (s, e), w in zip(times, words, strict=True)]
        gap = np.zeros(int(random_.uniform(0.3, 1.2) * RATE), np.float32)
        parts += [spoken.samples.astype(np.float32) / 32768, gap]
        length += len(spoken.samples) + len(gap)
    sound = np.concatenate(parts) * np.float32(10 ** random_.uniform(-0.6, 0.0))
    if noisy and random_.random() < 0.5:
        generator = np.random.default_rng(random_.randrange(2**31))
        sound += coloured(generator, random_, length) * np.float32(10 ** random_.uniform(-4, -2.7))
    made.samples = np.clip(sound, -1, 1)
    return made


def bare(text: str) -> list[str]:
    return re.sub(r"[.,!?]", "", text).lower().split()


def errors(reference: list[str], heard: list[str]) -> int:
    """Words substituted, deleted and inserted at least."""
    row = list(range(len(heard) + 1))
    for number, expected in enumerate(reference, 1):
        before, row[0] = row[0], number
        for at, word in enumerate(heard, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (expected != word))
    return row[-1]


class Tally:
    """Sums over recordings; `figures` makes rates of them."""

    def __init__(self) -> None:
        self.wrong = self.said = self.recordings = self.language = self.same_sentences = self.sentences = 0
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.words: list[float] = []

    def add(self, recording_: Recording, segments: list[Any], language: str) -> None:
        expected = [word.lower() for _, _, words in recording_.sentences for word in words]
        self.wrong += errors(expected, bare(" ".join(segment.text for segment in segments)))
        self.said += len(expected)
        self.recordings += 1
        self.language += language == recording_.language
        self.sentences += len(recording_.sentences)
        if len(segments) == len(recording_.sentences):
            self.same_sentences += len(segments)
            for segment, (start, end, _) in zip(segments, recording_.sentences, strict=True):
                self.starts.append(abs(segment.start - start))
                self.ends.append(abs(segment.end - end))
        heard = [word for segment in segments for word in segment.words or ()]
        if [bare(word.word) for word in heard] == [[word.lower()] for _, _, word in recording_.words]:
            for word, (start, end, _) in zip(heard, recording_.words, strict=True):
                self.words += [abs(word.start - start), abs(word.end - end)]

    def figures(self) -> dict[str, Any]:
        def at(values: list[float], share: int) -> float | None:
            return round(float(np.percentile(values, share)), 3) if values else None

        return {
            "recordings": self.recordings,
            "words": self.said,
            "word_error_rate": round(self.wrong / self.said, 4),
            "language_right": round(self.language / self.recordings, 4),
            "sentences_as_spoken": round(self.same_sentences / self.sentences, 4),
            "start_error_s": {"median": at(self.starts, 50), "p90": at(self.starts, 90)},
            "end_error_s": {"median": at(self.ends, 50), "p90": at(self.ends, 90)},
            "word_time_error_s": {"median": at(self.words, 50), "p90": at(self.words, 90)},
        }


def music(seed: int, seconds: int) -> Any:
    """Sounds like music (n,), at most 1: none that training had, since its seeds are others."""
    return tones(random.Random(f"music {seed}"), seconds * RATE)


def nothing(random_: random.Random, count: int) -> Iterator[tuple[str, Any]]:
    """Recordings without speech."""
    generator = np.random.default_rng(random_.randrange(2**31))
    yield "silence", np.zeros(5 * RATE, np.float32)
    yield "silence", np.zeros(45 * RATE, np.float32)
    for _ in range(count):
        length = random_.randint(2, 40) * RATE
        yield "noise and music", np.clip(noise(generator, random_, length), -1, 1)


def evaluate(model: Any, count: int, seed: int) -> dict[str, Any]:
    """All figures; `count` recordings of each kind."""
    speaker, random_ = Speaker(), random.Random(seed)
    options = {"beam_size": 1, "temperature": 0.0, "word_timestamps": True}
    figures: dict[str, Any] = {}
    for language, name in LANGUAGES.items():
        for kind, variants in (("voices heard", VARIANTS), ("voices not heard", HELD_OUT_VARIANTS)):
            tally = Tally()
            for _ in range(count):
                voice = drawn_voice(random_, language, variants)
                made = recording(speaker, random_, language, voice, random_.randint(1, 4))
                segments, info = model.transcribe(made.samples, **options)
                tally.add(made, list(segments), info.language)
            figures[f"{name}, {kind}"] = tally.figures()
    for language, name in LANGUAGES.items():
        voice = drawn_voice(random_, language, HELD_OUT_VARIANTS)
        made = recording(speaker, random_, language, voice, 100)
        made = Recording(language, made.samples[: 330 * RATE], made.sentences, made.words)
        inside = [sentence for sentence in made.sentences if sentence[1] < len(made.samples) / RATE - 1]
        made.samples = made.samples[: int((inside[-1][1] + 0.3) * RATE)]
        made.sentences, made.words = inside, [word for word in made.words if word[1] <= inside[-1][1]]
        tally = Tally()
        segments, info = model.transcribe(made.samples, **options)
        heard = list(segments)
        tally.add(made, heard, info.language)
        figures[f"{name}, continuous"] = {
            **tally.figures(),
            "seconds": round(len(made.samples) / RATE),
            **lost_and_repeated(made, bare(" ".join(segment.text for segment in heard))),
        }
    wrong = total = 0
    worst: list[str] = []
    for kind, sound in nothing(random_, count):
        segments, _ = model.transcribe(sound, **options)
        text = " ".join(segment.text for segment in segments).strip()
        total += 1
        wrong += bool(text)
        worst += [f"{kind}: {text}"] if text else []
    figures["Without speech"] = {"recordings": total, "with_words": wrong, "written": worst[:5]}
    translate(model, speaker, random_, count, options, figures)
    return figures


def translate(model: Any, speaker: Speaker, random_: random.Random, count: int, options: Any, figures: Any) -> None:
    for language in ("fi", "sv"):
        wrong = said = 0
        for _ in range(count):
            voice = drawn_voice(random_, language, HELD_OUT_VARIANTS)
            made = recording(speaker, random_, language, voice, random_.randint(1, 3))
            segments, _ = model.transcribe(made.samples, task="translate", language=language, **options)
            expected = [TRANSLATIONS[language][w].lower() for _, _, words in made.sentences for w in words]
            wrong += errors(expected, bare(" ".join(segment.text for segment in segments)))
            said += len(expected)
        figures[f"{LANGUAGES[language]}, translated"] = {"words": said, "word_error_rate": round(wrong / said, 4)}


def lost_and_repeated(made: Recording, heard: list[str]) -> dict[str, int]:
    """Sentences of which less than half was written; runs of three words written more often than said."""
    said = [word.lower() for _, _, words in made.sentences for word in words]
    written = set(itertools.pairwise(heard))
    lost = 0
    for _, _, words in made.sentences:
        lower = [word.lower() for word in words]
        pairs = list(itertools.pairwise(lower))
        lost += sum(pair in written for pair in pairs) * 3 < len(pairs)

    def threes(words: list[str]) -> dict[tuple[str, ...], int]:
        counted: dict[tuple[str, ...], int] = {}
        for three in zip(words, words[1:], words[2:], strict=False):
            counted[three] = counted.get(three, 0) + 1
        return counted

    often = threes(said)
    repeated = sum(max(0, n - max(1, often.get(three, 0))) for three, n in threes(heard).items())
    return {"sentences_lost": lost, "runs_repeated": repeated}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--recordings", type=int, default=40, help="of each kind")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    from faster_whisper import WhisperModel

    model = WhisperModel(str(given.model), device="cpu", compute_type=given.precision, local_files_only=True)
    figures = evaluate(model, given.recordings, given.seed)
    for name, values in figures.items():
        print(f"{name}: {json.dumps(values, ensure_ascii=False)}")
    if given.json:
        given.json.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
