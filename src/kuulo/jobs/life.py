"""One run of a task on its node, whatever it does there: what it says of itself in the job's folder, and who stops it.

It is told by SIGUSR1 that its time is nearly over or that others need the node: then it stops in good order and ends
with the exit code AGAIN, which asks the scheduler to queue it again. When its time is over and it came no further since
it was started, it does not ask: the next run would come no further either.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

from kuulo import machine
from kuulo.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED
from kuulo.jobs.folder import TaskLog
from kuulo.memory import Peak
from kuulo.schedulers.base import AGAIN, WARNING_S

SAY_EVERY_S = 10.0
KILLED_TWICE = "its task was killed twice at the same place"
NO_FURTHER = "the time limit was over before anything was done"
MORE_TIME = "more time: --time with kuulo jobs retry"

EARLY_S = 90.0
"""The scheduler may warn so much earlier than it was asked to: Slurm up to a minute, and it looks every half minute."""


class Life:
    """A task's run, from its start to its end, for its file in the job's folder. `minutes`: its time limit, None where
    that is not known."""

    def __init__(self, log: TaskLog, round_: int, minutes: int | None) -> None:
        self._log, self._round, self._minutes = log, round_, minutes
        self._memory = Peak()
        self._began = time.monotonic()

    def starts(self, **fields: Any) -> None:
        """Say where it runs, and what it was given. Raises OSError."""
        array = os.environ.get("SLURM_ARRAY_JOB_ID")
        id_ = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
        self._log.say(
            "starts",
            round=self._round,
            host=socket.gethostname(),
            node=os.environ.get("SLURMD_NODENAME", ""),
            id=id_,
            pid=os.getpid(),
            restart=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
            cores=machine.cores(),
            gpus=machine.gpus(),
            memory_bytes=machine.memory_bytes(),
            **fields,
        )

    def finished(self, code: int, **fields: Any) -> int:
        """Say how it ended; the code. Fields that are None are left out. Raises OSError."""
        self._log.say(
            "finished",
            code=code,
            round=self._round,
            elapsed_ms=round((time.monotonic() - self._began) * 1000),
            cores=machine.cores(),
            peak_bytes=self._memory.stop(),
            **{k: v for k, v in fields.items() if v is not None},
        )
        return code

    def stopped(self, told: Told, *, came_further: bool, **fields: Any) -> int:
        """Say that it was stopped; the code with which it ends: AGAIN when it is to go on in another run."""
        lived_s = time.monotonic() - self._began
        code = code_of_stopped(told, self._minutes, lived_s, came_further=came_further)
        if code == EXIT_INTERRUPTED:
            return self.finished(code, why="it was told to stop", **fields)
        if code != AGAIN:
            return self.finished(code, why=NO_FURTHER, do=MORE_TIME, **fields)
        is_over = is_time_over(self._minutes, lived_s)
        say(
            f"{'the time is nearly over' if is_over else 'others need the node'}: going on in the next run of this task"
        )
        return self.finished(code, why="its time was over" if is_over else "others needed the node", **fields)


def code_of_stopped(told: Told, minutes: int | None, lived_s: float, *, came_further: bool) -> int:
    """The exit code of a run that was stopped: AGAIN when it is to go on in another one."""
    if told.signal != signal.SIGUSR1:
        return EXIT_INTERRUPTED
    return AGAIN if came_further or not is_time_over(minutes, lived_s) else EXIT_SOME_FAILED


def is_time_over(minutes: int | None, lived_s: float) -> bool:
    """Whether a warning is for the time limit, and not since others need the node."""
    return minutes is None or lived_s >= 60 * minutes - WARNING_S - EARLY_S


@dataclass
class Told:
    """Which signal stopped us."""

    signal: int = signal.SIGINT


def listen() -> Told:
    """SIGTERM and SIGUSR1 stop the run as Ctrl-C does; which it was is in what is given back."""
    told = Told()
    both = (signal.SIGTERM, signal.SIGUSR1)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in both:
            signal.signal(each, signal.SIG_IGN)
        told.signal = number
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for each in both:
            signal.signal(each, stop)
    return told


def say(text: str) -> None:
    """A line for people, in what the scheduler keeps of the task's output."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()
