"""A store: a folder of models. STORE/FORMAT/NAME/ holds a model's files and its manifest.

Nothing here needs a lock: a model is made
in a staging folder of its own and comes into place by one rename, so two who add it at once cannot mix their files.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kuulo import miniature
from kuulo.errors import ModelMissing, UsageError
from kuulo.models import check, manifest
from kuulo.models.binary import Damaged
from kuulo.models.manifest import ModelRef

STAGING = ".staging"
VARIABLE = "KUULO_STORE"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Trouble:
    """Something in a store that is not a model, or a store that cannot be read."""

    path: Path
    problem: str


@dataclass(frozen=True)
class Store:
    """One folder of models; it need not exist."""

    folder: Path
    writable: bool = True

    def place(self, name: str, format_: str) -> Path:
        """The folder of a model; raises UsageError for a name that is none."""
        if format_ not in check.FORMATS:
            raise UsageError(f"{format_!r} is no model format", do=f"formats: {', '.join(sorted(check.FORMATS))}")
        return self.folder / format_ / valid_name(name)

    def list(self) -> tuple[list[ModelRef], list[Trouble]]:
        """The models, by format and name, and what is wrong. Never raises: a broken model is a Trouble."""
        models: list[ModelRef] = []
        troubles: list[Trouble] = []
        for format_ in sorted(check.FORMATS):
            for folder in _folders(self.folder / format_, troubles):
                try:
                    models.append(manifest.read(folder, str(self.folder)))
                except Damaged as error:
                    troubles.append(Trouble(folder, str(error)))
        return models, troubles

    def find(self, name: str, format_: str) -> ModelRef | None:
        """The model, or None when it is not here; raises ModelMissing when its manifest is broken."""
        folder = self.place(name, format_)
        if not folder.is_dir():
            return None
        try:
            return manifest.read(folder, str(self.folder))
        except Damaged as error:
            raise ModelMissing(
                f"the model {name} ({format_}) in the store is broken: {error}",
                looked_at=str(folder),
                do=f"kuulo models remove {name} --format {format_} --yes, then pull or add it again",
            ) from error

    @contextlib.contextmanager
    def staging(self, purpose: str) -> Iterator[Path]:
        """A new folder in the store that is gone in the end, if it was not moved into place."""
        folder = self.folder / STAGING / f"{purpose}-{uuid.uuid4().hex}"
        self._make(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def install(self, ref: ModelRef, staged: Path, *, replace: bool = False) -> ModelRef:
        """Writes the manifest into `staged`, which has ref.files, and moves it into place: all or nothing.

        Raises UsageError when the model is there already, unless `replace`."""
        target = self.place(ref.name, ref.format)
        manifest.write(ref, staged)
        self._make(target.parent)
        try:
            _move_into_place(staged, target, replace=replace)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise store_error(self.folder, error) from error
            raise UsageError(
                f"the store already has {ref.name} as {ref.format}",
                looked_at=str(target),
                do="give --replace to put this one in its place, or --name for another name",
            ) from error
        return manifest.read(target, str(self.folder))

    def remove(self, name: str, format_: str) -> Path:
        """Removes a model, also a broken one, and gives the folder that it was in; raises ModelMissing."""
        target = self.place(name, format_)
        if not self.writable:
            raise UsageError("this store is read-only", looked_at=str(self.folder))
        if not target.is_dir():
            raise ModelMissing(f"no model {name} ({format_}) here", looked_at=str(target), do="kuulo models list")
        with self.staging("remove") as folder:
            try:
                target.rename(folder / target.name)
            except OSError as error:
                raise store_error(self.folder, error) from error
        return target

    def _make(self, folder: Path) -> None:
        if not self.writable:
            raise UsageError("this store is read-only", looked_at=str(self.folder), do=f"set {VARIABLE} to another")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(self.folder, error) from error


def valid_name(name: str) -> str:
    """The name as it is; raises UsageError when it could not be a folder's name everywhere."""
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a model's name",
            do="letters, digits, '.', '_' and '-', at most 100, beginning with a letter or digit",
        )
    return name


def free_name(name: str) -> str:
    """The name as it is; raises UsageError when it is that of the built-in model, or none."""
    if name == miniature.NAME:
        raise UsageError(f"{name} is the name of the built-in model", do="give --name with another")
    return valid_name(name)


def now() -> str:
    """The time, ISO 8601 in UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _move_into_place(staged: Path, target: Path, *, replace: bool) -> None:
    """One rename, which fails when the target has anything in it. With `replace`, what was there steps aside first,
    and comes back when the rename fails."""
    if not (replace and target.is_dir()):
        staged.rename(target)
        return
    aside = staged.with_name(f"{staged.name}.old")
    target.rename(aside)
    try:
        staged.rename(target)
    except OSError:
        with contextlib.suppress(OSError):
            aside.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _folders(folder: Path, troubles: list[Trouble]) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        troubles.append(Trouble(folder, f"cannot be read: {error.strerror}"))
        return []


def store_error(folder: Path, error: OSError) -> ModelMissing:
    """What to tell people of a store that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return ModelMissing(
        f"the store cannot be written: {error.strerror or error}",
        looked_at=str(folder),
        do="free some space, or set KUULO_STORE to a folder with more"
        if full
        else f"set {VARIABLE} to a folder of yours",
    )
