"""CTranslate2's model: a folder, as faster-whisper reads it.

The layout of `model.bin` is that of ctranslate2/specs/model_spec.py, `ModelSpec._serialize` (version 6).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from kuulo.models.binary import Damaged, Reader
from kuulo.models.documents import load, mel_problems
from kuulo.models.shape import Shape

NAME = "CTranslate2 (faster-whisper)"

# What is kept of a folder or repository: faster-whisper's own list, faster_whisper/utils.py
WANTED = (
    "config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json", "vocabulary.txt",
)  # fmt: skip

VERSION = 6
SPEC = "WhisperSpec"

# Bytes of a value by type number: float32, int8, int16, int32, float16, bfloat16
VALUE_BYTES = (4, 1, 2, 4, 2, 2)


def matches(path: Path) -> bool:
    """Whether the folder has this format's main file."""
    return (path / "model.bin").is_file()


def problems(path: Path) -> list[str]:
    """What is wrong with the folder; empty when nothing is."""
    found: list[str] = []
    if not (path / "model.bin").is_file():
        return ["model.bin is missing"]
    try:
        variables = _variables(path / "model.bin")
    except Damaged as error:
        return [str(error)]
    found += load(path / "config.json")[1]
    if (path / "vocabulary.json").is_file():
        found += load(path / "vocabulary.json", kind=list)[1]
    elif not (path / "vocabulary.txt").is_file():
        found.append("vocabulary.json (or vocabulary.txt) is missing")
    # Without it faster-whisper asks the network and tries again for more than 20 s before it gives up.
    found += load(path / "tokenizer.json")[1]
    found += mel_problems(path, _shape(variables).mels)
    return found


def shape(path: Path) -> Shape:
    """The model's dimensions, from its variables; raises Damaged."""
    return _shape(_variables(path / "model.bin"))


def _variables(path: Path) -> dict[str, tuple[int, ...]]:
    """The extents of every variable; raises Damaged when one is incomplete."""
    with Reader(path) as file:
        (version,) = file.take("I")
        if version != VERSION:
            raise Damaged(f"{path.name} does not begin like a CTranslate2 model of version {VERSION}")
        spec = _text(file)
        if spec != SPEC:
            raise Damaged(f"{path.name} is a {spec[:40]!r}, not a Whisper model")
        _revision, count = file.take("2I")
        variables = dict(_variable(file) for _ in range(count))
        (aliases,) = file.take("I")
        for _ in range(aliases):
            alias, original = _text(file), _text(file)
            if original in variables:
                variables[alias] = variables[original]
    return variables


def _variable(file: Reader) -> tuple[str, tuple[int, ...]]:
    name = _text(file)
    (rank,) = file.take("B")
    extents: tuple[Any, ...] = file.take(f"{rank}I")
    kind, stored = file.take("BI")
    if kind >= len(VALUE_BYTES) or math.prod(extents) * VALUE_BYTES[kind] != stored:
        raise Damaged(f"{file.name} contradicts itself at the variable {name[:80]!r}")
    file.skip(stored)
    return name, extents


def _text(file: Reader) -> str:
    """A length of two bytes, which counts the zero at the end, and the bytes."""
    (length,) = file.take("H")
    raw = file.raw(length)
    if not raw.endswith(b"\0"):
        raise Damaged(f"{file.name} has no name where one should be (byte {file.at - length})")
    return raw[:-1].decode("utf-8", "replace")


def _shape(variables: dict[str, tuple[int, ...]]) -> Shape:
    embeddings = variables.get("decoder/embeddings/weight")
    first = variables.get("encoder/conv1/weight")
    return Shape(
        vocabulary=embeddings[0] if embeddings else None,
        mels=first[1] if first and len(first) == 3 else None,
        encoder_layers=_layers(variables, "encoder"),
        decoder_layers=_layers(variables, "decoder"),
    )


def _layers(variables: dict[str, tuple[int, ...]], side: str) -> int | None:
    pattern = re.compile(rf"{side}/layer_(\d+)/")
    numbers = {int(m[1]) for name in variables if (m := pattern.match(name))}
    return len(numbers) or None
