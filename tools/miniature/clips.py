"""Makes the clips in tests/audio/miniature/ with espeak-ng, and texts.json: what is said in them, and when; and from
one of them the example that comes with Kuulo, examples/synthetic.flac.

    python tools/miniature/clips.py [FOLDER [EXAMPLE]]

Each sentence is spoken by itself, trimmed, and put at a known place, so that its times are known exactly; those of its
words are espeak-ng's. The clips `held_out_*` are sentences and voices that the miniature was not trained on.
"""

from __future__ import annotations

import argparse
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from corpus import drawn_voice, word_times
from espeak import RATE, Speaker, Voice
from evaluate import kept_out, music
from words import HELD_OUT_VARIANTS, WORDS, written

from kuulo.atomic import write_json
from kuulo.miniature import CLIP

SILENCE_MS = 3000
TAIL_MS = 700
STEP = 64  # samples are multiples of this: FLAC leaves out the bits that are always 0
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "audio" / "miniature"
EXAMPLE = ROOT / "examples" / "synthetic.flac"
EXAMPLE_CLIP = "two_sentences"
HELD_OUT = 6
"""Sentences of each clip `held_out_*`."""


AMERICAN, FINNISH, SWEDISH = Voice("en-us"), Voice("fi"), Voice("sv")


@dataclass(frozen=True)
class Spoken:
    """One sentence that starts at `at_ms`, or `after_ms` after the one before."""

    text: str
    at_ms: int | None = None
    after_ms: int = 600
    voice: Voice = AMERICAN


# name: (language, sentences)
CLIPS: dict[str, tuple[str, tuple[Spoken, ...]]] = {
    "three_children": ("en", (Spoken("Three children and two people.", 200),)),
    "two_sentences": ("en", (Spoken("Good morning mother.", 200), Spoken("Always good coffee.", 2200))),
    "finnish": (
        "fi",
        (
            Spoken("Hyvä kysymys hyvä vastaus.", 200, voice=FINNISH),
            Spoken("Yksi kaksi kolme.", 3000, voice=FINNISH),
        ),
    ),
    "swedish": (
        "sv",
        (
            Spoken("God fråga viktig svar.", 200, voice=SWEDISH),
            Spoken("Kaffe och mjölk.", 3000, voice=SWEDISH),
        ),
    ),
    # longer than Whisper's window of 30 s
    "two_windows": (
        "en",
        (
            Spoken("Three children and two people.", 200),
            Spoken("Good morning mother.", 2800),
            Spoken("Today we study music and language.", 30_500),
            Spoken("Happy summer cold winter.", 33_500),
        ),
    ),
    "silence": ("", ()),
    "music": ("", ()),
}


def held_out_clips() -> dict[str, tuple[str, tuple[Spoken, ...]]]:
    """Sentences and voices that training never had, by a fixed seed."""
    draw = random.Random(5)
    clips = {}
    for language in WORDS:
        spoken = []
        for _ in range(HELD_OUT):
            text = written(kept_out(draw, language)).strip()
            voice = drawn_voice(draw, language, HELD_OUT_VARIANTS)
            spoken.append(Spoken(text, after_ms=draw.randint(300, 1000), voice=voice))
        clips[f"held_out_{language}"] = (language, tuple(spoken))
    return clips


def compose(speaker: Speaker, sentences: tuple[Spoken, ...]) -> tuple[Any, list[Any]]:
    """(int16 samples, segments as in texts.json) of the sentences, each at its place."""
    parts: list[tuple[int, Any]] = []
    segments: list[Any] = []
    for spoken in sentences:
        uttered = speaker.say(spoken.text, spoken.voice)
        words = spoken.text.split()
        times = word_times(uttered, words)
        if times is None:
            raise ValueError(f"espeak-ng reads {spoken.text!r} in other pieces than its words")
        before = segments[-1]["end_ms"] if segments else 0
        at_ms = before + spoken.after_ms if spoken.at_ms is None else spoken.at_ms
        parts.append((at_ms * RATE // 1000, uttered.samples))
        segments.append(
            {
                "start_ms": at_ms,
                "end_ms": at_ms + len(uttered.samples) * 1000 // RATE,
                "text": spoken.text,
                "words": [[at_ms + s * 1000 // RATE, at_ms + e * 1000 // RATE] for s, e in times],
            }
        )
    samples = np.zeros((segments[-1]["end_ms"] + TAIL_MS) * RATE // 1000)
    for start, sound in parts:
        samples[start : start + len(sound)] += sound
    return (np.round(samples / STEP) * STEP).clip(-32768, 32767).astype("<i2"), segments


def wordless(name: str) -> Any:
    """int16 samples of a clip that has no speech."""
    if name == "silence":
        return np.zeros(SILENCE_MS * RATE // 1000, "<i2")
    return (np.round(music(seed=3, seconds=8) * 8000 / STEP) * STEP).astype("<i2")


def write_flac(file: Path, samples: Any) -> None:
    """16-bit mono FLAC."""
    with av.open(str(file), "w", format="flac") as out:
        stream = out.add_stream("flac", rate=RATE, options={"compression_level": "12"})
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("example", type=Path, nargs="?", default=EXAMPLE)
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    speaker = Speaker()
    for name, (language, sentences) in {**CLIPS, **held_out_clips()}.items():
        samples, segments = compose(speaker, sentences) if sentences else (wordless(name), [])
        write_flac(folder / f"{name}.flac", samples)
        text = " ".join(segment["text"] for segment in segments)
        texts[name] = {"language": language, "text": text, "segments": segments}
    write_json(folder / "texts.json", texts)
    for copy in (given.example, CLIP):
        shutil.copyfile(folder / f"{EXAMPLE_CLIP}.flac", copy)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
