"""What a program answers. None may take longer than its limit, whatever it started itself."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SECONDS = 15.0
"""How long a program may take."""


@dataclass(frozen=True)
class Answer:
    """`why` says why there is none; it is empty when the program ended with 0. `here`: whether there is such a
    program."""

    command: str
    out: str = ""
    why: str = ""
    here: bool = True

    @property
    def ok(self) -> bool:
        return not self.why


def ask(argv: Sequence[str], *, seconds: float = SECONDS, environ: Mapping[str, str] | None = None) -> Answer:
    """The program's answer. It gets nothing on its standard input. Never raises."""
    command = shlex.join(argv)
    if shutil.which(argv[0]) is None:
        return Answer(command, why=f"there is no program {argv[0]}", here=False)
    try:
        process = subprocess.Popen(
            argv,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Answer(command, why=f"it cannot be started: {error.strerror}")
    try:
        out, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return Answer(command, why=f"no answer within {seconds:g} seconds")
    if process.returncode == 0:
        return Answer(command, out)
    lines = [line.strip() for line in (said or out).splitlines() if line.strip()]
    return Answer(command, out, why=f"exit code {process.returncode}" + (f": {lines[-1]}" if lines else ""))


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it started; what hangs in the kernel is left behind, not waited for."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
