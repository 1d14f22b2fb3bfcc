"""Which job works on which results: so that two submits of one folder do not do the work twice.

A claim is a file in the output folder, `.kuulo/jobs/NAME.json`, written before the job is submitted. It counts as long
as the scheduler knows a task of the job that waits or runs. Who submits holds the output folder's lock meanwhile: a
folder, since making one is a single step on every shared file system, as locks on files are not.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kuulo import atomic, machine, naming, schedulers
from kuulo.errors import CannotRun, UsageError
from kuulo.jobs.folder import REPORT
from kuulo.schedulers.base import RUNNING, WAITING

FOLDER = Path(".kuulo", "jobs")
LOCK = Path(".kuulo", "submitting")
STALE_S = 600.0
"""Another machine's lock is taken for abandoned after so long: submitting takes seconds."""


@dataclass(frozen=True)
class Claim:
    """A job's claim on results, by their stems. `ids`: its submissions."""

    name: str
    folder: str
    scheduler: str
    host: str
    user: str
    stems: tuple[str, ...]
    ids: tuple[str, ...] = ()
    key: str = ""


def make(name: str, folder: Path, scheduler: str, stems: Sequence[str], key: str) -> Claim:
    """A claim of this user, on this machine."""
    return Claim(name, str(folder), scheduler, socket.gethostname(), getpass.getuser(), tuple(stems), (), key)


def write(output: Path, claim: Claim) -> None:
    """Put it into the output folder. Raises OSError."""
    (output / FOLDER).mkdir(parents=True, exist_ok=True)
    data = json.dumps(asdict(claim)).encode("ascii")
    atomic.write_bytes(output / FOLDER / f"{claim.user}-{claim.name}.json", data)


def withdraw(outputs: Iterable[Path], name: str) -> None:
    """The job is over."""
    for output in outputs:
        (output / FOLDER / f"{getpass.getuser()}-{name}.json").unlink(missing_ok=True)


def alive(output: Path, names: Collection[str] | None = None) -> list[Claim]:
    """The claims that count, on any results or on those of these names. Those of jobs that are over are removed. Raises
    CannotRun when a scheduler that knows does not answer."""
    found = []
    for path in sorted((output / FOLDER).glob("*.json")):
        try:
            said = json.loads(path.read_bytes())
            claim = Claim(**{**said, "stems": tuple(said["stems"]), "ids": tuple(said["ids"])})
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError) as error:
            raise CannotRun("a job's claim on results cannot be read", looked_at=str(path), do="remove it") from error
        if names is not None and not set(names).intersection(claim.stems):
            continue  # its scheduler need not be asked
        if _counts(claim):
            found.append(claim)
        else:
            with contextlib.suppress(OSError):  # it is somebody else's
                path.unlink(missing_ok=True)
    return found


def check_free(makes: Mapping[Path, Sequence[str]]) -> None:
    """Raises UsageError when a job makes results of these names, by their folders, and CannotRun as `alive`."""
    for output, names in makes.items():
        for claim in alive(output, names):
            raise UsageError(
                f"the job {claim.name} of {claim.user} makes this at this moment",
                looked_at=naming.shown(output / next(name for name in names if name in claim.stems)),
                do=f"kuulo jobs wait {claim.name}, or kuulo jobs cancel {claim.name}",
            )


def _counts(claim: Claim) -> bool:
    if (Path(claim.folder) / REPORT).exists():
        return False
    if claim.scheduler == "local" and claim.host != socket.gethostname():
        return Path(claim.folder).exists()
    states = schedulers.of(claim.scheduler).states(claim.ids)
    return any(state.state in (WAITING, RUNNING) for state in states.values())


@contextlib.contextmanager
def submitting(*outputs: Path) -> Iterator[None]:
    """Hold the output folders' locks. Raises CannotRun when another submit holds one."""
    with contextlib.ExitStack() as held:
        for output in sorted(outputs):
            held.enter_context(_locked(output))
        yield


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    lock = output / LOCK
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.mkdir()
            break
        except FileExistsError:
            if not _is_abandoned(lock):
                raise CannotRun(
                    "somebody is submitting a job for this output folder at this moment",
                    looked_at=naming.shown(lock),
                    do="try again in a moment",
                ) from None
            _remove(lock)
        except OSError as error:
            raise CannotRun(
                f"the output folder cannot be written to: {error.strerror}",
                looked_at=naming.shown(output),
                do="name another with --output",
            ) from error
    try:
        (lock / "holder").write_text(f"{socket.gethostname()} {os.getpid()}")
        yield
    finally:
        _remove(lock)


def _is_abandoned(lock: Path) -> bool:
    """Whether who made it is gone: a process of this machine, or an old one of another."""
    try:
        age = time.time() - lock.stat().st_mtime
        host, _, pid = (lock / "holder").read_text().partition(" ")
    except FileNotFoundError:
        return not lock.exists() or time.time() - lock.stat().st_mtime > STALE_S
    except OSError:
        return False
    return not machine.has_process(int(pid)) if host == socket.gethostname() else age > STALE_S


def _remove(lock: Path) -> None:
    (lock / "holder").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lock.rmdir()
