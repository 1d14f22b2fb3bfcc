"""The folders that a site's file names: there, with room, open to those that need them and closed to those that must
not change them. By mode bits along the path, as an ordinary user meets them; where an access list may say otherwise,
that is said."""

from __future__ import annotations

import contextlib
import grp
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from kuulo.doctor import space
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, WARNING, Finding, Looking, amount

ACCESS_LIST = "system.posix_acl_access"


def check(looking: Looking) -> Iterator[Finding]:
    """Every folder: whether it is there, room, quota, and who may read and write."""
    seen: set[int] = set()
    named = list(_named(looking))
    for name, path in named:
        if not path.exists():
            yield _missing(name, path)
            continue
        yield from readable(name, path, looking.site.centre.groups)
        yield from _room(name, path, seen)
        yield from _closed(name, path)
    yield from _written(looking, seen)
    if not named:
        yield Finding("folders", OK, "the site's file names none")


def _named(looking: Looking) -> Iterator[tuple[str, Path]]:
    """What users read."""
    centre = looking.site.centre
    yield from (("stores", path) for path in centre.stores)
    yield from (("environments", path) for path in centre.environments)
    if centre.images:
        yield "images", centre.images
    if centre.speeds:
        yield "speeds", centre.speeds
    for table, key in (("deploy", "folder"), ("deploy", "modules"), ("portal", "folder")):
        if found := getattr(centre, table).get(key):
            yield f"[{table}] {key}", Path(found)


def _written(looking: Looking, seen: set[int]) -> Iterator[Finding]:
    """What users write to, as far as it can be tried by who runs this."""
    jobs = [] if looking.trouble else [("[jobs] folder", looking.site.jobs_folder().path)]
    scratch = [("scratch", Path(str(s)))] if (s := looking.site.defaults.get("scratch")) else []
    for name, path in [*jobs, *scratch]:
        yield space.place(name, path, "the site's file")
        there = next((p for p in (path, *path.parents) if p.exists()), path)
        device = there.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield from space.quota(there)


def _missing(name: str, path: Path) -> Finding:
    above = next((p for p in path.parents if p.exists()), Path("/"))
    try:
        path.lstat()
    except PermissionError:
        return Finding(name, UNKNOWN, f"{above} does not let us in", str(path), "run this as who administers it")
    except OSError:
        pass
    else:
        return Finding(name, PROBLEM, "it is a link that leads nowhere", str(path), "mend or remove the link")
    if name == "speeds":
        return Finding(name, WARNING, "it is not there: nothing was measured", str(path), "kuulo calibrate")
    do = "make it, or correct the site's file; is its file system mounted?"
    return Finding(name, PROBLEM, f"it is not there; {above} is", str(path), do)


def readable(name: str, path: Path, groups: Collection[str] = ()) -> Iterator[Finding]:
    """Whether ordinary users reach and read it; for members of one of the `groups` alone is good, too."""
    for step in [*reversed(path.absolute().parents), path]:
        try:
            facts = step.stat()
        except OSError as error:
            do = "run this as who administers it"
            yield Finding(name, UNKNOWN, f"{step} cannot be looked at: {error.strerror}", str(path), do)
            return
        wanted = stat.S_IXOTH if step != path else stat.S_IROTH | (stat.S_IXOTH if step.is_dir() else 0)
        if facts.st_mode & wanted == wanted:
            continue
        group = _group(facts.st_gid)
        by_group = facts.st_mode & wanted << 3 == wanted << 3
        if _has_access_list(step):
            found = f"{step} has an access list, which this does not read"
            yield Finding(name, UNKNOWN, found, str(path), f"getfacl {step}")
        elif by_group and group in groups:
            yield Finding(name, OK, f"open to the group {group} of the site's file", str(path))
        else:
            who = f"the group {group} alone" if by_group else "its owner alone"
            mode = stat.S_IMODE(facts.st_mode)
            do = f"chmod o+{'rx' if step == path and step.is_dir() else 'r' if step == path else 'x'} {step}"
            yield Finding(
                name, PROBLEM, f"ordinary users cannot read it: {step} is for {who} ({mode:o})", str(path), do
            )
        return
    yield Finding(name, OK, "ordinary users can read it", str(path))


def _room(name: str, path: Path, seen: set[int]) -> Iterator[Finding]:
    """The room of its file system, once for each."""
    device = path.stat().st_dev
    if device in seen:
        return
    seen.add(device)
    left = os.statvfs(path)
    free, size = left.f_bavail * left.f_frsize, left.f_blocks * left.f_frsize
    found = f"{amount(free)} of {amount(size)} free"
    if free < space.LITTLE_BYTES:
        yield Finding("disk of " + name, WARNING, f"{found}: that is little", space.mounted(path)[1], space.FREE)
    else:
        yield Finding("disk of " + name, OK, found, space.mounted(path)[1])
    yield from space.quota(path)


def _closed(name: str, path: Path) -> Iterator[Finding]:
    """What everybody runs or reads must not be everybody's to change."""
    for step in [path, *path.absolute().parents]:
        mode = stat.S_IMODE(step.stat().st_mode)
        if mode & stat.S_IWOTH and not (step != path and mode & stat.S_ISVTX):
            found = f"anybody may change {'it' if step == path else f'what is in {step}'} ({mode:o})"
            yield Finding(name, WARNING, found, str(path), f"chmod o-w {step}")
            return


def closed_to_users(folder: Path, groups: Collection[str] = ()) -> list[Path]:
    """What is in a folder, however deep, that ordinary users cannot read; not what is for one of the `groups`."""
    found = []
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            with contextlib.suppress(OSError):
                facts = path.stat()
                wanted = stat.S_IROTH | (stat.S_IXOTH if name in folders else 0)
                by_group = facts.st_mode & wanted << 3 == wanted << 3 and _group(facts.st_gid) in groups
                if facts.st_mode & wanted != wanted and not by_group and not _has_access_list(path):
                    found.append(path)
        folders[:] = [f for f in folders if not f.startswith(".")]  # staging is for its makers
    return found


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _has_access_list(path: Path) -> bool:
    try:
        return ACCESS_LIST in os.listxattr(path)
    except OSError:
        return False
