"""Writes GGUF files, version 3: metadata and tensors, little-endian (ggml/docs/gguf.md)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 32
STRING, ARRAY = 8, 9
TYPES: dict[str, tuple[int, str]] = {
    "u32": (4, "I"),
    "i32": (5, "i"),
    "f32": (6, "f"),
    "bool": (7, "?"),
    "u64": (10, "Q"),
}
F32, F16 = 0, 1


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(value: Any) -> bytes:
    """A value with its type before it: a text, a bool, a whole number (u32), a float (f32), or a list of one kind."""
    if isinstance(value, list):
        kind, layout = kind_of(value[0])
        if type(value[0]) is int:  # llama.cpp wants token types so
            kind, layout = TYPES["i32"]
        items = [struct.pack("<" + layout, v) if layout else text(v) for v in value]
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(items)
    return struct.pack("<I", kind_of(value)[0]) + bare(value)


def kind_of(value: Any) -> tuple[int, str]:
    if isinstance(value, str):
        return STRING, ""
    if isinstance(value, bool):
        return TYPES["bool"]
    return TYPES["f32"] if isinstance(value, float) else TYPES["i32" if value < 0 else "u32"]


def bare(value: Any) -> bytes:
    if isinstance(value, str):
        return text(value)
    return struct.pack("<" + kind_of(value)[1], value)


def write(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """The file. A tensor is float32 or float16, its shape as numpy has it."""
    out = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    out += [text(key) + entry(value) for key, value in metadata.items()]
    offset, data = 0, []
    for name, tensor in tensors.items():
        kind = F16 if tensor.dtype == np.float16 else F32
        extents = tensor.shape[::-1]
        out.append(text(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind, offset))
        padded = tensor.tobytes()
        padded += b"\0" * (-len(padded) % ALIGNMENT)
        data.append(padded)
        offset += len(padded)
    head = b"".join(out)
    path.write_bytes(head + b"\0" * (-len(head) % ALIGNMENT) + b"".join(data))


def small(path: Path, *, layers: int = 2, context: int = 2048, embedding: int = 64, **more: Any) -> Path:
    """A model that no engine could use, with all that is read of one."""
    metadata = {
        "general.architecture": "llama",
        "general.file_type": 1,
        "llama.context_length": context,
        "llama.embedding_length": embedding,
        "llama.block_count": layers,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["a", "b", "c"],
        "tokenizer.chat_template": "{{ messages }}",
        **more,
    }
    tensors = {f"blk.{n}.attn_q.weight": np.zeros((embedding, embedding), np.float16) for n in range(layers)}
    tensors["token_embd.weight"] = np.zeros((3, embedding), np.float32)
    write(path, {k: v for k, v in metadata.items() if v is not None}, tensors)
    return path
