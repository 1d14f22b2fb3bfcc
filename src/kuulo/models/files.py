"""A model's files: their digests, and whether they are still what the manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kuulo.models import check
from kuulo.models.manifest import MANIFEST, ModelFile, ModelRef

CHUNK = 1 << 20

Progress = Callable[[int], None]
"""Called with the number of bytes that were just dealt with."""


@dataclass(frozen=True)
class FileState:
    """What `verify` found of one file: ok, missing, changed, unreadable, or extra (not in the manifest)."""

    path: str
    state: str
    bytes: int


def verify(ref: ModelRef, progress: Progress | None = None) -> Iterator[FileState]:
    """Reads every file of a model again and says whether it is what the manifest says; files beside them last."""
    for file in ref.files:
        path = ref.folder / file.path
        try:
            same = path.stat().st_size == file.bytes and hash_file(path, progress) == file.sha256
            yield FileState(file.path, "ok" if same else "changed", file.bytes)
        except FileNotFoundError:
            yield FileState(file.path, "missing", file.bytes)
        except OSError:
            yield FileState(file.path, "unreadable", file.bytes)
    known = {file.path for file in ref.files} | {MANIFEST}
    for path in sorted(ref.folder.iterdir()):
        if path.name not in known:
            yield FileState(path.name, "extra", path.stat().st_size if path.is_file() else 0)


def size_problems(ref: ModelRef) -> list[str]:
    """Files whose size is not what the manifest says."""
    found = []
    for file in ref.files:
        path = ref.folder / file.path
        if not path.is_file():
            found.append(f"{file.path} is missing")
        elif path.stat().st_size != file.bytes:
            found.append(f"{file.path} has {path.stat().st_size} bytes, and {file.bytes} when it was added")
    return found


def hash_files(format_: str, path: Path, progress: Progress | None = None) -> tuple[ModelFile, ...]:
    """The files of a model with their digests and sizes."""
    return tuple(
        ModelFile(file.name, hash_file(file, progress), file.stat().st_size) for file in check.files(format_, path)
    )


def hash_file(path: Path, progress: Progress | None = None) -> str:
    """sha256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if progress:
                progress(len(chunk))
    return digest.hexdigest()
