"""Small commands with the other programs' names, which call `kuulo as`. They are there only when somebody asks, and
never take the place of a file that is not one of them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo import atomic, commands
from kuulo.errors import UsageError

MARK = "# Made by `kuulo shims install`; `kuulo shims remove` takes it away."
"""The second line of every one, by which it is known."""


@dataclass(frozen=True)
class Shim:
    """One of them. `hides`: the real program of its name on the PATH, where there is one."""

    name: str
    path: Path
    hides: Path | None = None


def text(name: str, python: str = sys.executable) -> str:
    """Its content: -P, so that no file of the current folder is taken for a module."""
    return f'#!/bin/sh\n{MARK}\nexec {shlex.quote(python)} -P -m kuulo as {shlex.quote(name)} -- "$@"\n'


def install(folder: Path, names: Sequence[str] = ()) -> list[Shim]:
    """Write them into a folder, all or those that are named. Raises UsageError, before anything is written, for a
    name that is none and where a file is in the way."""
    wanted = [commands.program(name).name for name in names] or list(commands.PROGRAMS)
    for name in wanted:
        path = folder / name
        if (path.exists() or path.is_symlink()) and not is_ours(path):
            raise UsageError(
                f"there is a real {name} already, and it stays",
                looked_at=str(path),
                do="name another folder, or the commands that you want: kuulo shims install FOLDER NAME ...",
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            atomic.write_bytes(folder / name, text(name).encode("utf-8", "surrogateescape"))
            (folder / name).chmod(0o755)
    except OSError as error:
        raise UsageError(f"the commands cannot be written: {error.strerror}", looked_at=str(folder)) from error
    return [Shim(name, folder / name, real(name)) for name in wanted]


def find(folder: Path | None = None) -> list[Shim]:
    """Those in a folder, or on the PATH."""
    folders = [folder] if folder else [Path(part) for part in os.get_exec_path() if part]
    places = dict.fromkeys(place / name for place in folders for name in commands.PROGRAMS)
    return [Shim(path.name, path, real(path.name)) for path in places if is_ours(path)]


def remove(folder: Path) -> list[Shim]:
    """Take away those in a folder; nothing else there is touched. Raises UsageError when there are none."""
    found = find(folder)
    if not found:
        raise UsageError("no command of Kuulo's is in this folder", looked_at=str(folder), do="kuulo shims list")
    for shim in found:
        shim.path.unlink()
    return found


def is_ours(path: Path) -> bool:
    """Whether a file is one of them."""
    try:
        with path.open("rb") as file:
            return file.read(4096).split(b"\n")[1:2] == [MARK.encode()]
    except OSError:
        return False


def real(name: str) -> Path | None:
    """The real program of that name on the PATH."""
    for folder in os.get_exec_path():
        found = shutil.which(name, path=folder)
        if found and not is_ours(Path(found)):
            return Path(found)
    return None
