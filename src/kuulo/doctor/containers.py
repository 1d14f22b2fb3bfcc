"""Containers: what starts images, and what the kernel allows ordinary users. Needed where an engine is in an image."""

from __future__ import annotations

import os
import platform
import pwd
from collections.abc import Iterator
from pathlib import Path

from kuulo.doctor.asking import ask
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, WARNING, Finding, Looking, some
from kuulo.runtimes.container import PROGRAMS

NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
SWITCHES = (
    (Path("/proc/sys/kernel/unprivileged_userns_clone"), "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile",
    ),
)
"""Files with which a distribution forbids user namespaces: file, the value that does, what allows them."""

FUSE = Path("/dev/fuse")


def check(looking: Looking) -> Iterator[Finding]:
    """The runtime, user namespaces, FUSE, sub-ids."""
    environments, _ = looking.site.environments().all()
    images = sorted(name for name, e in environments.items() if e.image_path is not None)
    centre = looking.site.centre
    wanted = bool(images or centre.container or (looking.for_site and (centre.images or centre.image)))
    if not wanted:
        yield Finding("images", OK, "no engine is in an image: no container is needed")
        return
    if images:
        yield Finding("images", OK, some(images))
    yield _runtime(centre.container)
    yield _namespaces()
    yield _fuse()
    if looking.for_site:
        yield from _sub_ids()


def _runtime(named: str | None) -> Finding:
    """What starts images: what the site's file names, else the first that is found."""
    programs = {named: PROGRAMS[named]} if named in PROGRAMS else PROGRAMS
    for kind, program in programs.items():
        answer = ask([program, "--version"], environ={"USER": str(os.getuid()), **os.environ})  # ch-run wants one
        if answer.ok:
            return Finding(kind, OK, (answer.out.strip().splitlines() or ["version unknown"])[0], answer.command)
        if answer.here:
            do = f"install {program} anew, or name another in the site's file: container = ..."
            return Finding(kind, PROBLEM, answer.why, answer.command, do)
    do = "install Apptainer or charliecloud (ch-run), on every node, or load its module"
    return Finding("runtime", PROBLEM, f"none of {', '.join(programs.values())} is here", "PATH", do)


def _namespaces() -> Finding:
    """Whether ordinary users may make user namespaces; one is made, since the kernel's files do not tell everything."""
    name = "user namespaces"
    try:
        most = int(NAMESPACES.read_text())
    except (OSError, ValueError) as error:
        return Finding(name, UNKNOWN, f"the kernel does not say: {error}", str(NAMESPACES), "try `unshare -Ur true`")
    if most == 0:
        do = "sysctl user.max_user_namespaces=15000; else Apptainer needs its setuid part"
        return Finding(name, PROBLEM, "none are allowed", str(NAMESPACES), do)
    for path, forbids, do in SWITCHES:
        if path.exists() and path.read_text().strip() == forbids:
            return Finding(name, PROBLEM, "ordinary users may make none", str(path), do)
    answer = ask(["unshare", "--user", "--map-root-user", "true"])
    if answer.ok:
        who = ", by root: an ordinary user may be refused" if os.getuid() == 0 else ""
        return Finding(name, OK, f"{most} are allowed, and one was made{who}", answer.command)
    if answer.here:
        return Finding(name, PROBLEM, f"none could be made: {answer.why}", answer.command, "dmesg may tell why")
    return Finding(name, UNKNOWN, f"{most} are allowed; none was made: {answer.why}", str(NAMESPACES))


def _fuse() -> Finding:
    do = "modprobe fuse; chmod 666 /dev/fuse. Without it Apptainer unpacks an image at each start, which is slow"
    if not FUSE.exists():
        return Finding("FUSE", WARNING, "there is no /dev/fuse", str(FUSE), do)
    mode = FUSE.stat().st_mode & 0o777
    if mode & 0o006 != 0o006:
        return Finding("FUSE", WARNING, f"ordinary users may not open it (mode {mode:o})", str(FUSE), do)
    return Finding("FUSE", OK, f"Linux {platform.release()}", str(FUSE))


def _sub_ids() -> Iterator[Finding]:
    """Ranges of ids, which making images (--fakeroot) is easier with; running them needs none."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        try:
            users = [line.partition(":")[0] for line in path.read_text().splitlines()]
        except OSError as error:
            yield Finding(path.name, UNKNOWN, f"{error.strerror}; running images needs it not", str(path))
            continue
        own = "" if user in users or str(os.getuid()) in users or os.getuid() == 0 else f", {user} has none"
        yield Finding(path.name, OK, f"{len(users)} ranges{own}; needed to make images, not to run them", str(path))
