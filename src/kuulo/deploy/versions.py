"""The versions of a site, side by side, and which of them its users get.

    DEPLOY/versions/0.1.0-3/     one version: never changed after it is written
    DEPLOY/current               link to the one in use
    DEPLOY/state.json            which are and were in use, the last one first
    MODULES/kuulo/0.1.0-3.lua    link to the version's own modulefile
    MODULES/kuulo/.modulerc.lua  which is loaded when none is named
    PORTAL/APP                   link to the portal's app in DEPLOY/current

What users get changes by replacing links and small files, each in one step.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import atomic
from kuulo.deploy import module as modulefiles
from kuulo.environments import installed
from kuulo.environments.installed import KEPT, Environment
from kuulo.errors import CannotRun, UsageError
from kuulo.site_file import SiteFile

STATE, CURRENT, VERSIONS = "state.json", "current", "versions"
KEEP = 5


@dataclass(frozen=True)
class Versions:
    """Where a site has its versions. `modules` and `portal` are None where it has none."""

    folder: Path
    modules: Path | None = None
    portal: Path | None = None
    keep: int = KEEP

    def path(self, version: str) -> Path:
        return self.folder / VERSIONS / version

    def all(self) -> list[str]:
        """The versions that are there, the oldest first. Raises CannotRun."""
        try:
            names = [p.name for p in (self.folder / VERSIONS).iterdir() if p.is_dir() and not p.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CannotRun(
                f"the folder of the versions cannot be read: {error.strerror}",
                looked_at=str(error.filename),
                do="correct folder in [deploy] of the site's file",
            ) from error
        return sorted(names, key=order)

    def current(self) -> str | None:
        """The version that users get. Raises CannotRun when it is gone."""
        link = self.folder / CURRENT
        if not link.is_symlink():
            return None
        version = link.readlink().name
        if not self.path(version).is_dir():
            raise CannotRun(
                f"the version in use, {version}, is gone",
                looked_at=str(self.path(version)),
                do="kuulo deploy rollback VERSION, with one of: " + (", ".join(self.all()) or "none"),
            )
        return version

    def history(self) -> list[str]:
        """The versions that are or were in use, the last one first."""
        try:
            said: Any = json.loads((self.folder / STATE).read_bytes())
            return [str(version) for version in said["used"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CannotRun(f"{STATE} cannot be read: {error}", looked_at=str(self.folder / STATE)) from error

    def before(self) -> str:
        """The version that was in use before the one that is. Raises UsageError when there is none."""
        current, there = self.current(), self.all()
        for version in self.history():
            if version != current and version in there:
                return version
        raise UsageError("there is no version to go back to", looked_at=str(self.folder), do="kuulo deploy list")

    def next(self, kuulo_version: str) -> str:
        """The name of the next version: Kuulo's, and a number that goes on."""
        numbers = [order(v)[-1] for v in self.all() if v.rpartition("-")[0] == kuulo_version]
        numbers += [order(v)[-1] for v in self.history() if v.rpartition("-")[0] == kuulo_version]
        return f"{kuulo_version}-{max(numbers, default=0) + 1}"

    def use(self, version: str, site: SiteFile) -> None:
        """Have users get this version from now on. Raises CannotRun, UsageError."""
        target = self.path(version)
        if not target.is_dir():
            raise UsageError(
                f"there is no version {version}",
                looked_at=", ".join(self.all()) or str(self.folder),
                do="kuulo deploy list",
            )
        try:
            self._link_modules(version)
            link(self.folder / CURRENT, Path(VERSIONS) / version)
            self._default_module(version, site)
            self._link_portal(target)
            used = [version, *(v for v in self.history() if v != version)]
            atomic.write_json(self.folder / STATE, {"schema": 1, "used": used})
            (self.folder / STATE).chmod(0o644)
        except OSError as error:
            raise CannotRun(
                f"the version cannot be put in use: {error.strerror}",
                looked_at=str(error.filename),
                do="run it as who owns these folders; it can be repeated",
            ) from error

    def _link_modules(self, version: str) -> None:
        if self.modules is None:
            return
        own = self.path(version) / "modules"
        for path in sorted(own.glob("*/*/*")):
            link(self.modules / path.parent.name / path.name, path)

    def _default_module(self, version: str, site: SiteFile) -> None:
        if self.modules is None:
            return
        systems = site.module.get("systems", (modulefiles.LMOD,))
        for name in sorted({path.name for path in (self.path(version) / "modules").glob("*/*")}):
            for path, file in modulefiles.defaults(name, version, systems).items():
                atomic.write_bytes(self.modules / path, file.text.encode())
                (self.modules / path).chmod(0o644)

    def _link_portal(self, target: Path) -> None:
        if self.portal is None:
            return
        self.portal.mkdir(parents=True, exist_ok=True)
        for app in sorted((target / "portal").glob("*")):
            link(self.portal / app.name, self.folder / CURRENT / "portal" / app.name)

    def prune(self) -> list[str]:
        """Take away the oldest beyond those that stay; the version in use and the one before it always do. What was
        removed. Raises CannotRun."""
        used = self.history()[:2]
        rest = [v for v in self.all() if v not in used]
        gone = rest[: max(0, len(rest) + len(used) - self.keep)]
        for version in gone:
            self.remove(version)
        return gone

    def remove(self, version: str) -> None:
        """Take a version away, with its modules. Raises CannotRun."""
        folder = self.path(version)
        try:
            for path in sorted((folder / "modules").glob("*/*/*")) if self.modules else ():
                there = self.modules / path.parent.name / path.name if self.modules else path
                if there.is_symlink() and there.readlink() == path:
                    there.unlink()
            for state in folder.glob("pinned/*/state.json"):
                _unpin(state, version)
            aside = folder.with_name(f".gone-{secrets.token_hex(6)}")
            folder.rename(aside)
            shutil.rmtree(aside)
        except OSError as error:
            raise CannotRun(f"{version} cannot be removed: {error.strerror}", looked_at=str(error.filename)) from error


def of(site: SiteFile) -> Versions:
    """The site's. Raises UsageError when its file does not say where they are."""
    folder = site.deploy.get("folder")
    if not folder:
        raise UsageError(
            "the site's file does not say where to deploy",
            looked_at="folder in [deploy]",
            do='write folder = "/appl/kuulo" under [deploy], or let `kuulo site init` ask',
        )
    modules, portal = site.deploy.get("modules"), site.portal.get("folder")
    return Versions(
        Path(folder),
        Path(modules) if modules else None,
        Path(portal) if portal else None,
        site.deploy.get("keep", KEEP),
    )


def link(path: Path, target: Path) -> None:
    """Make `path` a link to `target`, in one step. Raises OSError, also when what is in the way is no link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and path.readlink() == target:
        return
    if path.exists() and not path.is_symlink():
        raise FileExistsError(17, "something that is not of a deployment is in the way", str(path))
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    fresh.symlink_to(target)
    try:
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def order(version: str) -> list[int]:
    """By which versions are sorted: 0.1.0-10 comes after 0.1.0-9."""
    return [int(number) for number in re.findall(r"\d+", version)] or [0]


def pin(build: Path, version: str) -> None:
    """Have an engine's build stay as long as the version is there. A folder that we may not write keeps its builds by
    itself: who installs there finds out at the next sweep."""
    (build / KEPT).mkdir(exist_ok=True)
    (build / KEPT / version).touch()


def _unpin(state: Path, version: str) -> None:
    try:
        build = Path(json.loads(state.read_bytes())["build"])
    except (ValueError, KeyError, TypeError):
        return
    mark = build / KEPT / version
    if os.access(mark.parent, os.W_OK):
        mark.unlink(missing_ok=True)


def pinned(environments: Mapping[str, Environment]) -> dict[str, bytes]:
    """The states that a version has of its engines' environments: path -> content."""
    return {
        f"pinned/{name}/{installed.STATE}": atomic.encode_json(installed.state(environment, absolute=True))
        for name, environment in sorted(environments.items())
    }
