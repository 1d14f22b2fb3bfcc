"""The environments on this machine.

    FOLDER/ENGINE/state.json     written last: says which build is in use
    FOLDER/ENGINE/BUILD/         a virtual environment; other builds than that of the state are half built, or old

A new build comes beside the old one and is in use from the moment that the state names it, so that jobs that run go
on with theirs; the next installation removes it. No file is locked: shared file systems may have no locks.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kuulo import atomic, machine
from kuulo.errors import CannotRun, EngineMissing

VARIABLE = "KUULO_ENVIRONMENTS"
STATE = "state.json"
BUILDING = ".building"
KEPT = ".kept-for"
"""In a build's folder: the deployed versions that use it, an empty file for each."""

SCHEMA = 1

ABANDONED_SECONDS = 24 * 3600
"""A build that another machine began is taken for abandoned after so long."""


@dataclass(frozen=True)
class Environment:
    """An installed environment: `folder` is the virtual environment, `packages` distribution -> version. Of one that is
    a container image, `image` is the image's file in the folder, and its Python is inside."""

    engine: str
    folder: Path
    variant: str
    python: str
    lock_sha256: str
    packages: Mapping[str, str] = field(default_factory=dict)
    installed: str = ""
    kuulo: str = ""
    heard: str = ""
    """What its health check said; empty when it was installed without one."""
    image: str = ""

    @property
    def image_path(self) -> Path | None:
        """The container image, of one that is an image."""
        return self.folder / self.image if self.image else None

    @property
    def kind(self) -> str:
        """`image` or `environment`, for people."""
        return "image" if self.image else "environment"

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    def version(self, package: str) -> str | None:
        """Of one of its packages, by any spelling of the name; `packages` has the canonical one."""
        from packaging.utils import canonicalize_name

        return self.packages.get(canonicalize_name(package))

    def program(self, name: str) -> Path:
        """A program of the environment; raises EngineMissing when it has none of that name."""
        path = self.folder / "bin" / name
        if os.sep in name or not os.access(path, os.X_OK):
            raise EngineMissing(
                f"the environment of {self.engine} has no program {name}", looked_at=str(self.folder / "bin")
            )
        return path

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class Environments:
    """Folders of environments, the nearest first: that one is written to, the others are the site's."""

    folders: tuple[Path, ...]

    @property
    def writable(self) -> Path:
        return self.folders[0]

    def find(self, engine: str) -> Environment | None:
        """The engine's environment; raises CannotRun when its state is broken."""
        for folder in self.folders:
            found = _read(folder / engine)
            if found is not None:
                return found
        return None

    def all(self) -> tuple[dict[str, Environment], dict[str, CannotRun]]:
        """Every engine's environment, and what is wrong with those that cannot be used."""
        found: dict[str, Environment] = {}
        broken: dict[str, CannotRun] = {}
        for name in sorted({path.parent.name for folder in self.folders for path in folder.glob(f"*/{STATE}")}):
            try:
                environment = self.find(name)
            except CannotRun as error:
                broken[name] = error
            else:
                if environment is not None:
                    found[name] = environment
        return found, broken


def environments_from(environ: Mapping[str, str], site: Sequence[Path], user_data_dir: Path) -> Environments:
    """The folders that $KUULO_ENVIRONMENTS lists (the first one is written to), or else the user's own,
    USER_DATA_DIR/environments; after them the site's."""
    named = [Path(part).expanduser() for part in environ.get(VARIABLE, "").split(os.pathsep) if part]
    return Environments((*(named or [user_data_dir / "environments"]), *site))


def _read(home: Path) -> Environment | None:
    path = home / STATE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["schema"] > SCHEMA:
            raise ValueError(f"schema {said['schema']} is of a newer Kuulo")
        names = set(Environment.__dataclass_fields__) - {"folder"}
        found = Environment(folder=home.absolute() / said["build"], **{k: v for k, v in said.items() if k in names})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotRun(
            f"the state of the environment of {home.name} cannot be read: {error}",
            looked_at=str(path),
            do=f"kuulo engines remove {home.name}, and install it again",
        ) from error
    if found.image_path is not None:
        if not found.image_path.is_file():
            raise CannotRun(
                f"the image of {home.name} is gone",
                looked_at=str(found.image_path),
                do=f"kuulo image build {home.name}",
            )
    elif not found.interpreter.exists():  # a link into a Python that may be gone
        raise CannotRun(
            f"the environment of {home.name} has no working Python",
            looked_at=str(found.interpreter),
            do=f"kuulo engines install {home.name}",
        )
    return found


def state(environment: Environment, *, absolute: bool = False) -> dict[str, Any]:
    """What a state file says. With `absolute` it may lie anywhere, not just beside the build."""
    build = str(environment.folder.absolute()) if absolute else environment.folder.name
    said = {"schema": SCHEMA, "build": build, **environment.to_json()}
    del said["folder"]
    return said


def put_in_use(environment: Environment) -> None:
    """Writes the state, the last step of an installation. Raises OSError."""
    said = state(environment)
    (environment.folder / BUILDING).unlink(missing_ok=True)
    atomic.write_json(environment.folder.parent / STATE, said)


def begin(build: Path) -> None:
    """Makes the folder's parents and says who builds in it, for `sweep`. Raises OSError."""
    build.mkdir(parents=True)
    atomic.write_json(build / BUILDING, {"host": socket.gethostname(), "pid": os.getpid(), "began": time.time()})


def sweep(home: Path) -> list[Path]:
    """Removes builds that are half built and not in work, and those that are not in use any more; what was removed.

    Raises OSError when one cannot be removed."""
    gone = unused(home)
    for folder in gone:
        shutil.rmtree(folder)
    return gone


def unused(home: Path) -> list[Path]:
    """Builds of an engine that nobody uses or makes at this moment. Raises OSError."""
    try:
        in_use = json.loads((home / STATE).read_text(encoding="utf-8")).get("build")
    except (OSError, ValueError):
        in_use = None
    found = [folder for folder in sorted(home.iterdir()) if folder.is_dir()] if home.is_dir() else []
    return [f for f in found if f.name != in_use and not _in_work(f) and not kept_for(f)]


def kept_for(build: Path) -> list[str]:
    """The deployed versions that use a build."""
    return sorted(path.name for path in (build / KEPT).glob("*"))


def _in_work(build: Path) -> bool:
    """Whether somebody builds it at this moment."""
    try:
        said = json.loads((build / BUILDING).read_text(encoding="utf-8"))
        host, pid, began = str(said["host"]), int(said["pid"]), float(said["began"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        began, host, pid = build.stat().st_mtime, "", 0
    if host != socket.gethostname():
        return time.time() - began < ABANDONED_SECONDS
    return machine.has_process(pid)


def remove(home: Path) -> None:
    """Removes an engine's environment and all its builds. The state goes first: what is left when this is interrupted
    is half built, and swept. Raises OSError."""
    (home / STATE).unlink(missing_ok=True)
    shutil.rmtree(home)
