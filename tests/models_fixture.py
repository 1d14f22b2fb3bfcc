"""The miniature Whisper in every engine's format, made once and kept between runs.

`pytest_plugins = ["models_fixture"]` in `conftest.py` gives every test the fixture `miniature`:

    def test_something(miniature):
        path = miniature.path("ct2")        # or ct2-int8, ggml, hf, onnx, pt
        clip = miniature.clip("three_children")
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from scores import Part, said_parts

from kuulo import miniature as built_in
from kuulo.miniature import weights
from kuulo.miniature.writers import WRITERS

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ROOT / "tests" / "audio" / "miniature"
RATE = 16_000


@dataclass(frozen=True)
class KnownClip:
    """A recording and what is said in it: `segments` are (start_ms, end_ms, text), times as they were spoken."""

    name: str
    path: Path
    language: str
    text: str
    segments: tuple[tuple[int, int, str], ...]

    def samples(self) -> Any:
        """float32 (n,), 16 kHz mono."""
        with av.open(str(self.path)) as stored:
            frames = [frame.to_ndarray().reshape(-1) for frame in stored.decode(audio=0)]
        return np.concatenate(frames).astype(np.float32) / 32768.0


class Miniature:
    """The miniature's files; each format is written when it is first asked for."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def path(self, format_: str) -> Path:
        """The model folder or file, for reading alone: it is shared."""
        path = self.cache / WRITERS[format_][0]
        if not path.exists():
            self._write(format_, path)
        return path

    def _write(self, format_: str, path: Path) -> None:
        """Into a staging folder, then renamed, so that several test processes may do it at once."""
        self.cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix="staging-", dir=self.cache))
        try:
            WRITERS[format_][1](staging / path.name, weights.trained())
            try:
                os.rename(staging / path.name, path)  # noqa: PTH104
            except OSError:
                if not path.exists():  # else another process was first: a folder is not replaced
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def clip(self, name: str) -> KnownClip:
        """The clip `name`; see texts.json beside the clips."""
        said = json.loads((CLIPS / "texts.json").read_text(encoding="utf-8"))[name]
        segments = tuple((s["start_ms"], s["end_ms"], s["text"]) for s in said["segments"])
        return KnownClip(name, CLIPS / f"{name}.flac", said["language"], said["text"], segments)

    def clips(self) -> tuple[KnownClip, ...]:
        """The clips that every engine hears without a mistake: not those of sentences and voices that are held out."""
        names = json.loads((CLIPS / "texts.json").read_text(encoding="utf-8"))
        return tuple(self.clip(name) for name in names if not name.startswith("held_out"))


@pytest.fixture(scope="session")
def miniature() -> Miniature:
    """A Whisper that hears espeak-ng and knows some hundred English, Finnish and Swedish words."""
    return Miniature(ROOT / ".cache" / "kuulo-tests" / f"miniature-{built_in.digest()[:16]}")


def said(name: str) -> list[Part]:
    """What a clip says, with the times of its words."""
    return said_parts(json.loads((CLIPS / "texts.json").read_text(encoding="utf-8"))[name])


def long_recording(clip: KnownClip, seconds: int) -> tuple[Any, list[Part]]:
    """(samples, what is said): the clip's sentences in ever another order, 0.3 to 1 s apart."""
    draw = np.random.default_rng(11)
    sound, known = clip.samples(), said(clip.name)
    parts: list[Any] = [np.zeros(RATE // 2, np.float32)]
    length, made = len(parts[0]), []
    while length < seconds * RATE:
        for number in draw.permutation(len(known)):
            one = known[number]
            piece = sound[int(one.start * RATE) : int(one.end * RATE)]
            made.append(Part(length / RATE, (length + len(piece)) / RATE, one.text))
            gap = np.zeros(int(draw.uniform(0.3, 1.0) * RATE), np.float32)
            parts += [piece, gap]
            length += len(piece) + len(gap)
    return np.concatenate(parts), made
