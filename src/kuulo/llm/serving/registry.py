"""Which servers there are: for each a folder in the user's state folder, which its owner alone may read.

    servers/s1/server.json   what the server says of itself
    servers/s1/job.json      of one in a job: what was submitted
    servers/s1/key           its secret key
    servers/s1/job.sh        the batch script
    servers/s1/log.txt       what it prints

A server that ends in good order takes its folder with it. One that was killed, or that failed, leaves it: it is shown
as dead, with the reason where that is known, until `kuulo llm stop` forgets it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import atomic, machine
from kuulo.errors import CannotRun, KuuloError, UsageError

STARTING, READY, FAILED = "starting", "ready", "failed"
"""What a server says of itself."""

WAITING, DEAD, UNKNOWN = "waiting", "dead", "unknown"
"""What else may be seen of it."""

STAT = Path("/proc")


@dataclass(frozen=True)
class Server:
    """What a server says of itself. `host` is the machine's own name, `node` what Slurm calls it. It listens on `bind`
    and `port`, or on the Unix socket `socket`. `pid` and `born` (Linux's ticks) tell its process from a later one of
    the same number. Times as POSIX seconds; `ends_by`: when its job is over."""

    name: str
    state: str
    host: str
    pid: int
    born: int
    started: float
    bind: str = ""
    port: int | None = None
    socket: str | None = None
    node: str = ""
    model: str | None = None
    engine: str | None = None
    speech: str | None = None
    job: str | None = None
    ready: float | None = None
    ends_by: float | None = None
    idle_s: float | None = None
    why: str = ""
    kuulo: str = ""


@dataclass(frozen=True)
class Submitted:
    """The job that a server runs in."""

    scheduler: str
    id: str
    at: float


@dataclass(frozen=True)
class Seen:
    """A server, and how it is: `state` is one of the words above, `why` a sentence."""

    folder: ServerFolder
    state: str
    why: str = ""
    server: Server | None = None
    submitted: Submitted | None = None
    ends_by: float | None = None

    @property
    def name(self) -> str:
        return self.folder.name


class ServerFolder:
    """The folder of a server. `name` is what people call it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def key(self) -> Path:
        return self.path / "key"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def write(self, server: Server) -> None:
        """Raises OSError."""
        _write(self.path / "server.json", dataclasses.asdict(server))

    def write_job(self, submitted: Submitted) -> None:
        """Raises OSError."""
        _write(self.path / "job.json", dataclasses.asdict(submitted))

    def server(self) -> Server | None:
        """What it says of itself; None before it has said anything. Raises CannotRun."""
        said = _read(self.path / "server.json", Server)
        return Server(**said) if said is not None else None

    def submitted(self) -> Submitted | None:
        said = _read(self.path / "job.json", Submitted)
        return Submitted(**said) if said is not None else None

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Servers:
    """All servers of a user."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def new(self, name: str | None = None) -> ServerFolder:
        """A fresh folder, of that name or with the next number. Raises UsageError for a name that is taken."""
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise UsageError(f"{name!r} is no name for a server", do="letters, digits, dots and dashes")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = 1
            while True:
                folder = self.path / (name or f"s{number}")
                try:
                    folder.mkdir(mode=0o700)  # of two at the same time one makes it, also on shared file systems
                except FileExistsError as error:
                    if name:
                        raise UsageError(
                            f"there is a server {name} already", looked_at=str(folder), do=f"kuulo llm stop {name}"
                        ) from error
                    number += 1
                else:
                    return ServerFolder(folder)
        except OSError as error:
            raise CannotRun(f"the server cannot be written down: {error}", looked_at=str(self.path)) from error

    def all(self) -> list[ServerFolder]:
        """In the order of their numbers."""
        try:
            found = [path for path in self.path.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        return [ServerFolder(path) for path in sorted(found, key=_order)]

    def find(self, name: str | None) -> ServerFolder:
        """The server of that name; without one the only one there is. Raises UsageError."""
        every = self.all()
        named = ", ".join(folder.name for folder in every) or "none"
        if name is None:
            if len(every) == 1:
                return every[0]
            raise UsageError(
                "there are several servers: name one" if every else "there is no server",
                looked_at=named if every else str(self.path),
                do="kuulo llm list" if every else "kuulo serve MODEL",
            )
        for folder in every:
            if folder.name == name:
                return folder
        raise UsageError(f"there is no server {name!r}", looked_at=f"servers: {named}")


def _order(path: Path) -> tuple[str, int, str]:
    found = re.fullmatch(r"(\D*)(\d{1,9})", path.name)
    return (found[1], int(found[2]), "") if found else (path.name, 0, "")


def myself(name: str, **more: Any) -> Server:
    """The record of this process."""
    return Server(
        name=name,
        state=STARTING,
        host=socket.gethostname(),
        pid=os.getpid(),
        born=born(os.getpid()) or 0,
        started=time.time(),
        node=os.environ.get("SLURMD_NODENAME", ""),
        job=os.environ.get("SLURM_JOB_ID"),
        **more,
    )


def born(pid: int) -> int | None:
    """When a process was started, in ticks since the machine was (proc(5), stat); None when there is none, or nothing
    but its exit code."""
    try:
        state, *rest = (STAT / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else int(rest[18])
    except (OSError, IndexError, ValueError):
        return None


def look(folder: ServerFolder) -> Seen:
    """How a server is, from its process where that is here, and from the scheduler where it is in a job."""
    try:
        server, submitted = folder.server(), folder.submitted()
    except KuuloError as error:
        return Seen(folder, UNKNOWN, error.what)
    if server is not None and server.state == FAILED:
        return Seen(folder, FAILED, server.why, server, submitted)
    if server is not None and server.host == socket.gethostname() and not (submitted and not _lives(server)):
        return _here(folder, server, submitted)
    if submitted is not None:
        return _in_job(folder, server, submitted)
    if server is None:
        return Seen(folder, DEAD, "it was never started")
    return Seen(folder, UNKNOWN, f"it is on {server.host}: ask there", server)


def _here(folder: ServerFolder, server: Server, submitted: Submitted | None) -> Seen:
    if not _lives(server):
        return Seen(folder, DEAD, f"its process {server.pid} is gone", server, submitted)
    if server.state == READY and not listens(server):
        return Seen(folder, UNKNOWN, "its process runs, and nothing listens there", server, submitted, server.ends_by)
    return Seen(folder, server.state, server.why, server, submitted, server.ends_by)


def _lives(server: Server) -> bool:
    return machine.has_process(server.pid) and born(server.pid) == server.born


def _in_job(folder: ServerFolder, server: Server | None, submitted: Submitted) -> Seen:
    from kuulo import schedulers
    from kuulo.schedulers import base

    try:
        said = schedulers.of(submitted.scheduler).states([submitted.id]).get((submitted.id, None))
    except KuuloError as error:
        return Seen(folder, UNKNOWN, error.what, server, submitted)
    if said is None:
        return Seen(folder, DEAD, f"{submitted.scheduler} has forgotten job {submitted.id}", server, submitted)
    if said.state == base.WAITING:
        return Seen(folder, WAITING, said.reason or said.native, None, submitted)
    if said.state != base.RUNNING:
        why = f"job {submitted.id} is {said.state}" + (f": {said.reason}" if said.reason else "")
        return Seen(folder, DEAD, why, server, submitted)
    if server is None or (said.started_at is not None and server.started < said.started_at):
        # none yet, or of a run before Slurm queued the job again
        return Seen(folder, STARTING, f"on {said.node}", None, submitted, said.ends_by)
    return Seen(folder, server.state, server.why, server, submitted, said.ends_by or server.ends_by)


def listens(server: Server, timeout_s: float = 2.0) -> bool:
    """Whether somebody takes connections there."""
    try:
        if server.socket:
            with socket.socket(socket.AF_UNIX) as tried:
                tried.settimeout(timeout_s)
                tried.connect(server.socket)
        else:
            socket.create_connection((server.bind, server.port or 0), timeout_s).close()
    except OSError:
        return False
    return True


def _write(path: Path, said: Any) -> None:
    atomic.write_bytes(path, atomic.encode_json(said), mode=0o600)


def _read(path: Path, kind: Callable[..., Any]) -> dict[str, Any] | None:
    try:
        said = json.loads(path.read_bytes())
        names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
        known = {k: v for k, v in said.items() if k in names}
        kind(**known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CannotRun(f"a server's record cannot be read: {error}", looked_at=str(path)) from error
    return known
