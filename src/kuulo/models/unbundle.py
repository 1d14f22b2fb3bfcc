"""Takes models out of a bundle into a store: each is read, hashed and checked in a staging folder, then put in place.

A model that is in a store already is passed over, so that a transfer that was cut is simply begun again.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kuulo.errors import ModelMissing, UsageError
from kuulo.models import check, manifest, paths
from kuulo.models.binary import Damaged
from kuulo.models.bundle import INDEX, SUMS, Row, read_index
from kuulo.models.files import CHUNK, Progress, size_problems
from kuulo.models.manifest import MANIFEST, ModelFile, ModelRef
from kuulo.models.store import Store, store_error
from kuulo.models.tar_reader import TarReader, not_whole


@dataclass(frozen=True)
class Wanted:
    """A model of a bundle: its manifest, unread, and the folder that has it, where it is in one."""

    row: Row
    manifest: bytes
    folder: Path


Chunks = Callable[[ModelFile], Iterator[bytes]]
"""The content of a model's file."""


@dataclass(frozen=True)
class Taken:
    """A model of a bundle that is in the store now. `new`: it was not there before."""

    row: Row
    path: Path
    new: bool


def from_folders(
    folder: Path, stores: Sequence[Store], *, replace: bool, progress: Progress | None = None
) -> list[Taken]:
    """Takes every model of a bundle that is a folder, or an unpacked tar, into the last of the stores.

    Raises ModelMissing when it is no whole bundle or a model is not what its manifest says, UsageError when the store
    has another model so named, unless `replace`. Models before that one stay."""
    try:
        rows = read_index((folder / INDEX).read_bytes(), str(folder))
    except OSError as error:
        raise ModelMissing(
            f"this is no whole bundle: it has no {INDEX} that can be read",
            looked_at=str(folder),
            do="kuulo models bundle makes one; one that was cut is completed by the same command",
        ) from error
    store = stores[-1]
    there = prepare(rows, stores, replace=replace)
    taken = []
    for row in rows:
        place = folder / row.format / row.name
        if row.place not in there:
            try:
                data = (place / MANIFEST).read_bytes()
            except OSError as error:
                raise not_whole(f"{row.place}/{MANIFEST} cannot be read", str(folder)) from error
            from_folder(Wanted(row, data, place), store, str(folder), progress, replace=replace)
        elif progress:
            progress(row.bytes)
        taken.append(Taken(row, there.get(row.place, store.place(row.name, row.format)), row.place not in there))
    return taken


def from_folder(
    wanted: Wanted, store: Store, looked_at: str, progress: Progress | None = None, *, replace: bool = False
) -> bool:
    """Copies a model from a folder into the store, checked; False where it is there already."""
    if same_in(store, wanted.row):
        return False

    def chunks(file: ModelFile) -> Iterator[bytes]:
        if not paths.is_inside(wanted.folder, file.path):
            raise not_whole(f"{file.path} is outside the model's folder", looked_at)
        try:
            with (wanted.folder / file.path).open("rb") as opened:
                while chunk := opened.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise not_whole(f"{wanted.row.place}/{file.path} cannot be read: {error.strerror}", looked_at) from error

    put(store, wanted.row, wanted.manifest, chunks, looked_at, progress, replace=replace)
    return True


def from_tar(
    stream: IO[bytes], stores: Sequence[Store], looked_at: str, *, replace: bool, progress: Progress | None = None
) -> list[Taken]:
    """As `from_folders`, from a tar that is read once from its beginning to its end, as out of a pipe."""
    try:
        return _from_tar(stream, stores, looked_at, replace=replace, progress=progress)
    except (tarfile.TarError, UnicodeError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise not_whole(f"it is no tar that can be read ({error})", looked_at) from error


def _from_tar(
    stream: IO[bytes], stores: Sequence[Store], looked_at: str, *, replace: bool, progress: Progress | None
) -> list[Taken]:
    reader = TarReader(stream, looked_at)
    rows = read_index(reader.small(INDEX), looked_at)
    there = prepare(rows, stores, replace=replace)
    reader.small(SUMS)
    taken = []
    for row in rows:
        told = reader.small(f"{row.place}/{MANIFEST}")
        if row.place in there:
            for file in _files(row, told, stores[-1], looked_at):
                for chunk in reader.chunks(f"{row.place}/{file.path}", file.bytes):
                    if progress:
                        progress(len(chunk))
            taken.append(Taken(row, there[row.place], new=False))
            continue

        def chunks(file: ModelFile, row: Row = row) -> Iterator[bytes]:
            return reader.chunks(f"{row.place}/{file.path}", file.bytes)

        put(stores[-1], row, told, chunks, looked_at, progress, replace=replace)
        taken.append(Taken(row, stores[-1].place(row.name, row.format), new=True))
    reader.end()
    return taken


# ---------------------------------------------------------------------- into the store


def prepare(rows: Sequence[Row], stores: Sequence[Store], *, replace: bool) -> dict[str, Path]:
    """Where those models are that a store has already, with the same digest. Raises UsageError for others so named,
    and ModelMissing where there is too little space for the rest."""
    there = {row.place: found for row in rows for store in stores if (found := same_in(store, row))}
    coming = [row for row in rows if row.place not in there]
    refuse_others(coming, stores[-1], replace=replace)
    needed = sum(row.bytes for row in coming)
    free = _free(stores[-1].folder)
    if coming and free is not None and needed > free:
        raise ModelMissing(
            f"the bundle needs {needed / 1e9:.2f} GB, and there are {free / 1e9:.2f} GB free",
            looked_at=str(stores[-1].folder),
            do="free some space there, or take another folder (for a store: KUULO_STORE)",
        )
    return there


def same_in(store: Store, row: Row) -> Path | None:
    """Where the store has this very model, its files of the right sizes."""
    folder = store.place(row.name, row.format)
    try:
        ref = manifest.read(folder, str(store.folder))
    except Damaged:
        return None
    return folder if ref.digest == row.digest and not size_problems(ref) else None


def refuse_others(rows: Sequence[Row], store: Store, *, replace: bool) -> None:
    """Raises UsageError where the store has another model of the same name and format, unless `replace`."""
    others = [row for row in rows if store.place(row.name, row.format).exists() and not same_in(store, row)]
    if others and not replace:
        raise UsageError(
            "there is another model, or a damaged one, of the same name: " + ", ".join(row.place for row in others),
            looked_at=str(store.folder),
            do="give --replace to put the bundle's in its place, or remove it",
        )


def put(
    store: Store,
    row: Row,
    told: bytes,
    chunks: Chunks,
    looked_at: str,
    progress: Progress | None = None,
    *,
    replace: bool = False,
) -> ModelRef:
    """Writes a model's files into a staging folder, hashed on the way, checks them as when a model is added, and moves
    it into place. Raises ModelMissing when anything is not what it should be; nothing is left behind then."""
    with store.staging("unbundle") as staging:
        folder = staging / row.format / row.name
        try:
            folder.mkdir(parents=True)
            (folder / MANIFEST).write_bytes(told)
            ref = _read(row, folder, looked_at)
            for file in ref.files:
                _receive(folder / file.path, file, chunks(file), row, looked_at, progress)
        except OSError as error:
            raise store_error(store.folder, error) from error
        found = check.problems(ref.format, ref.path)
        if found:
            raise not_whole(f"{row.place} is no good model: {'; '.join(found)}", looked_at)
        try:
            return store.install(ref, folder, replace=replace)
        except UsageError:
            if same_in(store, row):  # somebody else was first with the same
                return manifest.read(store.place(row.name, row.format), str(store.folder))
            raise


def _read(row: Row, folder: Path, looked_at: str) -> ModelRef:
    """The model by its manifest, which must be that of the list."""
    try:
        ref = manifest.read(folder, looked_at)
    except Damaged as error:
        raise not_whole(f"{row.place}: {error}", looked_at) from error
    names = {file.path for file in ref.files}
    if len(names) != len(ref.files) or any(file.bytes < 0 for file in ref.files):
        raise not_whole(f"{row.place}: its manifest names a file twice, or with no size", looked_at)
    if (ref.digest, ref.bytes) != (row.digest, row.bytes):
        raise not_whole(f"{row.place}: its manifest is not the one in {INDEX}", looked_at)
    return ref


def _files(row: Row, told: bytes, store: Store, looked_at: str) -> tuple[ModelFile, ...]:
    """The files of a model that is passed over, by its manifest."""
    with store.staging("unbundle") as staging:
        folder = staging / row.format / row.name
        try:
            folder.mkdir(parents=True)
            (folder / MANIFEST).write_bytes(told)
        except OSError as error:
            raise store_error(store.folder, error) from error
        return _read(row, folder, looked_at).files


def _receive(
    path: Path, file: ModelFile, chunks: Iterator[bytes], row: Row, looked_at: str, progress: Progress | None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as out:
        for chunk in chunks:
            size += len(chunk)
            if size > file.bytes:
                break
            out.write(chunk)
            digest.update(chunk)
            if progress:
                progress(len(chunk))
    if (size, digest.hexdigest()) != (file.bytes, file.sha256):
        raise not_whole(f"{row.place}/{file.path} is not what its digest says", looked_at)


def _free(folder: Path) -> int | None:
    """Bytes that are free where the folder is or will be."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        return shutil.disk_usage(nearest).free
    except (OSError, StopIteration):
        return None
