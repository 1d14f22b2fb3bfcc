"""Stores: folders of models. STORE/FORMAT/NAME/ holds a model's files and its manifest.

Several are looked into in order, the site's (read-only) before the user's. Nothing here needs a lock: a model is made
in a staging folder of its own and comes into place by one rename, so two who add it at once cannot mix their files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo import miniature
from kuulo.errors import ModelMissing, UsageError
from kuulo.models import catalog, check, manifest
from kuulo.models.binary import Damaged
from kuulo.models.manifest import MANIFEST, ModelFile, ModelRef

STAGING = ".staging"
VARIABLE = "KUULO_STORE"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CHUNK = 1 << 20

Progress = Callable[[int], None]
"""Called with the number of bytes that were just dealt with."""


@dataclass(frozen=True)
class Trouble:
    """Something in a store that is not a model, or a store that cannot be read."""

    path: Path
    problem: str


@dataclass(frozen=True)
class FileState:
    """What `verify` found of one file: ok, missing, changed, unreadable, or extra (not in the manifest)."""

    path: str
    state: str
    bytes: int


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


@dataclass(frozen=True)
class Stores:
    """Stores in the order in which they are looked into; what is added goes into the last. `spare`: the user's own
    cache, for what can be made again and has no other place."""

    layers: tuple[Store, ...]
    spare: Store | None = None

    @property
    def writable(self) -> Store:
        """The store that models are added to; raises UsageError when every one is read-only."""
        last = self.layers[-1] if self.layers else None
        if last is None or not last.writable:
            raise UsageError("there is no store to add to", looked_at=str(self), do=f"set {VARIABLE}")
        return last

    def __str__(self) -> str:
        """The folders, for messages."""
        return ", ".join(str(layer.folder) for layer in self.layers)

    def troubles(self) -> list[Trouble]:
        """What is wrong with the stores and the models in them."""
        return [trouble for layer in self.layers for trouble in layer.list()[1]]

    def list(self) -> list[ModelRef]:
        """All models, the best defaults first. What a later store has of the same name and format is not seen."""
        seen: dict[tuple[str, str], ModelRef] = {}
        for layer in self.layers:
            for ref in layer.list()[0]:
                seen.setdefault((ref.format, ref.name), ref)
        return sorted(seen.values(), key=lambda ref: (ref.rank, ref.name, ref.format))

    def find(self, name: str, formats: Sequence[str]) -> ModelRef | None:
        """The model by name or alias, in the first of the formats that a store has; raises ModelMissing when its
        manifest is broken."""
        for wanted in dict.fromkeys((name, catalog.canonical(name))):
            for format_ in formats:
                for layer in self.layers:
                    ref = layer.find(wanted, format_)
                    if ref is not None:
                        return ref
        return None

    def resolve(self, name_or_path: str, formats: Sequence[str]) -> ModelRef:
        """The model by name, or at a path (anything with a slash); its files were checked (headers and sizes). The
        built-in one is written first, where no store has it.

        Raises ModelMissing with the command that gets it."""
        if is_path(name_or_path):
            return at_path(Path(name_or_path).expanduser(), formats)
        ref: ModelRef | None = None
        if name_or_path == miniature.NAME:
            from kuulo.models import built_in  # which is about stores itself

            ref = built_in.provide(self, formats)
        elif NAME_PATTERN.fullmatch(name_or_path):
            ref = self.find(name_or_path, formats)
        if ref is None:
            raise self._missing(name_or_path, formats)
        found = size_problems(ref) or check.problems(ref.format, ref.path)
        if found:
            raise ModelMissing(
                f"the model {ref.name} ({ref.format}) is damaged: {'; '.join(found)}",
                looked_at=str(ref.path),
                do=f"kuulo models pull {ref.name} --format {ref.format} --replace, or add it again",
            )
        return ref

    def _missing(self, name: str, formats: Sequence[str]) -> ModelMissing:
        known = catalog.load().get(catalog.canonical(name))
        looked = f"stores: {self}"
        if Path(name).exists():
            do = f"to use the {'folder' if Path(name).is_dir() else 'file'} of that name, write ./{name}"
            return ModelMissing(f"no store has a model {name}", looked_at=looked, do=do)
        what = f"no store has the model {name} as {' or '.join(formats)}"
        others = sorted({r.format for r in self.list() if r.name in (name, catalog.canonical(name))})
        if others:
            what += f" (there is one as {', '.join(others)}, for other engines)"
        if known:
            able = next((f for f in formats if f in known.sources), None)
            if able:
                return ModelMissing(what, looked_at=looked, do=f"kuulo models pull {name} --format {able}")
            has = ", ".join(known.sources)
            do = f"the catalogue has it as {has} alone: take another engine, or convert it and `kuulo models add` it"
            return ModelMissing(what, looked_at=looked, do=do)
        close = catalog.near(name, [r.name for r in self.list() if r.format in formats])
        if close:
            return ModelMissing(what, looked_at=looked, do=f"did you mean {close}, which is in the store?")
        close = catalog.near(name, [n for n, e in catalog.load().items() if set(formats) & set(e.sources)])
        if close:
            do = f"did you mean {close}? kuulo models pull {close} --format {_first(close, formats)}"
        else:
            do = "`kuulo models list --catalog` shows what can be pulled; `kuulo models add PATH` takes your own"
        return ModelMissing(what, looked_at=looked, do=do)


def _first(name: str, formats: Sequence[str]) -> str:
    return next(f for f in formats if f in catalog.load()[name].sources)


def stores_from(
    environ: Mapping[str, str], site_stores: Sequence[Path], user_data_dir: Path, user_cache_dir: Path | None = None
) -> Stores:
    """The site's stores (read-only), then those that $KUULO_STORE lists (the last one is written to), or else the
    user's own, USER_DATA_DIR/models. USER_CACHE_DIR/models is the spare one."""
    named = [Path(part).expanduser() for part in environ.get(VARIABLE, "").split(os.pathsep) if part]
    own = named or [user_data_dir / "models"]
    read_only = [*site_stores, *own[:-1]]
    spare = Store(user_cache_dir / "models") if user_cache_dir else None
    return Stores((*(Store(folder, writable=False) for folder in read_only), Store(own[-1])), spare)


def is_path(text: str) -> bool:
    """Whether a user means a path, not a name: whatever has a slash (./small), and `~`, `.` and `..`."""
    return "/" in text or os.sep in text or text in (".", "..", "~")


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


def at_path(path: Path, formats: Sequence[str]) -> ModelRef:
    """A model outside the stores, checked and hashed (which reads it whole); raises ModelMissing."""
    if (path / MANIFEST).is_file() and not (path / "config.json").exists():
        path = _only_file(path)
    if not path.exists():
        raise ModelMissing("there is no model at this path", looked_at=str(path.absolute()), do="correct the path")
    format_ = _detect(path)
    if format_ not in formats:
        raise ModelMissing(
            f"the model at this path is {check.FORMATS[format_].NAME}, and {' or '.join(formats)} is needed",
            looked_at=str(path.absolute()),
            do="take an engine that reads it: `kuulo engines` lists their formats",
        )
    _refuse_damaged(format_, path)
    return _described(_default_name(path, format_), format_, path, hash_files(format_, path))


def add(
    store: Store,
    path: Path,
    *,
    name: str | None = None,
    format_: str | None = None,
    link: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> ModelRef:
    """Puts a model folder or file into the store: found out, checked, hashed, copied (or linked), put in place.

    Raises ModelMissing when the files are not what they should be, UsageError when the name is taken or is none."""
    if not path.exists():
        raise ModelMissing("there is nothing at this path", looked_at=str(path.absolute()), do="correct the path")
    format_ = format_ or _detect(path)
    name = free_name(name or _default_name(path, format_))
    target = store.place(name, format_)
    if target.is_dir() and not replace:
        raise UsageError(
            f"the store already has {name} as {format_}",
            looked_at=str(target),
            do="give --replace to put this one in its place, or --name for another name",
        )
    _refuse_damaged(format_, path)
    with store.staging("add") as staged:
        try:
            files = tuple(_bring(file, staged, link=link, progress=progress) for file in check.files(format_, path))
        except OSError as error:
            raise store_error(store.folder, error) from error
        ref = dataclasses.replace(described(name, format_, staged, files), source=str(path.absolute()), added=now())
        return store.install(ref, staged, replace=replace)


def verify(ref: ModelRef, progress: Progress | None = None) -> Iterator[FileState]:
    """Reads every file of a model again and says whether it is what the manifest says; files beside them last."""
    for file in ref.files:
        path = ref.folder / file.path
        try:
            same = path.stat().st_size == file.bytes and hash_file(path, progress) == file.sha256
            yield FileState(file.path, "ok" if same else "changed", file.bytes)
        except FileNotFoundError:
            yield FileState(file.path, "missing", file.bytes)
        except OSError:
            yield FileState(file.path, "unreadable", file.bytes)
    known = {file.path for file in ref.files} | {MANIFEST}
    for path in sorted(ref.folder.iterdir()):
        if path.name not in known:
            yield FileState(path.name, "extra", path.stat().st_size if path.is_file() else 0)


def size_problems(ref: ModelRef) -> list[str]:
    """Files whose size is not what the manifest says."""
    found = []
    for file in ref.files:
        path = ref.folder / file.path
        if not path.is_file():
            found.append(f"{file.path} is missing")
        elif path.stat().st_size != file.bytes:
            found.append(f"{file.path} has {path.stat().st_size} bytes, and {file.bytes} when it was added")
    return found


def hash_files(format_: str, path: Path, progress: Progress | None = None) -> tuple[ModelFile, ...]:
    """The files of a model with their digests and sizes."""
    return tuple(
        ModelFile(file.name, hash_file(file, progress), file.stat().st_size) for file in check.files(format_, path)
    )


def hash_file(path: Path, progress: Progress | None = None) -> str:
    """sha256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if progress:
                progress(len(chunk))
    return digest.hexdigest()


def now() -> str:
    """The time, ISO 8601 in UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _described(name: str, format_: str, path: Path, files: tuple[ModelFile, ...]) -> ModelRef:
    facts = check.describe(format_, path)
    return ModelRef(name, format_, path, files, multilingual=facts.multilingual, translates=facts.translates)


def described(name: str, format_: str, staged: Path, files: tuple[ModelFile, ...]) -> ModelRef:
    """A ref to the files in a staging folder, with what they tell of the model."""
    return _described(name, format_, staged if format_ in check.FOLDERS else staged / files[0].path, files)


def _detect(path: Path) -> str:
    try:
        found = check.detect_format(path)
    except OSError as error:
        raise ModelMissing(f"this cannot be read: {error.strerror}", looked_at=str(path.absolute())) from error
    if found is None:
        raise ModelMissing(
            "this is no Whisper model in a format that an engine here reads",
            looked_at=str(path.absolute()),
            do="formats: " + "; ".join(f"{name}: {check.FORMATS[name].NAME}" for name in sorted(check.FORMATS)),
        )
    return found


def _refuse_damaged(format_: str, path: Path) -> None:
    found = check.problems(format_, path)
    if found:
        raise ModelMissing(
            f"this is no good {check.FORMATS[format_].NAME} model: {'; '.join(found)}",
            looked_at=str(path.absolute()),
            do="copy or download it again",
        )


def _only_file(folder: Path) -> Path:
    """The one file of a ggml or pt model's folder in a store, or the folder."""
    try:
        return manifest.read(folder.absolute(), "path").path
    except Damaged:
        return folder


def _default_name(path: Path, format_: str) -> str:
    """A name from the path: ggml-small.bin -> small, models--Org--faster-whisper-x/snapshots/COMMIT -> its own."""
    path = path.absolute()
    stem = path.stem if format_ not in check.FOLDERS else path.name
    if re.fullmatch(r"[0-9a-f]{40}", stem) and path.parent.name == "snapshots":
        stem = path.parent.parent.name.split("--")[-1]
    for entry in catalog.load().values():
        repo = entry.sources[format_].repo if format_ in entry.sources else None
        if repo and format_ != "ggml" and repo.split("/")[-1] == stem:
            return entry.name
    return stem.removeprefix("ggml-") if format_ == "ggml" else stem


def _bring(file: Path, folder: Path, *, link: bool, progress: Progress | None) -> ModelFile:
    """Copies or links one file, hashing it on the way."""
    target = folder / file.name
    if link:
        real = file.resolve()
        try:
            os.link(real, target)
        except OSError:  # another file system, or one without hard links
            target.symlink_to(real)
        return ModelFile(file.name, hash_file(target, progress), target.stat().st_size)
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as source, target.open("xb") as copy:
        while chunk := source.read(CHUNK):
            copy.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if progress:
                progress(len(chunk))
    return ModelFile(file.name, digest.hexdigest(), size)


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
