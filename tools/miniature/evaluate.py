"""Measures the miniature on voices and sentences that it was not trained on, and writes the figures.

    python tools/miniature/evaluate.py [--weights FILE] [--recordings 120] [--card]

faster-whisper hears it, greedy, float32, with the text before each window, as everybody has it by default. `--card`
puts the figures into README.md, beside this file.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from corpus import drawn_voice, word_times
from espeak import RATE, Speaker, Voice
from scores import Part, Score, lost_and_repeated
from windows import coloured, noise, tones
from words import HELD_OUT_VARIANTS, VARIANTS, WORDS, held_out, written

from kuulo import miniature
from kuulo.miniature import ct2, weights

LANGUAGES = {"en": "English", "fi": "Finnish", "sv": "Swedish"}
OPTIONS: Mapping[str, Any] = {"beam_size": 1, "temperature": 0.0, "word_timestamps": True}
LONG_S = 330
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass
class Recording:
    """`samples` float32 (n,) at RATE, and what is said in them."""

    language: str
    samples: Any
    said: list[Part] = field(default_factory=list)


def kept_out(draw: random.Random, language: str) -> list[str]:
    """Words of a sentence that training never had."""
    while True:
        words = draw.choices(WORDS[language], k=draw.randint(3, 8))
        if held_out(" ".join(words)):
            return words


def recording(speaker: Speaker, draw: random.Random, language: str, voice: Voice, sentences: int) -> Recording:
    """Sentences 0.3 to 1.2 s apart in one voice, with a little noise in half of the recordings."""
    length = int(draw.uniform(0.1, 0.9) * RATE)
    parts = [np.zeros(length, np.float32)]
    said: list[Part] = []
    while len(said) < sentences:
        words = kept_out(draw, language)
        spoken = speaker.say(" ".join(words), voice)
        times = word_times(spoken, words)
        if times is None:
            continue
        at = length / RATE
        placed = [(at + s / RATE, at + e / RATE, word) for (s, e), word in zip(times, words, strict=True)]
        said.append(Part(at, at + len(spoken.samples) / RATE, written(words), placed))
        gap = np.zeros(int(draw.uniform(0.3, 1.2) * RATE), np.float32)
        parts += [spoken.samples.astype(np.float32) / 32768, gap]
        length += len(spoken.samples) + len(gap)
    sound = np.concatenate(parts) * np.float32(10 ** draw.uniform(-0.6, 0.0))
    if draw.random() < 0.5:
        generator = np.random.default_rng(draw.randrange(2**31))
        sound += coloured(generator, draw, length) * np.float32(10 ** draw.uniform(-4, -2.7))
    return Recording(language, np.clip(sound, -1, 1), said)


def music(seed: int, seconds: int) -> Any:
    """Sounds like music (n,), at most 1: none that training had, since its seeds are others."""
    return tones(random.Random(f"music {seed}"), seconds * RATE)


def wordless(draw: random.Random, count: int) -> Iterator[Any]:
    """Silence, noise and music."""
    generator = np.random.default_rng(draw.randrange(2**31))
    yield np.zeros(5 * RATE, np.float32)
    yield np.zeros(45 * RATE, np.float32)
    for _ in range(count):
        yield np.clip(noise(generator, draw, draw.randint(2, 40) * RATE), -1, 1)


def hear(model: Any, samples: Any, **options: Any) -> tuple[str, list[Part]]:
    """(language, what was heard)."""
    segments, info = model.transcribe(samples, **{**OPTIONS, **options})
    heard = [Part(s.start, s.end, s.text, [(w.start, w.end, w.word) for w in s.words or ()]) for s in segments]
    return info.language, heard


def sentences(model: Any, speaker: Speaker, draw: random.Random, count: int) -> dict[str, Any]:
    """Recordings of one to four sentences."""
    figures = {}
    for language, name in LANGUAGES.items():
        for kind, variants in (("voices heard", VARIANTS), ("voices not heard", HELD_OUT_VARIANTS)):
            score = Score()
            for _ in range(count):
                voice = drawn_voice(draw, language, variants)
                made = recording(speaker, draw, language, voice, draw.randint(1, 4))
                code, heard = hear(model, made.samples)
                score.add(made.said, heard, code == language)
            figures[f"{name}, {kind}"] = score.figures()
    return figures


def continuous(model: Any, speaker: Speaker, draw: random.Random) -> dict[str, Any]:
    """Five and a half minutes in each language, without a pause longer than 1.2 s."""
    figures = {}
    for language, name in LANGUAGES.items():
        made = recording(speaker, draw, language, drawn_voice(draw, language, HELD_OUT_VARIANTS), 130)
        said = [part for part in made.said if part.end < LONG_S]
        samples = made.samples[: int((said[-1].end + 0.3) * RATE)]
        code, heard = hear(model, samples)
        score = Score()
        score.add(said, heard, code == language)
        seconds = round(len(samples) / RATE)
        figures[f"{name}, continuous"] = {**score.figures(), "seconds": seconds, **lost_and_repeated(said, heard)}
    return figures


def nothing(model: Any, draw: random.Random, count: int) -> dict[str, Any]:
    texts = [" ".join(part.text for part in hear(model, sound)[1]).strip() for sound in wordless(draw, count)]
    with_words = [text for text in texts if text]
    return {"Without speech": {"recordings": len(texts), "with_words": len(with_words), "written": with_words[:5]}}


def table(figures: Mapping[str, Any], command: str) -> str:
    """The figures in Markdown."""

    def percent(share: float) -> str:
        return f"{100 * share:.1f} %"

    def seconds(pair: list[float] | None) -> str:
        return "-" if pair is None else f"{pair[0]:.2f} / {pair[1]:.2f}"

    lines = [
        "| | words | wrong | language right | sentences as said | start, s | end, s | words' times, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    others = []
    for name, row in figures.items():
        if "end_error_s" not in row:
            continue
        times = (row["start_error_s"], row["end_error_s"], row["word_time_error_s"])
        cells = [str(row["words"]), *(percent(row[k]) for k in ("word_error_rate", "language_right"))]
        cells += [percent(row["sentences_as_said"]), *(seconds(pair) for pair in times)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        if "seconds" in row:
            lost, repeated = row["sentences_lost"], row["runs_repeated"]
            others.append(f"{name}: {row['seconds']} s, {lost} sentences lost, {repeated} runs of words repeated.")
    silent = figures["Without speech"]
    others.append(f"Without speech: {silent['recordings']} recordings, words in {silent['with_words']}.")
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return "\n".join([f"`{command}`, {date}:", "", *lines, "", *(f"- {other}" for other in others)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=miniature.WEIGHTS, help="a compact file; default: Kuulo's own")
    parser.add_argument("--recordings", type=int, default=120, help="of each kind")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--card", action="store_true", help="write the figures into README.md")
    given = parser.parse_args()
    from faster_whisper import WhisperModel

    with tempfile.TemporaryDirectory() as folder:
        ct2.write(Path(folder, "ct2"), weights.trained(given.weights))
        model = WhisperModel(f"{folder}/ct2", device="cpu", compute_type=given.precision, local_files_only=True)
    speaker, draw = Speaker(), random.Random(given.seed)
    figures = sentences(model, speaker, draw, given.recordings)
    figures |= continuous(model, speaker, draw)
    figures |= nothing(model, draw, given.recordings)
    print(json.dumps(figures, ensure_ascii=False, indent=1))
    text = table(figures, f"python tools/miniature/evaluate.py {' '.join(sys.argv[1:])}".strip())
    print(text)
    if given.card:
        before, rest = README.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
