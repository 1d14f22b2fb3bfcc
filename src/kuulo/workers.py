"""A worker process: what it has been given and what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from kuulo import engines, runtimes, wire
from kuulo.runtimes import Runtime
from kuulo.work import Given, Work

STOP_SECONDS = 1.0
"""How long workers may take to end when they were told to, before they are killed."""


class Loop(Protocol):
    """What a worker needs of the run that has it. `post` may be called from any thread."""

    scratch: Path
    log: IO[bytes]

    def post(self, what: Callable[..., None], *arguments: Any) -> None: ...
    def heard_from(self, worker: Worker, event: Mapping[str, Any]) -> None: ...
    def gone(self, worker: Worker) -> None: ...


class Worker:
    """A worker process. `room` is how many clips it may have at a time, and `limit` the most of that."""

    def __init__(self, run: Loop, task: wire.Task, runtime: Runtime, limit: int | None = None) -> None:
        self.task = task
        self.clips: dict[str, Given] = {}
        self.ready = False
        self.finished = False
        self.ending = False
        self.room = 0
        self.limit = limit
        self.hello: dict[str, Any] = {}
        self._run = run
        named = engines.spec(task.engine).files_of(task.raw).values()
        reads = [Path(path) for path in (task.model_path, *named) if path]
        self.process = runtimes.start(runtime, run.scratch, run.log, reads)
        self.say(wire.encode_task(task))
        threading.Thread(target=self._listen, daemon=True).start()

    def is_ready(self, parallel: int) -> None:
        """It takes clips from now on: `parallel` in work, and a few that wait, so that it is never idle."""
        self.ready = True
        self.room = self.limit or parallel + max(1, parallel // 4)

    def give(self, given: Given) -> None:
        self.clips[given.clip.id] = given
        self.say(wire.encode_clip(given.clip))

    def find(self, id_: str) -> tuple[Given | None, Work | None]:
        """What an event's id speaks of: a clip that this worker has, and the recording if it is one's."""
        for given in self.clips.values():
            for work in given.works:
                if work.id == id_:
                    return given, work
        return self.clips.get(id_), None

    def end(self) -> None:
        """Nothing more will come."""
        if not self.ending:
            self.ending = True
            self.say(wire.encode("end", {}))

    def say(self, line: bytes) -> None:
        """Send a line. A worker that is gone is noticed where its answers are read."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                event = wire.decode(line)
            except wire.WireError:  # nothing that it says can be trusted any more
                self.signal(signal.SIGKILL)
                break
            self._run.post(self._run.heard_from, self, event)
        self.process.stdout.close()
        self.process.wait()
        self._run.post(self._run.gone, self)

    def signal(self, how: signal.Signals) -> None:
        """To the whole group: an engine may have started programs of its own."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)

    def death(self) -> str:
        """How it died, for a sentence: "was killed (SIGKILL, ...)"."""
        code = self.process.returncode
        if code is None or code >= 0:
            return f"stopped (exit code {code})"
        name = signal.Signals(-code).name
        return f"was killed ({name}, mostly for lack of memory)" if name == "SIGKILL" else f"was killed ({name})"


class Aside:
    """A worker beside the recognition, for what a recording needs once, as speech detection. It is started with its
    first clip, and a few clips at a time are with it, so that it is never idle."""

    AT_ONCE = 2

    def __init__(self, run: Loop, task: wire.Task, runtime: Runtime) -> None:
        self._run, self._task, self._runtime = run, task, runtime
        self._waiting: deque[Given] = deque()
        self.worker: Worker | None = None

    def add(self, given: Given) -> None:
        if self.worker is None:
            self.worker = Worker(self._run, self._task, self._runtime)
        self._waiting.append(given)

    def hand_out(self) -> None:
        """Give it what waits, as far as it has room."""
        if self.worker and self.worker.ready:
            while self._waiting and len(self.worker.clips) < self.AT_ONCE:
                self.worker.give(self._waiting.popleft())

    @property
    def busy(self) -> bool:
        """Whether something is in work or waits."""
        return bool(self._waiting or (self.worker and self.worker.clips))


def kill(worker: Worker) -> None:
    """End it at once, and wait until it is gone, with what it held."""
    worker.signal(signal.SIGKILL)
    worker.process.wait()
    assert worker.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.close()


def stop(workers: Iterable[Worker]) -> None:
    """End all: those that were told that nothing more comes get a moment, the others none."""
    several = list(workers)
    deadline = time.monotonic() + STOP_SECONDS
    for worker in several:
        if not worker.ending:
            worker.signal(signal.SIGTERM)
    for worker in several:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.signal(signal.SIGKILL)
            worker.process.wait()
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            worker.process.stdin.close()
