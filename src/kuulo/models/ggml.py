"""whisper.cpp's model: one `.bin` file. The layout is that of its models/convert-pt-to-ggml.py.

whisper.cpp itself gives an empty transcript and no error for a truncated file, so every tensor's header is
walked.
"""

from __future__ import annotations

import math
from pathlib import Path

from kuulo.models.binary import Damaged, Reader
from kuulo.models.shape import Shape

MAGIC = 0x67676D6C
NAME = "ggml (whisper.cpp)"

DIMENSIONS = (
    "n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer",
    "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer", "n_mels", "ftype",
)  # fmt: skip

# ggml type: (values in a block, bytes of a block), from ggml's block structs
TENSOR_TYPES: dict[int, tuple[int, int]] = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
}

# Tensors of a Whisper: outside the layers, in an encoder layer, in a decoder layer
TENSORS = (11, 15, 24)


def matches(path: Path) -> bool:
    """Whether the file begins like this format."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC.to_bytes(4, "little")


def problems(path: Path) -> list[str]:
    """What is wrong with the file; empty when nothing is."""
    try:
        with Reader(path) as file:
            dims = _dimensions(file)
            _skip_filters_and_vocabulary(file, dims)
            found = _walk(file)
    except Damaged as error:
        return [str(error)]
    outside, encoder, decoder = TENSORS
    expected = outside + encoder * dims["n_audio_layer"] + decoder * dims["n_text_layer"]
    if found < expected:
        return [f"{path.name} has {found} tensors of {expected}: it is truncated"]
    return []


def shape(path: Path) -> Shape:
    """The model's dimensions; raises Damaged."""
    with Reader(path) as file:
        dims = _dimensions(file)
    return Shape(dims["n_vocab"], dims["n_mels"], dims["n_audio_layer"], dims["n_text_layer"])


def _dimensions(file: Reader) -> dict[str, int]:
    (magic,) = file.take("I")
    if magic != MAGIC:
        raise Damaged(f"{file.name} does not begin like a ggml file (found {magic:#010x}, not {MAGIC:#010x})")
    dims = dict(zip(DIMENSIONS, file.take("11i"), strict=True))
    for name, value in dims.items():
        if name != "ftype" and not 0 < value < 1_000_000:
            raise Damaged(f"{file.name} says {name} is {value}, which cannot be")
    if dims["n_mels"] not in (80, 128):
        raise Damaged(f"{file.name} says it has {dims['n_mels']} mel bands; Whisper has 80 or 128")
    return dims


def _skip_filters_and_vocabulary(file: Reader, dims: dict[str, int]) -> None:
    mels, bins = file.take("2i")
    if mels != dims["n_mels"] or not 0 < bins < 10_000:
        raise Damaged(f"{file.name} has mel filters of {mels} by {bins} for {dims['n_mels']} mel bands")
    file.skip(4 * mels * bins)
    (tokens,) = file.take("i")
    if not 0 <= tokens <= dims["n_vocab"]:
        raise Damaged(f"{file.name} has {tokens} tokens for a vocabulary of {dims['n_vocab']}")
    for _ in range(tokens):
        (length,) = file.take("I")
        file.skip(length)


def _walk(file: Reader) -> int:
    """How many tensors there are, all of them complete."""
    count = 0
    while file.at < file.size:
        rank, length, kind = file.take("3i")
        if not 1 <= rank <= 4 or not 0 < length < 256 or kind not in TENSOR_TYPES:
            raise Damaged(f"{file.name} has no tensor where one should begin (byte {file.at - 12})")
        extents = file.take(f"{rank}i")
        file.skip(length)
        block, block_bytes = TENSOR_TYPES[kind]
        file.skip(math.prod(extents) // block * block_bytes)
        count += 1
    return count
