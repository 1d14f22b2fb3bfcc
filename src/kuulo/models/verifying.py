"""Reads the files of many models again, several at a time, and remembers which were right.

Every file that was found right is a line in a state file, at once, so that a verify of terabytes that was stopped goes
on where it was. The line says what the file was like: where nothing of that has changed since (its size, its times, its
inode, and the digest that the manifest wants), it need not be read again for as long as the caller says. A file that
was written to since has another time, whatever it was set to: the time of change (ctime) cannot be set. What a disk
lost without anybody writing is seen by reading alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kuulo import atomic
from kuulo.models import check, files, paths
from kuulo.models.files import FileState, Progress
from kuulo.models.manifest import ModelFile, ModelRef

MOST_THREADS = 8
"""One reads and hashes 0.5 to 2 GB a second; more than this no disk gives."""


@dataclass(frozen=True)
class Mark:
    """A file that was right, as it was then. `verified`: seconds since 1970."""

    sha256: str
    bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    verified: float


class Marks:
    """The state file: a JSON line for each file that was right; of two for the same file the later counts. Without a
    path nothing is remembered."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._marks: dict[str, Mark] = {}
        self._lock = threading.Lock()
        self.trouble: OSError | None = None
        if path is not None:
            self._read(path)

    def _read(self, path: Path) -> None:
        lines, line = 0, ""
        with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                lines += 1
                with contextlib.suppress(ValueError, TypeError, KeyError):  # the last line of one that was killed
                    name, mark = _parsed(line)
                    self._marks[name] = mark
        torn = line and not line.endswith("\n")  # what is added would be of the same line
        if torn or lines > 2 * len(self._marks) + 100:
            with contextlib.suppress(OSError):
                atomic.write_bytes(path, b"".join(_line(name, mark) for name, mark in self._marks.items()))

    def since(self, path: Path, file: ModelFile, after: float) -> Mark | None:
        """The mark of a file that was read after that time and has not changed since; else None. Raises OSError."""
        mark = self._marks.get(os.path.realpath(path))
        if mark is None or mark.verified < after or mark.verified > time.time():
            return None
        return mark if _same(mark, of(path, file, mark.verified)) else None

    def add(self, path: Path, mark: Mark) -> None:
        """Remembers a file. Where the state file cannot be written, `trouble` says why."""
        if self.path is None:
            return
        name = os.path.realpath(path)
        with self._lock:
            self._marks[name] = mark
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:  # in one piece: others may be writing too
                    file.write(_line(name, mark))
            except OSError as error:
                self.trouble = error


def of(path: Path, file: ModelFile, verified: float) -> Mark:
    """The mark that the file would have now. Raises OSError."""
    status = path.stat()
    return Mark(file.sha256, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, verified)


def _same(one: Mark, other: Mark) -> bool:
    return one == replace(other, verified=one.verified)


def _parsed(line: str) -> tuple[str, Mark]:
    told = json.loads(line)
    size, mtime, ctime, inode = (int(told[key]) for key in ("bytes", "mtime_ns", "ctime_ns", "inode"))
    return str(told["path"]), Mark(str(told["sha256"]), size, mtime, ctime, inode, float(told["verified"]))


def _line(path: str, mark: Mark) -> bytes:
    return json.dumps({"path": path, **asdict(mark)}).encode() + b"\n"


@dataclass(frozen=True)
class Verified:
    """A model that was verified. `problems`: what its headers say is wrong. `passed_over`: files that were not read, by
    name, and when they were read last (seconds since 1970)."""

    ref: ModelRef
    states: tuple[FileState, ...]
    problems: tuple[str, ...]
    passed_over: dict[str, float]

    @property
    def sound(self) -> bool:
        return not self.problems and all(state.state in ("ok", "extra") for state in self.states)


class Stopped(Exception):
    """The threads are to end."""


def verify(
    refs: Sequence[ModelRef], marks: Marks, *, after: float, threads: int, progress: Progress | None = None
) -> Iterator[Verified]:
    """Verifies models in their order. Files that `marks` knows from after that time are not read. `progress` is called
    from several threads. When it is left early, what was found right up to then is remembered."""
    stop = threading.Event()

    def step(count: int) -> None:
        if stop.is_set():
            raise Stopped
        if progress:
            progress(count)

    def look(ref: ModelRef, file: ModelFile) -> tuple[FileState, float | None]:
        if stop.is_set():
            raise Stopped
        return _look(ref, file, marks, after, step)

    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            waiting: list[list[Future[tuple[FileState, float | None]]]] = [
                [pool.submit(look, ref, file) for file in ref.files] for ref in refs
            ]
            for ref, futures in zip(refs, waiting, strict=True):
                found = [future.result() for future in futures]
                yield _verified(ref, found)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _look(
    ref: ModelRef, file: ModelFile, marks: Marks, after: float, progress: Progress
) -> tuple[FileState, float | None]:
    """The state of a file, and when it was read where that was before."""
    path = ref.folder / file.path
    before: Mark | None = None
    with contextlib.suppress(OSError):
        if paths.is_inside(ref.folder, file.path):
            mark = marks.since(path, file, after)
            if mark is not None:
                progress(file.bytes)
                return FileState(file.path, "ok", file.bytes), mark.verified
            before = of(path, file, time.time())
    state = files.state(ref.folder, file, progress)
    if state.state == "ok" and before is not None:
        with contextlib.suppress(OSError):
            if _same(before, of(path, file, 0)):  # else somebody wrote while it was read
                marks.add(path, before)
    return state, None


def _verified(ref: ModelRef, found: Sequence[tuple[FileState, float | None]]) -> Verified:
    states = [state for state, _ in found]
    states += files.beside(ref)
    problems = check.problems(ref.format, ref.path) if all(state.state == "ok" for state in states) else []
    passed_over = {state.path: when for state, when in found if when is not None}
    return Verified(ref, tuple(states), tuple(problems), passed_over)
