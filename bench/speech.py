"""The recordings that are measured with, put together from sentences that espeak-ng speaks or, without it, from those
of `tests/audio/miniature/`.

Which sentences, in which order, how loud, and the gaps between them come from a fixed seed: all runs and all machines
measure the same recordings.
"""

from __future__ import annotations

import functools
import io
import json
import random
import shutil
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 16_000
ROOT = Path(__file__).resolve().parent.parent
SENTENCES = ROOT / "tests" / "audio" / "miniature"
SPOKEN = 120

sys.path.insert(0, str(ROOT / "tools" / "miniature"))


def clips(folder: Path, count: int, seed: int = 7) -> list[Path]:
    """`count` WAV files of 3 to 8 s, 16-bit mono, 16 kHz."""
    folder.mkdir(parents=True, exist_ok=True)
    pool, draw = sentences(), np.random.default_rng(seed)
    files = []
    for number in range(count):
        length = int(draw.uniform(3.0, 8.0) * RATE)
        path = folder / f"clip {number:03}.wav"
        samples = np.concatenate(list(speech(pool, draw, length)))
        if not path.exists():
            _write(path, [samples])
        files.append(path)
    return files


def recording(folder: Path, seconds: int, seed: int = 8) -> Path:
    """One WAV file of `seconds`, however long: the same ten minutes again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"recording {seconds} s.wav"
    if not path.exists():
        block = min(seconds, 600) * RATE
        parts = list(speech(sentences(), np.random.default_rng(seed), block, whole=False))
        samples = np.concatenate(parts)[:block]
        times, rest = divmod(seconds * RATE, block)
        _write(path, [*[samples] * times, samples[:rest]])
    return path


def speech(pool: list[Any], draw: Any, length: int, whole: bool = True) -> Iterator[Any]:
    """Pieces that together have `length` samples (or a little more unless `whole`): sentences, gaps between them.
    With `whole`, no sentence is cut and silence fills the end."""
    done = 0
    while done < length:
        gap = np.zeros(int(draw.uniform(0.3, 0.9) * RATE), np.int16)
        fitting = [s for s in pool if not whole or done + len(gap) + len(s) <= length]
        if not fitting:
            yield np.zeros(length - done, np.int16)
            return
        sentence = fitting[int(draw.integers(len(fitting)))]
        yield gap
        yield (sentence * draw.uniform(0.5, 1.0)).astype(np.int16)
        done += len(gap) + len(sentence)


def source() -> str:
    """Where the sentences come from here: "espeak-ng", or "tests" where it is not installed."""
    return "espeak-ng" if shutil.which("espeak-ng") else "tests"


def sentences() -> list[Any]:
    """int16 samples (n,) of each sentence: SPOKEN sentences of words that the miniature knows where espeak-ng is
    installed, else the few in the tests' clips."""
    return spoken() if source() == "espeak-ng" else shipped()


@functools.cache
def spoken() -> list[Any]:
    from corpus import drawn_voice
    from espeak import Speaker
    from words import WORDS

    speaker, draw = Speaker(), random.Random(9)
    found = []
    for _ in range(SPOKEN):
        text = " ".join(draw.choices(WORDS["en"], k=draw.randint(2, 6)))
        found.append(speaker.say(text, drawn_voice(draw, "en")).samples)
    return found


@functools.cache
def shipped() -> list[Any]:
    found = []
    for name, said in sorted(json.loads((SENTENCES / "texts.json").read_text(encoding="utf-8")).items()):
        if said["language"] != "en":
            continue
        samples = _read(next(p for p in SENTENCES.glob(f"{name}.*") if p.suffix in (".flac", ".wav")))
        for segment in said["segments"]:
            start = max(0, segment["start_ms"] - 50)
            found.append(samples[start * RATE // 1000 : (segment["end_ms"] + 50) * RATE // 1000])
    return found


def _read(audio: Path | io.BytesIO) -> Any:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(audio) if isinstance(audio, Path) else audio) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


def _write(path: Path, blocks: list[Any]) -> None:
    staging = path.with_name(path.name + ".new")
    with wave.open(str(staging), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        for block in blocks:
            out.writeframes(block.astype("<i2").tobytes())
    staging.replace(path)
