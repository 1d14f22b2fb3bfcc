"""A queue on this machine, for where there is no cluster: one process for each submission, which runs the tasks.

All of a user's submissions together run no more tasks at a time than KUULO_LOCAL_AT_ONCE says, one if it says nothing.
Time limits and sizes of memory are not enforced: nobody else waits for the machine. A submission's id is the path of
the file in which its process says how it goes.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from kuulo import atomic
from kuulo.errors import CannotRun
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
    """Start the process that runs the tasks, detached from this one. Raises CannotRun."""
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
    state, reason = task["state"], ""
    if state not in ENDED and not serves and not _lives(*task.get("process", (0, 0))):
        state, reason = (CANCELLED, "") if cancelled else (FAILED, "its queue on this machine was ended")
    elif state == WAITING:
        reason = "other tasks of yours run on this machine"
    return State(
        state,
        reason,
        native=state,
        node=said["host"],
        exit_code=task.get("code"),
        started_at=task.get("started"),
        restarts=task.get("restarts", 0),
    )


def cancel(ids: Sequence[str]) -> None:
    """End the processes, and the tasks with them."""
    servers = []
    for id_ in ids:
        try:
            said = _read(Path(id_))
        except CannotRun:
            continue
        if said["host"] != socket.gethostname():
            raise CannotRun(f"it runs on {said['host']}", do=f"kuulo jobs cancel, on {said['host']}")
        Path(f"{id_}.cancelled").touch()
        if _lives(*said["server"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(said["server"][0], signal.SIGTERM)
            servers.append(said["server"])
        else:
            for task in said["tasks"].values():
                _end(task)
    deadline = time.monotonic() + GRACE_S + 5
    while any(_lives(*server) for server in servers) and time.monotonic() < deadline:
        time.sleep(0.05)


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
        self._running: dict[str, tuple[subprocess.Popen[bytes], Any]] = {}
        self._write()

    def serve(self) -> None:
        """Until all tasks have ended."""
        while any(state.state not in ENDED for state in states(self._said["after"]).values()):
            time.sleep(LOOK_EVERY_S)
        waiting = list(self._said["tasks"])
        most = self._said["at_once"] or len(waiting)
        while waiting or self._running:
            while waiting and len(self._running) < most and (slot := _slot()):
                self._start(waiting.pop(0), slot)
            for number in [n for n, (process, _) in self._running.items() if process.poll() is not None]:
                if self._ended(number):
                    waiting.insert(0, number)
            time.sleep(LOOK_EVERY_S if self._running or waiting else 0)

    def stop(self) -> None:
        """End what runs: it is told, and killed when it does not listen."""
        for process, _ in self._running.values():
            _signal(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for process, _ in self._running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process.pid, signal.SIGKILL)
                process.wait()
        for task in self._said["tasks"].values():
            if task["state"] not in ENDED:
                task["state"] = CANCELLED
        self._write()

    def _start(self, number: str, slot: Any) -> None:
        task = self._said["tasks"][number]
        log = Path(self._said["folder"], self._said["log"])
        with log.with_name(f"{log.stem}{number and f'-{number}'}{log.suffix}").open("ab") as out:
            process = subprocess.Popen(
                ["bash", self._said["script"], *([number] if number else [])],
                cwd=self._said["folder"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self._running[number] = (process, slot)
        task.update(state=RUNNING, started=time.time(), process=[process.pid, _started(process.pid)])
        self._write()

    def _ended(self, number: str) -> bool:
        """Write down how a task ended; whether it wants to go on."""
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
        atomic.write_json(self._path, self._said)


def _slot() -> Any:
    """A place among the tasks that run on this machine: an open file that is locked, None when all are taken. (It is
    on this machine's own disk, where locks work.)"""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"kuulo-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(_at_once()):
        file = (folder / f"slot-{number}").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            file.close()
    return None


def _at_once() -> int:
    value = os.environ.get(VARIABLE, "")
    return max(1, int(value)) if value.isdigit() else 1


def _read(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
        return said
    except (OSError, ValueError) as error:
        raise CannotRun(f"the queue's file cannot be read: {error}", looked_at=str(path)) from error


def _started(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was (proc_pid_stat(5), field 22); 0 for none. With
    the number it names a process for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] == b"Z" else int(fields[19])


def _lives(pid: int, started: int) -> bool:
    return pid > 0 and started > 0 and _started(pid) == started


def _end(task: dict[str, Any]) -> None:
    """A task whose queue is gone."""
    pid, started = task.get("process", (0, 0))
    if _lives(pid, started):
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while _lives(pid, started) and time.monotonic() < deadline:
            time.sleep(0.05)
        if _lives(pid, started):
            _signal(pid, signal.SIGKILL)


def _signal(pid: int, how: signal.Signals) -> None:
    """To the task and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, how)


@contextlib.contextmanager
def _told_to_stop() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield


def main() -> None:
    """Serve the submission whose file is named."""
    server = Server(Path(sys.argv[1]))
    with _told_to_stop():
        try:
            server.serve()
        except KeyboardInterrupt:
            server.stop()


if __name__ == "__main__":
    main()
