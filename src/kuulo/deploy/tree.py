"""The files of a version: what they should be, what they are, and how they come to lie there, whole or not at all."""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kuulo import atomic
from kuulo.errors import CannotRun

MANIFEST = "manifest.json"
SCHEMA = 1
COMPILED = "lib"
"""The folder whose Python is compiled, since users cannot write there."""


@dataclass(frozen=True)
class Entry:
    """A file, or a link to `target`."""

    data: bytes = b""
    mode: int = 0o644
    target: str | None = None

    @property
    def digest(self) -> str:
        """What tells it from another: its kind, whether it can be started, and what is in it."""
        if self.target is not None:
            return f"link {self.target}"
        return f"{self.mode & 0o777:o} {hashlib.sha256(self.data).hexdigest()}"


Tree = Mapping[str, Entry]
"""By path below the version's folder, with `/` between the parts."""


@dataclass(frozen=True)
class Difference:
    """What one tree has otherwise than another, as sorted paths."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> Difference:
    """Of two manifests: path -> digest."""
    return Difference(
        tuple(sorted(set(after) - set(before))),
        tuple(sorted(path for path in set(before) & set(after) if before[path] != after[path])),
        tuple(sorted(set(before) - set(after))),
    )


def digests(tree: Tree) -> dict[str, str]:
    """The manifest of a tree."""
    return {path: entry.digest for path, entry in sorted(tree.items())}


def manifest(folder: Path) -> dict[str, str]:
    """What a version was when it was written. Raises CannotRun."""
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_bytes())
        files: dict[str, str] = said["files"]
        return files
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotRun(
            f"the version {folder.name} cannot be read: {error}",
            looked_at=str(path),
            do="kuulo deploy apply makes a new one",
        ) from error


def on_disk(folder: Path) -> dict[str, str]:
    """The manifest of what lies in a version's folder now; what Python compiled is left out. Raises OSError."""
    found = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in [*files, *(n for n in folders if Path(root, n).is_symlink())]:
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if relative == MANIFEST:
                continue
            if path.is_symlink():
                found[relative] = Entry(target=str(path.readlink())).digest
            else:
                found[relative] = Entry(path.read_bytes(), stat.S_IMODE(path.stat().st_mode)).digest
    return found


def write(tree: Tree, folder: Path) -> None:
    """Put a tree where no folder is yet. Everybody may read it, whatever the umask. Raises CannotRun, also when
    somebody else made the folder meanwhile; nothing is left behind then."""
    staged = folder.parent / f".new-{uuid.uuid4().hex}"
    try:
        staged.mkdir(parents=True)
        for path, entry in tree.items():
            _write(staged / path, entry)
        atomic.write_json(staged / MANIFEST, {"schema": SCHEMA, "files": digests(tree)})
        compileall.compile_dir(
            staged / COMPILED, quiet=2, stripdir=str(staged), prependdir=str(folder), workers=1
        )  # fmt: skip
        _open_to_all(staged)
        staged.rename(folder)
    except OSError as error:
        raise CannotRun(
            f"the version cannot be written: {error.strerror}",
            looked_at=str(folder),
            do="somebody else may have deployed at the same time: kuulo deploy plan"
            if folder.exists()
            else "run it as who owns the folder, or name another in [deploy] of the site's file",
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _write(path: Path, entry: Entry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.target is not None:
        path.symlink_to(entry.target)
        return
    path.write_bytes(entry.data)
    path.chmod(entry.mode)


def _open_to_all(folder: Path) -> None:
    for root, folders, files in os.walk(folder):
        Path(root).chmod(0o755)
        for name in [*folders, *files]:
            path = Path(root, name)
            if path.name == MANIFEST or path.suffix == ".pyc":
                path.chmod(0o644)
