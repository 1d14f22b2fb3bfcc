"""llama.cpp's model: one `.gguf` file. The layout is that of ggml/docs/gguf.md: a header, metadata, what tensors there
are, and their data.

The header is read, and every tensor has to lie within the file: a file that was cut is refused before it is loaded.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo.llm.memory import Shape as TextShape
from kuulo.models.binary import Damaged, Reader
from kuulo.models.shape import Shape

NAME = "GGUF (llama.cpp)"
MAGIC = b"GGUF"
VERSIONS = (2, 3)

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

MOST = 1_000_000
"""Metadata entries, tensors: more than any model has."""

LONGEST_TEXT = 100_000_000

# ggml type: (name, values in a block, bytes of a block), from ggml's table type_traits (ggml.c) and gguf-py's constants
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}  # fmt: skip

# general.file_type -> what people call the quantisation, from llama.h's enum llama_ftype
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip

TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class Header:
    """What stands before the data. Of a list in the metadata, `metadata` has its length alone."""

    version: int
    metadata: dict[str, Any]
    tensors: int
    parameters: int
    types: dict[str, int]
    """Bytes of each type of tensor."""


def matches(path: Path) -> bool:
    """Whether the file begins like this format."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def problems(path: Path) -> list[str]:
    """What is wrong with the file; empty when nothing is."""
    try:
        header = read(path)
    except Damaged as error:
        return [str(error)]
    found = header.metadata
    if not found.get("general.architecture"):
        return [f"{path.name} does not say its architecture"]
    if not header.tensors:
        return [f"{path.name} has no weights: it is a vocabulary alone"]
    split = found.get("split.count")
    if isinstance(split, int) and split > 1:
        return [f"{path.name} is one of {split} parts: join them with `llama-gguf-split --merge`"]
    if found["general.architecture"] == "clip" or not found.get("tokenizer.ggml.tokens"):
        return [f"{path.name} is no language model: it has no vocabulary"]
    return []


def shape(path: Path) -> Shape:
    """It is no Whisper."""
    return Shape()


def text_shape(path: Path) -> TextShape:
    """What the header tells of the model; raises Damaged."""
    header = read(path)
    told = header.metadata
    architecture = str(told.get("general.architecture", ""))

    def number(name: str) -> int | None:
        value = told.get(f"{architecture}.{name}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    embedding, heads, layers = number("embedding_length"), number("attention.head_count"), number("block_count")
    kv_heads = number("attention.head_count_kv") or heads
    size = embedding // heads if embedding and heads else None
    key, value = number("attention.key_length") or size, number("attention.value_length") or size
    return TextShape(
        weights_bytes=path.stat().st_size,
        layers=layers,
        key_value=kv_heads * (key + value) if kv_heads and key and value else None,
        context=number("context_length"),
        vocabulary=_length(told.get("tokenizer.ggml.tokens")),
        embedding=embedding,
        architecture=architecture,
        quantisation=FILE_TYPES.get(told.get("general.file_type", -1))
        or max(header.types, key=header.types.__getitem__),
        parameters=header.parameters,
        template=TEMPLATE in told,
    )


def template(path: Path) -> str | None:
    """The chat template, where it has one; raises Damaged."""
    found = read(path).metadata.get(TEMPLATE)
    return found if isinstance(found, str) else None


def read(path: Path) -> Header:
    """The header; raises Damaged, also where a tensor does not lie within the file."""
    with Reader(path) as file:
        if file.raw(4) != MAGIC:
            raise Damaged(f"{file.name} does not begin like a GGUF file")
        (version,) = file.take("I")
        if version not in VERSIONS:
            raise Damaged(f"{file.name} is GGUF of version {version}; known: {', '.join(map(str, VERSIONS))}")
        tensors, entries = file.take("QQ")
        if tensors > MOST or entries > MOST:
            raise Damaged(f"{file.name} says it has {tensors} tensors and {entries} facts, which cannot be")
        metadata = {}
        for _ in range(entries):
            key = _text(file)
            metadata[key] = _value(file)
        return _tensors(file, version, metadata, tensors)


def _tensors(file: Reader, version: int, metadata: dict[str, Any], count: int) -> Header:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise Damaged(f"{file.name} says its alignment is {alignment!r}, which cannot be")
    end, parameters, types = 0, 0, dict[str, int]()
    for _ in range(count):
        name = _text(file)
        (rank,) = file.take("I")
        if not 1 <= rank <= 4:
            raise Damaged(f"{file.name} has a tensor of {rank} dimensions: {name[:60]!r}")
        extents = file.take(f"{rank}Q")
        kind, offset = file.take("IQ")
        if kind not in TENSOR_TYPES:
            raise Damaged(f"{file.name} has a tensor of a kind that is not known ({kind}): take a newer Kuulo")
        called, block, block_bytes = TENSOR_TYPES[kind]
        values = math.prod(extents)
        size = values // block * block_bytes
        types[called] = types.get(called, 0) + size
        parameters += values
        end = max(end, offset + size)
    begin = -(-file.at // alignment) * alignment
    if count and begin + end > file.size:
        raise Damaged(f"{file.name} is truncated: it has {file.size} bytes, and its header says {begin + end}")
    return Header(version, metadata, count, parameters, types)


@dataclass(frozen=True)
class Length:
    """Of a list that was passed over."""

    count: int


def _length(value: Any) -> int | None:
    return value.count if isinstance(value, Length) else None


def _text(file: Reader) -> str:
    (length,) = file.take("Q")
    if length > LONGEST_TEXT:
        raise Damaged(f"{file.name} is truncated, or no GGUF file")
    return file.raw(length).decode("utf-8", "replace")


def _value(file: Reader) -> Any:
    (kind,) = file.take("I")
    if kind == ARRAY:
        return _array(file)
    if kind == STRING:
        return _text(file)
    if kind not in SCALARS:
        raise Damaged(f"{file.name} has a fact of a kind that is not known ({kind})")
    return file.take(SCALARS[kind])[0]


def _array(file: Reader, depth: int = 0) -> Length:
    kind, count = file.take("IQ")
    if kind in SCALARS:
        file.skip(struct.calcsize("<" + SCALARS[kind]) * count)
    elif kind == STRING:
        for _ in range(count):
            (length,) = file.take("Q")
            file.skip(length)
    elif kind == ARRAY and depth < 4:
        for _ in range(count):
            _array(file, depth + 1)
    else:
        raise Damaged(f"{file.name} has a list of a kind that is not known ({kind})")
    return Length(count)
