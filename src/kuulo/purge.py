"""Removes caches of other tools, and nothing else.

By descriptors, folder for folder (openat, unlinkat), so that nothing that turns into a link meanwhile leads out of the
cache. Links in a cache are removed, not followed. What is Kuulo's, what is on another file system, and what others left
in the same folder stays.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kuulo import caches, leftovers
from kuulo.caches import Place
from kuulo.errors import UsageError
from kuulo.leftovers import Leftover

DEEPEST = 200
"""Folders below each other, each of which takes a descriptor while what is below it is removed."""


@dataclass
class Removed:
    """What a purge removed. `disk_bytes` counts what came free: a file that has another name elsewhere takes its place
    on as before. `problems`: what stays, and why."""

    files: int = 0
    bytes: int = 0
    disk_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def chosen(found: Sequence[Leftover], names: Sequence[str], *, everything: bool) -> list[Leftover]:
    """Those of these names; with `everything` all, but of what nothing brings back only what is named. Raises
    UsageError for a name that no cache has."""
    known = {cache.name for cache in caches.CACHES if cache.name}
    for name in names:
        if name not in known:
            raise UsageError(f"no cache is called {name!r}", looked_at=", ".join(sorted(known)), do="kuulo cache list")
    return [one for one in found if one.name in names or (everything and one.cache.kind != caches.KEPT)]


def refusal(
    leftover: Leftover, kuulos: Iterable[Path], environ: Mapping[str, str] = os.environ
) -> tuple[str, str] | None:
    """Why it is not removed, and what to do about it; None when it may be. `kuulos`: folders of Kuulo's own, and files
    that models in its stores are links to."""
    cache, path = leftover.cache, leftover.path
    real = Path(os.path.realpath(path))
    if leftover.link is not None:
        leads = os.path.realpath(leftover.link)
        by = f"look into {leads}, and remove what is a cache there"
        if cache.variable:
            by = f"if all of it is: {cache.variable}={shlex.quote(str(real))} kuulo cache purge {leftover.name}"
        return f"{leftover.link} is a link to {leads}, which may be more than a cache", by
    if not leftover.yours:
        return "it belongs to another user", "ask whose it is"
    for name in caches.TRUSTED:
        for place in caches.places(caches.BY_VARIABLE[name], environ):
            if Path(os.path.realpath(place.path)).is_relative_to(real):
                return f"{real} is no cache's own folder", f"set {cache.variable or name} to another"
    for folder in kuulos:
        other = Path(os.path.realpath(folder))
        if other.is_relative_to(real) or real.is_relative_to(other):
            return f"Kuulo needs it: {folder}", "see `kuulo models list` and `kuulo engines list`"
    for inside in leftovers.others_in(leftover, environ):
        return f"{inside} is in it, which is another tool's or no cache", "remove by hand what you do not need"
    strange = _shared_with(leftover) if leftover.place.named else None
    return (strange, "remove by hand what you do not need") if strange else None


def _shared_with(leftover: Leftover) -> str | None:
    """Why a folder that a variable names may hold other things than this cache. People say NLTK_DATA=/scratch/anna, and
    have corpora of their own there."""
    cache, path = leftover.cache, leftover.path
    if cache.distinct or not path.is_dir():
        return None
    if cache.parts:
        with contextlib.suppress(OSError):
            for entry in sorted(path.iterdir()):
                if not leftovers.is_part(cache, entry.name):
                    return f"{entry} is not {cache.library}'s: so what is beside it may be something else too"
        return None
    words = {cache.name.replace(".", "-").split("-")[0], "cache"}
    if "huggingface" in words:
        words.add("hf")
    own = "/".join([leftover.place.base.name, leftover.place.below]).lower()
    return (
        None if any(word in own for word in words) else f"{path} does not look like {cache.library}'s own by its name"
    )


def remove(leftover: Leftover) -> Removed:
    """Removes it, as far as it goes."""
    sweep = _Sweep()
    try:
        with _opened(leftover.place) as (parent, name):
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent).st_mode):  # a base may be a link
                sweep.file(parent, name)
                return sweep.removed
            no_link = os.O_NOFOLLOW if leftover.place.below else 0
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | no_link, dir_fd=parent)
            try:
                sweep.device = os.fstat(folder).st_dev
                for entry in leftovers.entries(leftover.cache, folder):
                    sweep.entry(folder, entry.name, str(leftover.path / entry.name), 0)
                empty = not _names_in(folder)
            finally:
                os.close(folder)
            if empty and leftover.place.below:
                os.rmdir(name, dir_fd=parent)
    except OSError as error:
        sweep.removed.problems.append(f"{leftover.path}: {error.strerror}")
    return sweep.removed


@contextlib.contextmanager
def _opened(place: Place) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder that has the place, reached without a link below the base, and its name there."""
    *folders, name = Path(place.below).parts or (".",)
    descriptor = os.open(place.base if place.below else place.base.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor, name if place.below else place.base.name
    finally:
        os.close(descriptor)


class _Sweep:
    """One removal: of what is on `device`. What cannot be removed is told, and the rest goes on."""

    def __init__(self) -> None:
        self.removed = Removed()
        self.device = 0
        self._named: set[tuple[int, int]] = set()

    def entry(self, folder: int, name: str, shown: str, depth: int) -> None:
        """Removes an entry of a folder, with all below; `shown`: its path for people."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if status.st_dev != self.device:
                self._stays(shown, "is on another file system")
            elif not stat.S_ISDIR(status.st_mode):
                self.file(folder, name)
            elif depth >= DEEPEST:
                self._stays(shown, f"is more than {DEEPEST} folders deep")
            else:
                self._folder(folder, name, shown, depth)
        except OSError as error:
            self._stays(shown, error.strerror or str(error))

    def file(self, folder: int, name: str) -> None:
        """Removes a file or link. Its place comes free with its last name. Raises OSError."""
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        os.unlink(name, dir_fd=folder)
        key = (status.st_dev, status.st_ino)
        if key not in self._named:
            self.removed.files += 1
            self.removed.bytes += status.st_size
        if status.st_nlink > 1:
            self._named.add(key)
        else:
            self._named.discard(key)
            self.removed.disk_bytes += status.st_blocks * leftovers.BLOCK

    def _folder(self, parent: int, name: str, shown: str, depth: int) -> None:
        before = len(self.removed.problems)
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            status = os.fstat(folder)
            if status.st_dev != self.device:  # it came in the place of what was looked at
                self._stays(shown, "is on another file system")
            else:
                for entry in _names_in(folder):
                    self.entry(folder, entry, f"{shown}/{entry}", depth + 1)
        finally:
            os.close(folder)
        if len(self.removed.problems) == before:
            os.rmdir(name, dir_fd=parent)
            self.removed.disk_bytes += status.st_blocks * leftovers.BLOCK

    def _stays(self, shown: str, why: str) -> None:
        self.removed.problems.append(f"{shown}: {why}")


def _names_in(folder: int) -> list[str]:
    with os.scandir(folder) as listed:
        return [entry.name for entry in listed]
