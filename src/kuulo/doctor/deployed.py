"""The version that users get: it is there, and as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kuulo.deploy import tree
from kuulo.deploy.versions import CURRENT, VERSIONS
from kuulo.doctor import folders
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, WARNING, Finding, Looking, some
from kuulo.errors import KuuloError

NAME = "version in use"


def check(looking: Looking) -> Iterator[Finding]:
    """Where `current` leads; what was changed by hand; whether users can start it."""
    said = looking.site.centre.deploy.get("folder")
    if not said:
        yield Finding(NAME, OK, "the site's file has no [deploy]: nothing is deployed")
        return
    current = Path(said, CURRENT)
    if not current.is_symlink():
        yield Finding(NAME, WARNING, "nothing is in use yet", str(Path(said, VERSIONS)), "kuulo deploy apply")
        return
    if not current.is_dir():
        do = "kuulo deploy rollback VERSION, or kuulo deploy apply"
        yield Finding(NAME, PROBLEM, f"`current` leads to {current.readlink()}, which is gone", str(current), do)
        return
    yield _as_written(current.resolve())
    program = current.resolve() / "bin" / "kuulo"
    if program.exists():
        yield from folders.readable("its command", program)


def _as_written(version: Path) -> Finding:
    try:
        found = tree.compare(tree.manifest(version), tree.on_disk(version))
    except KuuloError as error:
        return Finding(NAME, PROBLEM, error.what, error.looked_at or str(version), error.do or "kuulo deploy apply")
    except OSError as error:
        do = "run this as who deployed it"
        return Finding(NAME, UNKNOWN, f"{version.name} cannot be read: {error.strerror}", str(version), do)
    changed = [*found.changed, *found.removed, *found.added]
    if changed:
        what = f"{version.name} was changed by hand: {some(changed)}"
        return Finding(NAME, WARNING, what, str(version), "kuulo deploy apply makes a new one")
    return Finding(NAME, OK, f"{version.name}, every file as it was written", str(version))
