"""What other tools left in a home: their caches, with sizes, and when they were last used.

Reads names and sizes, never a file's content. Links are not followed: what one leads to is not the cache's. Sizes are
those of files (`bytes`) and of what they take on the disk (`disk_bytes`); a file with several names counts once.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kuulo import caches
from kuulo.caches import Cache, Place

BLOCK = 512
"""Bytes in a block of st_blocks, whatever the file system's are. (inode(7))"""

TROUBLES = 5
"""How many paths that cannot be read are told of each cache."""


@dataclass(frozen=True)
class Leftover:
    """A cache that is there. `path`: its folder or file. `link`: the part of the path that is a link to elsewhere,
    which is why nothing was counted. `yours`: whether it belongs to who asks. `last_used`: seconds since 1970, the
    newest time at which one of its files was read or written, where the file system keeps such times. `unreadable`:
    paths that could not be counted. `whole`: whether all of it was counted."""

    cache: Cache
    place: Place
    bytes: int = 0
    disk_bytes: int = 0
    files: int = 0
    last_used: float | None = None
    link: Path | None = None
    yours: bool = True
    unreadable: tuple[str, ...] = ()
    whole: bool = True

    @property
    def name(self) -> str:
        return self.cache.name

    @property
    def path(self) -> Path:
        return self.place.path


def find(environ: Mapping[str, str] = os.environ, most_files: float = float("inf")) -> list[Leftover]:
    """The caches of other tools that hold something, with these variables; the largest first, then what no purge of all
    takes. Of each, no more than `most_files` are counted, for who has no time. Never raises."""
    seen: set[tuple[int, int]] = set()
    paths: set[Path] = set()
    found = []
    for cache in caches.CACHES:
        for place in caches.places(cache, environ) if cache.name else ():
            if place.path in paths:
                continue
            leftover = _look(cache, place, seen, most_files)
            if leftover is not None and (leftover.yours or not _is_temporary(place, environ)):
                paths.add(place.path)
                found.append(leftover)
    return sorted(found, key=lambda one: (one.cache.kind == caches.KEPT, -one.disk_bytes, one.name))


def _is_temporary(place: Place, environ: Mapping[str, str]) -> bool:
    """Whether it is in the temporary folder, where other users have theirs too."""
    return any(place.path.is_relative_to(t.path) for t in caches.places(caches.BY_VARIABLE["TMPDIR"], environ))


def entries(cache: Cache, folder: int | Path) -> list[os.DirEntry[str]]:
    """What in the cache's folder (a path or a descriptor) is its library's. Raises OSError."""
    with os.scandir(folder) as listed:
        return [entry for entry in sorted(listed, key=lambda entry: entry.name) if is_part(cache, entry.name)]


def is_part(cache: Cache, name: str) -> bool:
    """Whether what has that name in the cache's folder is its library's."""
    return not cache.parts or any(fnmatch.fnmatchcase(name, part) for part in cache.parts)


def link_in(place: Place) -> Path | None:
    """The first part of the path, below its base, that is a link."""
    path = place.base
    for part in Path(place.below).parts:
        path = path / part
        if os.path.islink(path):  # noqa: PTH114 - which answers also where it may not look
            return path
    return None


def others_in(leftover: Leftover, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """What is inside it of another library, or what nothing brings back, and would be taken with it."""
    own, found = set(), []
    with contextlib.suppress(OSError):
        own = {entry.name for entry in entries(leftover.cache, leftover.path)}
    for cache in caches.CACHES:
        if cache.name and cache is not leftover.cache and (cache.kind == caches.KEPT or not _same(cache, leftover)):
            for path in (place.path for place in caches.places(cache, environ)):
                inside = path != leftover.path and path.is_relative_to(leftover.path) and os.path.lexists(path)
                if inside and path.relative_to(leftover.path).parts[0] in own:
                    found.append(path)
    return found


def _same(cache: Cache, leftover: Leftover) -> bool:
    return cache.library == leftover.cache.library


@dataclass
class _Count:
    """What was counted so far. `seen`: files with several names, of all caches."""

    seen: set[tuple[int, int]]
    most: float
    bytes: int = 0
    disk_bytes: int = 0
    files: int = 0
    last_used: float | None = None
    unreadable: list[str] = field(default_factory=list)

    def add(self, status: os.stat_result) -> None:
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in self.seen:
                return
            self.seen.add((status.st_dev, status.st_ino))
        self.disk_bytes += status.st_blocks * BLOCK
        if not stat.S_ISDIR(status.st_mode):
            self.bytes += status.st_size
            self.files += 1
            self.last_used = max(self.last_used or 0.0, status.st_atime, status.st_mtime)

    def trouble(self, path: str) -> None:
        if len(self.unreadable) < TROUBLES:
            self.unreadable.append(path)


def _look(cache: Cache, place: Place, seen: set[tuple[int, int]], most: float) -> Leftover | None:
    link = link_in(place)
    if link is not None:
        return Leftover(cache, place, link=link) if os.path.lexists(place.path) else None
    try:
        status = place.path.stat()  # the base may be a link: the user chose it
    except OSError:
        return None
    count = _Count(seen, most)
    if not stat.S_ISDIR(status.st_mode):
        count.add(status)
    else:
        try:
            for entry in entries(cache, place.path):
                _walk(entry, status.st_dev, count)
        except OSError:
            count.trouble(str(place.path))
    if not count.files and not count.unreadable:
        return None
    return Leftover(
        cache, place, count.bytes, count.disk_bytes, count.files, count.last_used,
        yours=status.st_uid == os.getuid(), unreadable=tuple(count.unreadable), whole=count.files < count.most,
    )  # fmt: skip


def _walk(first: os.DirEntry[str], device: int, count: _Count) -> None:
    """Counts an entry and all below, on the same file system."""
    waiting = [first]
    while waiting and count.files < count.most:
        entry = waiting.pop()
        try:
            status = entry.stat(follow_symlinks=False)
            if status.st_dev != device:
                count.trouble(entry.path)
                continue
            count.add(status)
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(entry.path) as below:
                    waiting.extend(below)
        except OSError:
            count.trouble(entry.path)


@dataclass(frozen=True)
class Process:
    """A running process that has a cache's file open, or in its memory."""

    pid: int
    name: str
    path: str


def users(paths: Iterable[Path]) -> list[tuple[Path, Process]]:
    """Processes that use files at or below one of the paths, with that path; of others' processes only root sees what
    they have open."""
    real = {os.path.realpath(path): path for path in paths}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        used = {at: name for name in _open_in(folder) for at in real if name == at or name.startswith(f"{at}/")}
        with contextlib.suppress(OSError):
            for at, name in used.items():
                command = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
                found.append((real[at], Process(int(folder.name), command, name)))
    return sorted(found, key=lambda one: one[1].pid)


def _open_in(process: Path) -> Iterator[str]:
    """Paths that a process has: its folder, open files, and what is mapped into its memory."""
    with contextlib.suppress(OSError):
        for descriptor in [process / "cwd", *(process / "fd").iterdir()]:
            with contextlib.suppress(OSError):
                yield str(descriptor.readlink())
    with contextlib.suppress(OSError), (process / "maps").open(encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            name = line.rstrip("\n").partition("/")[2]
            if name:
                yield f"/{name}"
