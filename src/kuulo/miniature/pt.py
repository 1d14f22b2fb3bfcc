"""openai-whisper's checkpoint in float16, as OpenAI's own are: what torch.save would write, without PyTorch.

A zip archive, not compressed: a pickle, `data.pkl`, that builds the tensors, and the bytes of each, `data/NUMBER`. The
pickle is written opcode by opcode, since the functions that it names are PyTorch's.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kuulo.miniature.weights import Whisper

FOLDER = "archive"
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""Of every entry, so that the same weights are the same file."""


@dataclass(frozen=True)
class _Named:
    """A function or class of a module."""

    module: str
    name: str


@dataclass(frozen=True)
class _Call:
    function: _Named
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Stored:
    """A reference to bytes outside the pickle, as torch.load's `persistent_load` takes it."""

    about: tuple[Any, ...]


NO_HOOKS = _Call(_Named("collections", "OrderedDict"), ())
REBUILD = _Named("torch._utils", "_rebuild_tensor_v2")
HALF = _Named("torch", "HalfStorage")


def write(file: Path, whisper: Whisper) -> None:
    """The file. It has no place for alignment heads."""
    arrays = {name: np.ascontiguousarray(array, np.float16) for name, array in whisper.state.items()}
    tensors = {name: _tensor(number, array) for number, (name, array) in enumerate(arrays.items())}
    checkpoint = {"dims": whisper.dims, "model_state_dict": tensors}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", b"\x80\x02" + pickled(checkpoint) + b".")
        _add(archive, "byteorder", b"little")
        for number, array in enumerate(arrays.values()):
            _add(archive, f"data/{number}", array.tobytes())
        _add(archive, "version", b"3\n")


def pickled(value: Any) -> bytes:
    """The opcodes (of protocol 2) that put a value onto the pickle's stack."""
    if isinstance(value, _Named):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, _Call):
        return pickled(value.function) + pickled(value.arguments) + b"R"
    if isinstance(value, _Stored):
        return pickled(value.about) + b"Q"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        raw = value.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw
    if isinstance(value, tuple):
        return b"(" + b"".join(pickled(part) for part in value) + b"t"
    assert isinstance(value, dict), value
    return b"}(" + b"".join(pickled(key) + pickled(part) for key, part in value.items()) + b"u"


def _tensor(number: int, array: Any) -> _Call:
    storage = _Stored(("storage", HALF, str(number), "cpu", array.size))
    strides = tuple(step // array.itemsize for step in array.strides)
    return _Call(REBUILD, (storage, 0, array.shape, strides, False, NO_HOOKS))


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}", LONG_AGO), data)
