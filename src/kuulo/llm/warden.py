"""Starts a program and ends it, with all that it started, when whoever started us is gone, in whatever way.

    python warden.py FD -- PROGRAM [ARGUMENTS]...

FD is the read end of a pipe whose write end our parent has and nobody else: it is closed also when that is killed. The
program stands in a process group of its own; processes that it leaves behind become ours, and are ended too. The exit
code is the program's, 128 and the signal's number for one that a signal ended. Standard library alone; run with -I.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_S = 3.0
"""How long a program may take to end before it is killed."""

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


def main() -> int:
    watched, program = int(sys.argv[1]), sys.argv[3:]
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux alone
    if prctl:
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)

    def dies_with_us() -> None:  # also when we are killed ourselves
        if prctl:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    child = subprocess.Popen(
        program, stdin=subprocess.DEVNULL, close_fds=True, start_new_session=True, preexec_fn=dies_with_us
    )
    while child.poll() is None:
        ready, _, _ = select.select([watched, told], [], [])
        if watched in ready or set(os.read(told, 64)) - {signal.SIGCHLD}:
            _end(child)
    _sweep(child.pid)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    _signal(child.pid, signal.SIGTERM)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _signal(child.pid, signal.SIGKILL)
        child.wait()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _sweep(group: int) -> None:
    """Ends what the program left behind."""
    _signal(group, signal.SIGKILL)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
            left = [int(word) for word in children.split()]
        except OSError:
            left = []
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, os.WNOHANG if left else 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(main())
