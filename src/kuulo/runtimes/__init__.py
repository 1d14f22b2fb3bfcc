"""How a worker is started where its engine is: in this interpreter (`here`), in a virtual environment (`venv`), or in a
container image (`container`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from kuulo import caches
from kuulo.runtimes.here import Here

if TYPE_CHECKING:
    from kuulo.environments.installed import Environment


class Runtime(Protocol):
    """Where a worker runs."""

    def command(self, scratch: Path, reads: Sequence[Path]) -> list[str]:
        """The worker's program and arguments. It writes into `scratch` alone, and may read what is in `reads`."""

    def python(self, scratch: Path, arguments: Sequence[str]) -> list[str]:
        """The engine's Python with these arguments."""

    def environment(self, scratch: Path, environ: Mapping[str, str]) -> dict[str, str]:
        """The worker's environment: ours, offline, with private caches under `scratch`."""

    def prepare(self, scratch: Path) -> None:
        """Puts into `scratch` what the worker needs, if it is not there. Raises OSError, KuuloError."""


def of(environment: Environment | None) -> Runtime:
    """The runtime of an environment, or of this interpreter."""
    if environment is None:
        return Here()
    if environment.image:
        from kuulo import site
        from kuulo.runtimes.container import Container

        return Container(environment, site.load().centre.container)
    from kuulo.runtimes.venv import Venv

    return Venv(environment)


def make_room(runtime: Runtime, scratch: Path) -> None:
    """Scratch, ready for programs of the runtime. Raises OSError, KuuloError."""
    caches.make(scratch)
    runtime.prepare(scratch)


def start(runtime: Runtime, scratch: Path, log: IO[bytes], reads: Sequence[Path] = ()) -> subprocess.Popen[bytes]:
    """A worker that waits for its task. It stands in `scratch`, in a process group of its own, so that Ctrl-C reaches
    the parent alone, which decides what to keep. `reads`: what it must see beside scratch, as its model."""
    make_room(runtime, scratch)
    return subprocess.Popen(
        runtime.command(scratch, reads),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=scratch,
        env=runtime.environment(scratch, os.environ),
        start_new_session=True,
    )
