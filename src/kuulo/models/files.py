"""A model's files: their digests, and whether they are still what the manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kuulo.models import check, paths
from kuulo.models.manifest import MANIFEST, ModelFile, ModelRef

CHUNK = 1 << 20

Progress = Callable[[int], None]
"""Called with the number of bytes that were just dealt with."""


@dataclass(frozen=True)
class FileState:
    """What `verify` found of one file: ok, missing, changed, unreadable, outside (by a sub-folder that is a link), or
    extra (not in the manifest)."""

    path: str
    state: str
    bytes: int


def verify(ref: ModelRef, progress: Progress | None = None) -> Iterator[FileState]:
    """Reads every file of a model again and says whether it is what the manifest says; files beside them last."""
    for file in ref.files:
        yield state(ref.folder, file, progress)
    yield from beside(ref)


def state(folder: Path, file: ModelFile, progress: Progress | None = None) -> FileState:
    """Reads one file of the model in `folder` again."""
    return FileState(file.path, _state(folder, file, progress), file.bytes)


def beside(ref: ModelRef) -> list[FileState]:
    """What lies beside a model's files."""
    known = {file.path for file in ref.files} | {MANIFEST}
    folders = {str(parent) for name in known for parent in PurePosixPath(name).parents}
    return list(_extra(ref.folder, known, folders))


def _state(folder: Path, file: ModelFile, progress: Progress | None) -> str:
    path = folder / file.path
    try:
        if not paths.is_inside(folder, file.path):
            return "outside"
        same = path.stat().st_size == file.bytes and hash_file(path, progress) == file.sha256
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "unreadable"
    return "ok" if same else "changed"


def _extra(folder: Path, known: set[str], folders: set[str], below: str = "") -> Iterator[FileState]:
    for path in sorted(folder.iterdir()):
        name = f"{below}{path.name}"
        if name in folders and path.is_dir() and not path.is_symlink():
            yield from _extra(path, known, folders, f"{name}/")
        elif name not in known:
            yield FileState(name, "extra", path.stat().st_size if path.is_file() else 0)


def size_problems(ref: ModelRef) -> list[str]:
    """Files whose size is not what the manifest says."""
    found = []
    for file in ref.files:
        path = ref.folder / file.path
        if not paths.is_inside(ref.folder, file.path):
            found.append(f"{file.path} is outside the model's folder")
        elif not path.is_file():
            found.append(f"{file.path} is missing")
        elif path.stat().st_size != file.bytes:
            found.append(f"{file.path} has {path.stat().st_size} bytes, and {file.bytes} when it was added")
    return found


def hash_files(format_: str, path: Path, progress: Progress | None = None) -> tuple[ModelFile, ...]:
    """The files of a model with their digests and sizes."""
    return tuple(
        ModelFile(name, hash_file(file, progress), file.stat().st_size)
        for name, file in zip(check.names(format_, path), check.files(format_, path), strict=True)
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
