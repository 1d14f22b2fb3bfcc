"""What interrupted work left behind: half-made environments, models, versions, scratch. It is never used, and takes
room."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kuulo.deploy.tree import MANIFEST
from kuulo.deploy.versions import VERSIONS
from kuulo.doctor.finding import OK, UNKNOWN, WARNING, Finding, Looking
from kuulo.environments import installed
from kuulo.models.store import STAGING

OLD_SECONDS = 24 * 3600
"""Somebody may be at work on what is younger."""


def check(looking: Looking) -> Iterator[Finding]:
    """What is old and unfinished, in each of the site's places."""
    said = False
    for finding in (*_environments(looking), *_stores(looking), *_versions(looking), *_scratch(looking)):
        said = True
        yield finding
    if not said:
        yield Finding("unfinished work", OK, "nothing is left in environments, stores, versions and scratch")


def _environments(looking: Looking) -> Iterator[Finding]:
    centre = looking.site.centre
    for folder in (*centre.environments, *filter(None, [centre.images])):
        for home in _folders(folder):
            try:
                for build in installed.unused(home):
                    do = f"kuulo engines install {home.name}, or rm -r it when nobody makes it"
                    yield Finding(home.name, WARNING, f"a build that is not in use: {build.name}", str(build), do)
            except OSError as error:
                yield Finding(home.name, UNKNOWN, f"it cannot be looked into: {error.strerror}", str(home))


def _stores(looking: Looking) -> Iterator[Finding]:
    for store in looking.site.centre.stores:
        for path in _old(_folders(store / STAGING, hidden=True)):
            yield Finding("staging of a store", WARNING, f"{path.name}, {_age(path)}", str(path), f"rm -r {path}")


def _versions(looking: Looking) -> Iterator[Finding]:
    """Of what is deployed: what was not finished."""
    said = looking.site.centre.deploy.get("folder")
    for path in _old(_folders(Path(said, VERSIONS), hidden=True)) if said else ():
        if path.name.startswith(".") or not (path / MANIFEST).is_file():
            yield Finding("unfinished version", WARNING, f"{path.name}, {_age(path)}", str(path), f"rm -r {path}")


def _scratch(looking: Looking) -> Iterator[Finding]:
    """Of runs that were killed."""
    folder = Path(str(looking.site.defaults.get("scratch") or tempfile.gettempdir()))
    old = _old([path for path in _folders(folder) if path.name.startswith("kuulo-")])
    if old:
        do = f"rm -r, when no run of Kuulo is older than a day: {folder}/kuulo-*"
        yield Finding("scratch", WARNING, f"{len(old)} folders of runs that were killed", str(folder), do)


def _folders(folder: Path, *, hidden: bool = False) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and (hidden or not p.name.startswith(".")))
    except OSError:
        return []


def _old(paths: list[Path]) -> list[Path]:
    return [path for path in paths if time.time() - path.stat().st_mtime > OLD_SECONDS]


def _age(path: Path) -> str:
    return f"{round((time.time() - path.stat().st_mtime) / 86400)} days old"
