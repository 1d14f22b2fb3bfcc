"""What a scheduler owes: it is given numbered tasks of one command and tells what became of them.

A scheduler is a module with the functions of `Scheduler`. It knows nothing of recordings. A task's command ends with
code 0 when all went well, and with `AGAIN` when it was told to stop and wants to go on later: then the scheduler
queues that task again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

AGAIN = 75
"""The exit code of a task that was stopped in good order and is to be queued again (EX_TEMPFAIL of sysexits.h)."""

WARNING_S = 60
"""How long before its end a task is told (SIGUSR1). Slurm may be up to a minute early."""

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
CANCELLED, OUT_OF_TIME, OUT_OF_MEMORY, NODE_FAILED = "cancelled", "out of time", "out of memory", "node failed"
UNKNOWN = "unknown"
ENDED = frozenset({DONE, FAILED, CANCELLED, OUT_OF_TIME, OUT_OF_MEMORY, NODE_FAILED})
"""The states of tasks. UNKNOWN: the scheduler has forgotten it, or never knew it."""


@dataclass(frozen=True)
class Resources:
    """What each task asks for. `minutes` is its time limit."""

    minutes: int
    memory_mb: int
    cpus: int
    gpus: int = 0


@dataclass(frozen=True)
class Queue:
    """Where tasks wait and on whose account. `gres` is asked for where a task has GPUs ("gpu:a100"; the number is
    added). `extra` has the scheduler's own options as they are, by long name without dashes."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Array:
    """One submission: `command` for each number in `tasks`, with the number as its last argument; without tasks, the
    command once, as it is. What it prints goes to `log` in `folder`, with the task's number before the ending;
    appended when a task runs again. `after`: only when these submissions have ended, however. `mail`: whom to tell that
    all of it has ended, and how."""

    name: str
    folder: Path
    command: tuple[str, ...]
    resources: Resources
    tasks: tuple[int, ...] = ()
    at_once: int | None = None
    after: tuple[str, ...] = ()
    queue: Queue = field(default_factory=Queue)
    log: str = "logs/task.txt"
    warning_s: int = WARNING_S
    mail: str | None = None
    comment: str = ""


@dataclass(frozen=True)
class State:
    """What the scheduler says of a task. `reason` is a plain sentence, empty when there is nothing to say; `native` is
    the scheduler's own word. `exit_code` of what is DONE or FAILED is as a shell gives it: 128 and the number for a
    signal. Times as POSIX seconds; `starts_at` is an estimate while it waits."""

    state: str
    reason: str = ""
    native: str = ""
    node: str = ""
    exit_code: int | None = None
    starts_at: float | None = None
    started_at: float | None = None
    ends_by: float | None = None
    restarts: int = 0


@dataclass(frozen=True)
class Limits:
    """What the scheduler allows: tasks in one array, and minutes of a task (None: no limit)."""

    tasks: int
    minutes: int | None


@dataclass(frozen=True)
class Usage:
    """What one run of a task took, as the scheduler's accounts have it: a task that was queued again has one for each,
    with the state WAITING for those after which it was. Times in seconds, memory in bytes; None: not known."""

    id: str
    task: int | None
    state: str
    elapsed_s: float
    waited_s: float | None = None
    limit_s: float | None = None
    cpus: int | None = None
    gpus: int = 0
    memory_bytes: int | None = None
    memory_asked_bytes: int | None = None


class Scheduler(Protocol):
    """The functions of a scheduler's module. Those that call it raise CannotRun when it does not answer."""

    def is_here(self) -> bool:
        """Whether its commands are on this machine. Calls none."""

    def script(self, array: Array) -> str:
        """The text of the batch script. Pure. It can be submitted by hand from the array's folder. Raises UsageError
        for what it cannot be told."""

    def submit_command(self, array: Array, script: str) -> list[str]:
        """The exact command that submits the script of this file name in the array's folder. Pure."""

    def submit(self, array: Array, script: str) -> str:
        """Submit it; the submission's id, which only this scheduler understands. Raises CannotRun."""

    def would_start(self, array: Array, script: str) -> str:
        """When it would start, in the scheduler's words; nothing is submitted. The script is in the folder."""

    def limits(self, queue: Queue) -> Limits:
        """What may be asked for there."""

    def states(self, ids: Sequence[str]) -> dict[tuple[str, int | None], State]:
        """What became of each task (or, without tasks, of the submission: None) of these submissions. What the
        scheduler does not know is not in it."""

    def cancel(self, ids: Sequence[str]) -> None:
        """End these submissions, also those that wait. One that has ended is no error."""

    def quiet(self, ids: Sequence[str]) -> None:
        """Tell nobody by mail about these submissions, after all."""

    def usage(self, ids: Sequence[str]) -> list[Usage]:
        """What their tasks took; empty where nobody keeps accounts."""
