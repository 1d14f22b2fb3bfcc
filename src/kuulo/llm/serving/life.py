"""When a server ends: told to, after a time without requests, before its job's end, or with its engine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from kuulo.errors import KuuloError

GRACE_S = 10.0
"""How long answers that are being made have when a server is to end. Slurm kills 30 s after it has told."""

BEFORE_END_S = 45.0
"""How long before its job's end a server stops by itself, where nobody tells it."""

LOOK_S = 0.5


class Life:
    """The life of a server. `has_died`: whether its engine has."""

    def __init__(
        self, idle_s: float | None, ends_by: float | None, has_died: Callable[[], bool] = lambda: False
    ) -> None:
        self.idle_s, self.ends_by = idle_s, ends_by
        self._has_died = has_died
        self.told = asyncio.Event()
        self.ending = asyncio.Event()
        """Answers have to be broken off now."""
        self.why = ""
        self.failed = False
        self._busy = 0
        self._last = time.monotonic()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Meanwhile the server is not idle."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._last = time.monotonic()

    @property
    def busy(self) -> bool:
        return self._busy > 0

    def end(self, why: str, *, failed: bool = False) -> None:
        """Have the server end; the first reason counts."""
        if not self.told.is_set():
            self.why, self.failed = why, failed
            self.told.set()

    async def watch(self) -> None:
        """Until there is a reason to end; then answers have a moment."""
        while not self.told.is_set():
            self._look()
            try:
                await asyncio.wait_for(self.told.wait(), LOOK_S)
            except TimeoutError:
                continue
        try:
            async with asyncio.timeout(0 if self.failed else GRACE_S):
                while self.busy:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        self.ending.set()

    def _look(self) -> None:
        if self._has_died():
            self.end("its engine has died", failed=True)
        elif self.idle_s is not None and not self.busy and time.monotonic() - self._last >= self.idle_s:
            self.end(f"nobody asked anything for {self.idle_s:g} s")
        elif self.ends_by is not None and time.time() >= self.ends_by - BEFORE_END_S:
            self.end("its job is over")


def ends_by(environ: Mapping[str, str] = os.environ) -> float | None:
    """When the Slurm job that we are in is over, in POSIX seconds; None outside, or where nobody knows."""
    from kuulo.schedulers import slurm

    job = environ.get("SLURM_JOB_ID", "")
    if not job.isdigit():
        return None
    said = environ.get("SLURM_JOB_END_TIME", "")
    if said.isdigit():
        return float(said)
    try:
        state = slurm.states([job]).get((job, None))
    except KuuloError:
        return None
    return state.ends_by if state else None
