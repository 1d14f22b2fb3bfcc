"""Model files that somebody has: found out what they are, checked, hashed, and put into a store."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from kuulo.errors import ModelMissing, UsageError
from kuulo.models import catalog, check, manifest, pyannote
from kuulo.models.binary import Damaged
from kuulo.models.files import CHUNK, Progress, hash_file, hash_files
from kuulo.models.manifest import MANIFEST, ModelFile, ModelRef
from kuulo.models.store import Store, free_name, now, store_error


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
    if format_ != "pyannote":
        _refuse_damaged(format_, path)
    with store.staging("add") as staged:
        try:
            names = check.names(format_, path)
            source = path if format_ in check.FOLDERS else path.parent
            files = tuple(_bring(source, name, staged, link=link, progress=progress) for name in names)
            if format_ == "pyannote":  # whose config.yaml is made to name the parts that lie beside it
                files = localized(staged, files)
                _refuse_damaged(format_, staged, told=path)
        except OSError as error:
            raise store_error(store.folder, error) from error
        ref = dataclasses.replace(described(name, format_, staged, files), source=str(path.absolute()), added=now())
        return store.install(ref, staged, replace=replace)


def _described(name: str, format_: str, path: Path, files: tuple[ModelFile, ...]) -> ModelRef:
    facts = check.describe(format_, path)
    return ModelRef(name, format_, path, files, multilingual=facts.multilingual, translates=facts.translates)


def described(name: str, format_: str, staged: Path, files: tuple[ModelFile, ...]) -> ModelRef:
    """A ref to the files in a staging folder, with what they tell of the model."""
    return _described(name, format_, staged if format_ in check.FOLDERS else staged / files[0].path, files)


def localized(staged: Path, files: tuple[ModelFile, ...]) -> tuple[ModelFile, ...]:
    """The files of a pyannote pipeline in a staging folder, after its config.yaml names its parts there. Where it is
    no configuration it is left as it is: the check says so."""
    try:
        if not pyannote.localize(staged):
            return files
    except Damaged:
        return files
    config = staged / pyannote.CONFIG
    changed = ModelFile(pyannote.CONFIG, hash_file(config), config.stat().st_size)
    return tuple(changed if file.path == pyannote.CONFIG else file for file in files)


def _detect(path: Path) -> str:
    try:
        found = check.detect_format(path)
    except OSError as error:
        raise ModelMissing(f"this cannot be read: {error.strerror}", looked_at=str(path.absolute())) from error
    if found is None:
        raise ModelMissing(
            "this is no model in a format that an engine here reads",
            looked_at=str(path.absolute()),
            do="formats: " + "; ".join(f"{name}: {check.FORMATS[name].NAME}" for name in sorted(check.FORMATS)),
        )
    return found


def _refuse_damaged(format_: str, path: Path, *, told: Path | None = None) -> None:
    """`told`: the path that people know, where it is another."""
    found = check.problems(format_, path)
    if found:
        raise ModelMissing(
            f"this is no good {check.FORMATS[format_].NAME} model: {'; '.join(found)}",
            looked_at=str((told or path).absolute()),
            do="copy or download it again",
        )


def _only_file(folder: Path) -> Path:
    """The one file of a ggml, nemo or pt model's folder in a store, or the folder."""
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


def _bring(source: Path, name: str, folder: Path, *, link: bool, progress: Progress | None) -> ModelFile:
    """Copies or links one file, hashing it on the way."""
    file, target = source / name, folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    # A configuration may be changed, which must not change the file that it came from.
    if link and name != pyannote.CONFIG:
        real = file.resolve()
        try:
            os.link(real, target)
        except OSError:  # another file system, or one without hard links
            target.symlink_to(real)
        return ModelFile(name, hash_file(target, progress), target.stat().st_size)
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as opened, target.open("xb") as copy:
        while chunk := opened.read(CHUNK):
            copy.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if progress:
                progress(len(chunk))
    return ModelFile(name, digest.hexdigest(), size)
