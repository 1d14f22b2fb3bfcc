"""Places that a run writes to: whether it may, and how much there is room for."""

from __future__ import annotations

import os
import pwd
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kuulo import site as sites
from kuulo.doctor.asking import ask
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, WARNING, Finding, Looking, amount
from kuulo.errors import KuuloError

BYTES_PER_HOUR = 16_000 * 4 * 3600
"""What an hour of sound takes in scratch: 16 kHz, 32 bits."""

LITTLE_BYTES = 10 * BYTES_PER_HOUR
LITTLE_FILES = 1000
MOUNTS = Path("/proc/self/mountinfo")

FREE = "remove what is not needed, or name another place"


def check(looking: Looking) -> Iterator[Finding]:
    """Scratch, results, home, temporary files; quotas."""
    seen: set[int] = set()
    for name, path, flag in _places(looking):
        yield place(name, path, flag)
        yield from _quota_once(path, seen)


def _places(looking: Looking) -> list[tuple[str, Path, str]]:
    """Name, folder, and how another is chosen."""
    environ = looking.environ
    temporary = Path(environ.get("TMPDIR") or tempfile.gettempdir())
    try:
        values = sites.settle(looking.site, {}, environ).values
    except KuuloError:  # told among the settings
        values = {}
    scratch, output = values.get("scratch"), values.get("output")
    found = [
        ("scratch", Path(str(scratch)).expanduser() if scratch else temporary, "--scratch"),
        ("results", Path(str(output)).expanduser() if output else Path.cwd(), "--output"),
        ("home", Path(environ.get("HOME") or "~").expanduser(), "HOME"),
    ]
    if scratch and Path(str(scratch)) != temporary:
        found.append(("temporary files", temporary, "TMPDIR"))
    jobs = looking.site.jobs_folder().path if not looking.trouble else None
    return [*found, *([("jobs", jobs, "KUULO_JOBS")] if jobs else [])]


def place(name: str, path: Path, flag: str) -> Finding:
    """Whether files can be made in a folder, or it in the one above, and the room that is left. `flag`: with what
    another is named."""
    there = next((p for p in (path, *path.parents) if p.exists()), path)
    why = _unwritable(there)
    if why:
        return Finding(name, PROBLEM, f"nothing can be written there: {why}", str(path), f"name another: {flag}")
    left = os.statvfs(there)
    free, files = left.f_bavail * left.f_frsize, left.f_favail
    room = (
        f"{amount(free)} free, for {free // BYTES_PER_HOUR} h of sound" if name == "scratch" else f"{amount(free)} free"
    )
    if there != path:
        room += "; it is made when it is needed"
    if left.f_files and files < LITTLE_FILES:
        return Finding(name, WARNING, f"room for {files} more files alone", str(path), f"{FREE}: {flag}")
    if free < LITTLE_BYTES:
        return Finding(name, WARNING, f"{room}: that is little", str(path), f"{FREE}: {flag}")
    return Finding(name, OK, room, str(path))


def _unwritable(folder: Path) -> str:
    """Why no file can be made in a folder; a file is made and removed, since permissions do not tell everything."""
    if not folder.is_dir():
        return "it is no folder"
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".kuulo-doctor-") as file:
            file.write(b"\0")
    except OSError as error:
        return error.strerror or str(error)
    return ""


# Quotas.


def _quota_once(path: Path, seen: set[int]) -> Iterator[Finding]:
    """The quota of a file system, when it is the first time that it is met."""
    there = next((p for p in (path, *path.parents) if p.exists()), path)
    device = there.stat().st_dev
    if device not in seen:
        seen.add(device)
        yield from quota(there)


def quota(path: Path) -> Iterator[Finding]:
    """The user's quota where `path` is; nothing where the system has no quotas."""
    kind, mount, source = mounted(path)
    name = f"quota on {mount}"
    user = pwd.getpwuid(os.getuid()).pw_name if _has_name() else str(os.getuid())
    if kind == "lustre":
        answer = ask(["lfs", "quota", "-q", "-u", user, str(path)])
        rows = lustre_rows(answer.out)
    elif kind in ("beegfs", "gpfs"):
        command = {"beegfs": "beegfs-ctl --getquota", "gpfs": "mmlsquota"}[kind]
        yield Finding(name, UNKNOWN, f"Kuulo cannot read quotas of {kind}", mount, f"{command} tells")
        return
    else:
        answer = ask(["quota", "-w", "-p", "-u", user])
        rows = [row for row in quota_rows(answer.out) if row[0] in (mount, source)]
    if not answer.here:
        return
    if not answer.ok and not rows:
        yield Finding(name, UNKNOWN, answer.why, answer.command, "the storage's own command may tell")
    for _, used, limit in rows:
        if limit:
            left = f"{amount(used)} of {amount(limit)} used"
            state = PROBLEM if used >= limit else WARNING if limit - used < LITTLE_BYTES else OK
            yield Finding(name, state, left, answer.command, "" if state == OK else FREE)


def quota_rows(text: str) -> list[tuple[str, int, int]]:
    """Lines of quota(1) with -w -p: (file system, bytes used, limit in bytes). A `*` marks what is over its quota."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*(\S+)\s+(\d+)\*?\s+(\d+)\s+(\d+)\s", line + " ")
        if match:
            found.append((match[1], int(match[2]) * 1024, int(match[4]) * 1024 or int(match[3]) * 1024))
    return found


def lustre_rows(text: str) -> list[tuple[str, int, int]]:
    """Lines of `lfs quota -q`: as `quota_rows`; a long path stands on a line of its own."""
    return quota_rows(re.sub(r"^(\s*/\S+)\s*\n", r"\1 ", text, flags=re.M))


def mounted(path: Path) -> tuple[str, str, str]:
    """Of the file system that has `path`: its type, where it is mounted, and what it is mounted from (proc(5))."""
    best = ("", "/", "")
    there = path.resolve()
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return best
    for line in lines:
        front, _, back = line.partition(" - ")
        mount = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), front.split()[4]))
        if (mount == there or mount in there.parents) and len(str(mount)) >= len(best[1]):
            kind, source = back.split()[:2]
            best = (kind, str(mount), source)
    return best


def _has_name() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
