"""Makes the clips in tests/audio/miniature/ with espeak-ng, and texts.json: what is said in them, and when.

    python tools/miniature/clips.py [FOLDER]

Each sentence is spoken by itself, trimmed, and put at a known place, so that its times are known exactly.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 16_000
SILENCE_MS = 3000
TAIL_MS = 700
STEP = 64  # samples are multiples of this: FLAC leaves out the bits that are always 0
FOLDER = Path(__file__).resolve().parents[2] / "tests" / "audio" / "miniature"


@dataclass(frozen=True)
class Spoken:
    """One sentence that starts at `at_ms`: `voice` is espeak-ng's, `speed` in words a minute."""

    at_ms: int
    text: str
    voice: str = "en-us"
    speed: int = 160


# name: (language, sentences)
CLIPS: dict[str, tuple[str, tuple[Spoken, ...]]] = {
    "three_children": ("en", (Spoken(200, "Three children and two people."),)),
    "two_sentences": ("en", (Spoken(200, "Good morning mother."), Spoken(2200, "Always good coffee."))),
    "finnish": (
        "fi",
        (Spoken(200, "Hyvä kysymys hyvä vastaus.", "fi"), Spoken(3000, "Yksi kaksi kolme.", "fi")),
    ),
    # longer than Whisper's window of 30 s
    "two_windows": (
        "en",
        (
            Spoken(200, "Three children and two people."),
            Spoken(2800, "Good morning mother."),
            Spoken(30_500, "Today we study music and language."),
            Spoken(33_500, "Happy summer and winter."),
        ),
    ),
    "silence": ("", ()),
}


def speak(spoken: Spoken) -> Any:
    """Float samples (n,) of the sentence at 16 kHz, without the silence around it."""
    command = ["espeak-ng", "-v", spoken.voice, "-s", str(spoken.speed), "-p", "50", "--stdout", spoken.text]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(raw)) as stored:
        rate = stored.getframerate()
        samples = np.frombuffer(stored.readframes(stored.getnframes()), dtype="<i2").astype(np.float64)
    length = len(samples) * RATE // rate
    samples = np.interp(np.arange(length) * rate / RATE, np.arange(len(samples)), samples)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * 32768)
    return samples[max(0, loud[0] - 160) : loud[-1] + 320]


def compose(sentences: tuple[Spoken, ...]) -> tuple[Any, list[Any]]:
    """(int16 samples, segments as in texts.json) of the sentences, each at its place."""
    if not sentences:
        return np.zeros(SILENCE_MS * RATE // 1000, "<i2"), []
    sounds = [speak(spoken) for spoken in sentences]
    ends_ms = [s.at_ms + len(sound) * 1000 // RATE for s, sound in zip(sentences, sounds, strict=True)]
    samples = np.zeros((ends_ms[-1] + TAIL_MS) * RATE // 1000)
    for spoken, sound in zip(sentences, sounds, strict=True):
        start = spoken.at_ms * RATE // 1000
        samples[start : start + len(sound)] += sound
    segments = [
        {"start_ms": spoken.at_ms, "end_ms": end_ms, "text": spoken.text}
        for spoken, end_ms in zip(sentences, ends_ms, strict=True)
    ]
    return (np.round(samples / STEP) * STEP).clip(-32768, 32767).astype("<i2"), segments


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    for name, (language, sentences) in CLIPS.items():
        samples, segments = compose(sentences)
        write_flac(folder / f"{name}.flac", samples)
        text = " ".join(segment["text"] for segment in segments)
        texts[name] = {"language": language, "text": text, "segments": segments}
    written = json.dumps(texts, ensure_ascii=False, indent=1) + "\n"
    (folder / "texts.json").write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
