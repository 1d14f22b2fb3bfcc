"""How much memory this process and those below it take, at the most: proportional set sizes, so that what they share
counts once (PSS, proc_pid_smaps(5))."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

EVERY_S = 0.5


class Peak:
    """Looks twice a second, in a thread, until `stop`."""

    def __init__(self) -> None:
        self._bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The most that was seen, in bytes; at least what the kernel says of this process and of the greatest of those
        that have ended (getrusage(2)), which may have been too short to be seen."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(EVERY_S)
            self._look()
        ended = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return max(self._bytes, ended * 1024)

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        self._bytes = max(self._bytes, sum(_pss(pid) for pid in tree(os.getpid())))


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += tree(int(child))
        except OSError:
            continue
    return found


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
