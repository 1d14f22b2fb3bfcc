"""The end of a server that is on this machine, or in a job."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

from kuulo.errors import CannotRun
from kuulo.llm.serving import registry
from kuulo.llm.serving.registry import Server, ServerFolder

STOP_S = 40.0
"""A server gives answers that are being made a moment, and its engine too."""


def is_here(server: Server) -> bool:
    """Whether its process is one of this machine's."""
    return server.host == socket.gethostname() and registry.born(server.pid) == server.born


def stop(folder: ServerFolder, server: Server) -> None:
    """Tell its process to end, and wait until it has. Raises CannotRun when it does not."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while is_here(server):
        if time.monotonic() > deadline:
            raise CannotRun(
                f"{folder.name} does not end", looked_at=f"process {server.pid}", do=f"kill -9 {server.pid}"
            )
        time.sleep(0.05)
    folder.remove()  # it has done so itself, unless it was killed


def wait_until_gone(folder: ServerFolder) -> None:
    """For a moment, until the server of a cancelled job has ended; then forget it. What is still there is shown by
    `kuulo llm list` with what the scheduler says."""
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        if registry.look(folder).state in (registry.DEAD, registry.FAILED):
            folder.remove()
            return
        time.sleep(0.5)
