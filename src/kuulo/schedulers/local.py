"""A queue on this machine, for where there is no cluster: one process for each submission, which runs the tasks.

All of a user's submissions together run no more tasks at a time than KUULO_LOCAL_AT_ONCE says, one if it says nothing.
Time limits and sizes of memory are not enforced: nobody else waits for the machine. A submission's id is the path of
the file in which its process says how it goes. Whether a process lives is read from /proc, so this is for Linux.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from kuulo import atomic
from kuulo.errors import CannotRun, UsageError
from kuulo.schedulers.base import (
    AGAIN,
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    RUNNING,
    WAITING,
    Array,
    Limits,
    Queue,
    State,
    Usage,
)

VARIABLE = "KUULO_LOCAL_AT_ONCE"
GRACE_S = 10.0
"""How long a task may take to stop when it is cancelled."""

LOOK_EVERY_S = 0.5


def is_here() -> bool:
    """Every machine has it."""
    return True


def script(array: Array) -> str:
    """A script that runs the tasks whose numbers it is given, or all, one after the other."""
    lines = ["#!/bin/bash", "# Runs the tasks whose numbers it is given, or all. From the folder that it is in."]
    if not array.tasks:
        return "\n".join([*lines, f"exec {shlex.join(array.command)}", ""])
    numbers = " ".join(map(str, array.tasks))
    return "\n".join(
        [
            *lines,
            f"[ $# -gt 0 ] || set -- {numbers}",
            f'[ $# -gt 1 ] || exec {shlex.join(array.command)} "$1"',
            "code=0",
            'for task in "$@"; do',
            f'    {shlex.join(array.command)} "$task" || code=$?',
            "done",
            'exit "$code"',
            "",
        ]
    )


def submit_command(array: Array, script: str) -> list[str]:
    """What does the same by hand, without the queue."""
    return ["bash", script]


def submit(array: Array, script: str) -> str:
    """Start the process that runs the tasks, detached from this one. Raises CannotRun and UsageError."""
    if not _started(os.getpid()):
        raise CannotRun(
            "the queue of this machine needs Linux", looked_at="/proc/self/stat", do="kuulo transcribe, without a queue"
        )
    _at_once()
    _slots()
    path = _file(array.folder / "logs", Path(script).stem)
    said = {
        "script": _copied(array.folder / script, path),
        "folder": str(array.folder),
        "log": array.log,
        "at_once": array.at_once,
        "after": list(array.after),
        "host": socket.gethostname(),
        "server": [0, 0],
        "tasks": {str(number): {"state": WAITING} for number in array.tasks or ("",)},
    }
    try:
        atomic.write_json(path, said)
        with (array.folder / "logs" / "queue.txt").open("ab") as log:
            server = subprocess.Popen(
                [sys.executable, "-P", "-m", "kuulo.schedulers.local", str(path)],
                cwd=array.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise CannotRun(f"the queue cannot be started: {error.strerror}", looked_at=str(array.folder)) from error
    # Nobody waits for it here; a thread does, so that it is no zombie as long as this process lives.
    threading.Thread(target=server.wait, daemon=True).start()
    deadline = time.monotonic() + 30
    while _read(path)["server"] == [0, 0]:
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise CannotRun("the queue did not start", looked_at=str(array.folder / "logs" / "queue.txt"))
        time.sleep(0.02)
    return str(path)


def _copied(script: Path, beside: Path) -> str:
    """A copy of the script as it is now, as schedulers keep one: the file may be another's when the task begins. Raises
    CannotRun."""
    copy = beside.with_suffix(".sh")
    try:
        atomic.write_bytes(copy, script.read_bytes(), mode=0o700)
    except OSError as error:
        raise CannotRun(f"the script cannot be read: {error.strerror}", looked_at=str(script)) from error
    return str(copy)


def _file(folder: Path, name: str) -> Path:
    """A fresh file for a submission of this name. Raises CannotRun."""
    for number in itertools.count(1):
        path = folder / f"{name}{f'-{number}' if number > 1 else ''}.queue.json"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise CannotRun(f"the queue cannot be started: {error.strerror}", looked_at=str(folder)) from error
    raise AssertionError


def would_start(array: Array, script: str) -> str:
    """In words."""
    return f"at once, or when fewer than {_at_once()} of your tasks run on this machine"


def limits(queue: Queue) -> Limits:
    """None."""
    return Limits(100_000, None)


def states(ids: Sequence[str]) -> dict[tuple[str, int | None], State]:
    """What the processes have written; of one that is gone, what its tasks do without it."""
    found: dict[tuple[str, int | None], State] = {}
    for id_ in ids:
        try:
            said = _read(Path(id_))
        except CannotRun:
            continue
        serves = _lives(*said["server"]) or said["host"] != socket.gethostname()
        cancelled = Path(f"{id_}.cancelled").exists()
        for number, task in said["tasks"].items():
            found[id_, int(number) if number else None] = _state(task, said, serves=serves, cancelled=cancelled)
    return found


def _state(task: dict[str, Any], said: dict[str, Any], *, serves: bool, cancelled: bool) -> State:
    state, reason = task["state"], task.get("why", "")
    if state not in ENDED and not serves and not _lives(*task.get("process", (0, 0))):
        state, reason = (CANCELLED, "") if cancelled else (FAILED, "its queue on this machine was ended")
    elif state == WAITING:
        reason = "it starts after others" if _is_early(said) else "other tasks of yours run on this machine"
    return State(
        state,
        reason,
        native=state,
        node=said["host"],
        exit_code=task.get("code"),
        started_at=task.get("started"),
        restarts=task.get("restarts", 0),
    )


def _is_early(said: Mapping[str, Any]) -> bool:
    """Whether what comes before a submission has not ended."""
    return any(state.state not in ENDED for state in states(said["after"]).values())


def cancel(ids: Sequence[str]) -> None:
    """End the processes, and the tasks with all that these have started. Raises CannotRun where it is another machine
    that runs them."""
    servers = {}
    for id_ in ids:
        try:
            said = _read(Path(id_))
        except CannotRun:
            continue
        if said["host"] != socket.gethostname():
            raise CannotRun(f"it runs on {said['host']}", do=f"kuulo jobs cancel, on {said['host']}")
        with contextlib.suppress(OSError):  # a full disk: it ends all the same, and is told of as failed
            Path(f"{id_}.cancelled").touch()
        if _lives(*said["server"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(said["server"][0], signal.SIGTERM)
        servers[id_] = said["server"]
    deadline = time.monotonic() + GRACE_S + 5
    while any(_lives(*server) for server in servers.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for id_, server in servers.items():  # what a queue that was killed, or does not listen, has left
        with contextlib.suppress(CannotRun):
            _end([server, *(task["process"] for task in _read(Path(id_))["tasks"].values() if "process" in task)])


def quiet(ids: Sequence[str]) -> None:
    """It sends no mail."""


def usage(ids: Sequence[str]) -> list[Usage]:
    """Nobody keeps accounts."""
    return []


# ---------------------------------------------------------------------- the process of a submission


class Server:
    """Runs the tasks of one submission, and writes down how they go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said = _read(path)
        self._said["server"] = [os.getpid(), _started(os.getpid())]
        self._running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._is_told = self._is_behind = False
        signal.signal(signal.SIGTERM, self._told)
        self._write()

    def serve(self) -> None:
        """Until all tasks have ended, or it is told to stop."""
        while _is_early(self._said) and not self._is_told:
            time.sleep(LOOK_EVERY_S)
        waiting = list(self._said["tasks"])
        most = self._said["at_once"] or len(waiting)
        while (waiting or self._running) and not self._is_told:
            while waiting and len(self._running) < most and (slot := _slot()):
                self._start(waiting.pop(0), slot)
            waiting = [*self._look(), *waiting]
            time.sleep(LOOK_EVERY_S if self._running or waiting else 0)
        if self._is_told:
            self._stop()
        if self._is_behind:
            self._write()

    def _told(self, number: int, frame: FrameType | None) -> None:
        # No more than that: a task that was started at this very moment must be known before it can be ended.
        self._is_told = True

    def _stop(self) -> None:
        """End what runs."""
        self._look()
        _end(self._said["tasks"][number]["process"] for number in self._running)
        for process, _ in self._running.values():
            process.wait()
        for task in self._said["tasks"].values():
            if task["state"] not in ENDED:
                task["state"] = CANCELLED
        self._write()

    def _start(self, number: str, slot: IO[bytes]) -> None:
        task = self._said["tasks"][number]
        log = Path(self._said["folder"], self._said["log"])
        try:
            with log.with_name(f"{log.stem}{number and f'-{number}'}{log.suffix}").open("ab") as out:
                # The task holds its slot too: it goes on when this process is killed.
                process = subprocess.Popen(
                    ["bash", self._said["script"], *([number] if number else [])], cwd=self._said["folder"],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, pass_fds=[slot.fileno()],
                )  # fmt: skip
        except OSError as error:
            slot.close()
            task.update(state=FAILED, why=f"it could not be started: {error.strerror}")
        else:
            self._running[number] = (process, slot)
            task.update(state=RUNNING, started=time.time(), process=[process.pid, _started(process.pid)])
        self._write()

    def _look(self) -> list[str]:
        """Write down which tasks have ended, and how; those that want to go on."""
        ended = [number for number, (process, _) in self._running.items() if process.poll() is not None]
        return [number for number in ended if self._ended(number)]

    def _ended(self, number: str) -> bool:
        process, slot = self._running.pop(number)
        slot.close()
        task = self._said["tasks"][number]
        again = process.returncode == AGAIN
        if again:
            task.update(state=WAITING, restarts=task.get("restarts", 0) + 1)
        else:
            # As a shell gives it: 128 and the signal's number.
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            task.update(state=FAILED if code else DONE, code=code)
        self._write()
        return again

    def _write(self) -> None:
        """What cannot be written down now is with the next."""
        try:
            atomic.write_json(self._path, self._said)
            self._is_behind = False
        except OSError as error:
            self._is_behind = True
            sys.stderr.write(f"{self._path.name} cannot be written: {error.strerror}\n")


def _slots() -> Path:
    """The folder of the locks, on this machine's own disk, where locks work. Raises CannotRun."""
    # The runtime folder goes when its user logs out, and the queue goes on.
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = (runtime if runtime.is_dir() else Path(tempfile.gettempdir())) / f"kuulo-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat(follow_symlinks=False).st_uid == os.getuid():
            return folder
        reason = "it is not yours"
    except OSError as error:
        reason = str(error.strerror)
    raise CannotRun(
        f"the queue has no place for its locks: {reason}", looked_at=str(folder), do="name another with TMPDIR"
    )


def _slot() -> IO[bytes] | None:
    """A place among the tasks that run on this machine: an open file that is locked, None when all are taken."""
    for number in range(_at_once()):
        file = (_slots() / f"slot-{number}").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            file.close()
    return None


def _at_once() -> int:
    """Raises UsageError."""
    value = os.environ.get(VARIABLE) or "1"
    if not value.isdecimal() or not int(value):
        raise UsageError(f"{VARIABLE}={value!r} is no number of tasks", do=f"{VARIABLE}=1")
    return int(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
        return said
    except (OSError, ValueError) as error:
        raise CannotRun(f"the queue's file cannot be read: {error}", looked_at=str(path)) from error


def _stat(pid: int) -> list[bytes]:
    """A process's state and what follows in proc_pid_stat(5), fields 3 and on; empty for none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    return stat[stat.rindex(b")") + 2 :].split()  # its name, before that, may hold anything


def _started(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was (field 22); 0 for one that has ended. With the
    number it names a process for good."""
    fields = _stat(pid)
    return 0 if not fields or fields[0] in b"ZX" else int(fields[19])


def _lives(pid: int, started: int) -> bool:
    return pid > 0 and started > 0 and _started(pid) == started


def _end(tasks: Iterable[Sequence[int]]) -> None:
    """End tasks, each given as the number and the beginning of its process, with all that they have started: they are
    told, and what still lives after the grace is killed."""
    told = {pid: started for pid, started in tasks if _lives(pid, started)}
    if not told:
        return
    known = _family(told)
    for pid in told:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(_lives(*one) for one in known.items()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in _family({pid: started for pid, started in known.items() if _lives(pid, started)}):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _family(of: Mapping[int, int]) -> dict[int, int]:
    """These processes and all that come from them, with their beginnings, also those in sessions of their own."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    every = {pid: fields for pid in numbers if (fields := _stat(pid)) and fields[0] not in b"ZX"}
    found = dict(of)
    while more := {
        pid: int(fields[19])
        for pid, fields in every.items()
        if pid not in found and (int(fields[1]) in found or int(fields[3]) in found)  # its parent, its session
    }:
        found.update(more)
    return found


def main() -> None:
    """Serve the submission whose file is named."""
    Server(Path(sys.argv[1])).serve()


if __name__ == "__main__":
    main()
