"""Models to carry to a machine without a network: a folder, or a tar of one.

    kuulo-models/bundle.json                    which models, and the digest of each
    kuulo-models/SHA256SUMS                     the digests of all files, as sha256sum(1) checks them
    kuulo-models/FORMAT/NAME/kuulo-model.json   for each model: its manifest,
    kuulo-models/FORMAT/NAME/...                and its files

The tar is plain (POSIX pax, not compressed: weights hardly get smaller), in this order, so that who reads it from a
pipe knows what comes. Neither times nor owners are in it: the same models make the same bytes. Unpacked by tar(1) it is
a store like any other.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from kuulo import atomic
from kuulo.errors import CannotRun, KuuloError, ModelMissing, UsageError
from kuulo.models import check
from kuulo.models.files import CHUNK, Progress, size_problems
from kuulo.models.manifest import MANIFEST, ModelRef
from kuulo.models.store import NAME_PATTERN, Store

TOP = "kuulo-models"
INDEX = "bundle.json"
SUMS = "SHA256SUMS"
SCHEMA = 1
MOST = 64 << 20
"""Bytes of a list or manifest; those of large stores are some thousand times smaller."""

PACKED = (".gz", ".tgz", ".zip", ".xz", ".bz2", ".zst", ".7z")


@dataclass(frozen=True)
class Row:
    """A model in a bundle: `digest` is the manifest's, `bytes` those of its files."""

    format: str
    name: str
    digest: str
    bytes: int

    @property
    def place(self) -> str:
        """Its folder's name in the bundle."""
        return f"{self.format}/{self.name}"

    @classmethod
    def of(cls, ref: ModelRef) -> Row:
        return cls(ref.format, ref.name, ref.digest, ref.bytes)


def is_tar(name: str) -> bool:
    """Whether a bundle of that name is a tar; else it is a folder. Raises UsageError for names of packed archives."""
    if name.lower().endswith(PACKED):
        raise UsageError(f"{name}: a bundle is not compressed", do="end its name in .tar, or name a folder")
    return name.lower().endswith(".tar")


def index(refs: Sequence[ModelRef]) -> bytes:
    """The file bundle.json."""
    return atomic.encode_json({"schema": SCHEMA, "models": [asdict(Row.of(ref)) for ref in refs]})


def read_index(data: bytes, looked_at: str) -> list[Row]:
    """The rows of a bundle.json; raises ModelMissing for one that is not understood, or names what is no model."""
    try:
        told = json.loads(data)
        if told["schema"] > SCHEMA:
            raise _no_bundle(f"it is of schema {told['schema']}, which this Kuulo does not know", looked_at)
        rows = [_row(row) for row in told["models"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_bundle(
            f"its {INDEX} is not what it should be ({type(error).__name__}: {error})", looked_at
        ) from error
    if len({row.place for row in rows}) != len(rows):
        raise _no_bundle(f"its {INDEX} names a model twice", looked_at)
    return rows


def _row(told: dict[str, Any]) -> Row:
    row = Row(str(told["format"]), str(told["name"]), str(told["digest"]), int(told["bytes"]))
    if row.format not in check.FORMATS or not NAME_PATTERN.fullmatch(row.name) or row.bytes < 0:
        raise ValueError(f"no model: {row.place!r}")
    return row


def _no_bundle(why: str, looked_at: str) -> ModelMissing:
    return ModelMissing(f"this is no bundle of models: {why}", looked_at=looked_at, do="kuulo models bundle makes one")


def sums(refs: Sequence[ModelRef]) -> bytes:
    """The file SHA256SUMS."""
    lines = []
    for ref in refs:
        folder = f"{ref.format}/{ref.name}"
        lines.append(_sum(hashlib.sha256(manifest_bytes(ref)).hexdigest(), f"{folder}/{MANIFEST}"))
        lines += [_sum(file.sha256, f"{folder}/{file.path}") for file in ref.files]
    return "".join(lines).encode("utf-8", "surrogateescape")


def _sum(digest: str, name: str) -> str:
    """As sha256sum writes it: names with a backslash or a line's end are escaped, and the line says so."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return ("\\" if escaped != name else "") + f"{digest}  {escaped}\n"


def manifest_bytes(ref: ModelRef) -> bytes:
    """The model's manifest as it is. Raises ModelMissing."""
    try:
        return (ref.folder / MANIFEST).read_bytes()
    except OSError as error:
        raise _unreadable(ref, MANIFEST, error) from error


def write_tar(refs: Sequence[ModelRef], out: IO[bytes], progress: Progress | None = None) -> None:
    """Writes a bundle into a file or pipe. Raises ModelMissing when a model is not what its manifest says: what was
    written up to there is no whole bundle, and who reads it sees that. Raises OSError of `out`."""
    refuse_damaged(refs)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar:
        _add_bytes(tar, INDEX, index(refs))
        _add_bytes(tar, SUMS, sums(refs))
        for ref in refs:
            _add_bytes(tar, f"{ref.format}/{ref.name}/{MANIFEST}", manifest_bytes(ref))
            for file in ref.files:
                with _opened(ref, file.path) as opened:
                    hashed = _Hashed(opened, progress)
                    tar.addfile(_member(f"{ref.format}/{ref.name}/{file.path}", file.bytes), hashed)
                    if hashed.digest.hexdigest() != file.sha256:
                        raise _damaged(ref, f"{file.path} has changed since it was added")


def tar_to(path: Path, refs: Sequence[ModelRef], *, replace: bool, progress: Progress | None = None) -> bool:
    """Writes a bundle as the file `path`, whole or not at all. False where it is there already, with these models.

    Raises UsageError where something else is there, unless `replace`; CannotRun where it cannot be written."""
    there = _index_of(path)
    if there == index(refs):
        return False
    if os.path.lexists(path) and not replace:
        what = "a bundle of other models" if there else "something else"
        raise UsageError(f"{what} is there already", looked_at=str(path), do="name another file, or give --replace")
    partial = path.with_name(f".kuulo-bundle-{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as out:
            write_tar(refs, out, progress)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError as error:
        raise CannotRun(f"the bundle cannot be written: {error.strerror or error}", looked_at=str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
    return True


def _index_of(path: Path) -> bytes | None:
    """bundle.json of a bundle that is there, its first file; None where there is none."""
    if not path.is_file():  # opening a pipe would wait
        return None
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            first = tar.next()
            content = tar.extractfile(first) if first and first.name == f"{TOP}/{INDEX}" else None
            return content.read(MOST) if content else None
    except (OSError, tarfile.TarError, ValueError):
        return None


def folder_to(folder: Path, refs: Sequence[ModelRef], *, replace: bool, progress: Progress | None = None) -> list[bool]:
    """Makes or completes a bundle that is a folder: for each model, whether it had to be copied. The list comes last,
    so that a folder without it is seen to be not whole.

    Raises UsageError for a folder of other things, or with other models so named, unless `replace`."""
    from kuulo.models import unbundle

    if folder.is_dir() and not (folder / INDEX).exists() and any(_foreign(folder)):
        raise UsageError(
            "there are other things in this folder", looked_at=str(folder), do="name one that is empty, or a new one"
        )
    refuse_damaged(refs)
    target = Store(folder)
    wanted = [unbundle.Wanted(Row.of(ref), manifest_bytes(ref), ref.folder) for ref in refs]
    unbundle.prepare([w.row for w in wanted], [target], replace=replace)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        copied = [unbundle.from_folder(w, target, str(w.folder), progress, replace=replace) for w in wanted]
        every = target.list()[0]
        atomic.write_bytes(folder / SUMS, sums(every))
        atomic.write_bytes(folder / INDEX, index(every))
    except OSError as error:
        raise CannotRun(f"the bundle cannot be written: {error.strerror or error}", looked_at=str(folder)) from error
    return copied


def _foreign(folder: Path) -> Iterator[Path]:
    own = {*check.FORMATS, ".staging", SUMS}
    return (path for path in folder.iterdir() if path.name not in own)


def refuse_damaged(refs: Sequence[ModelRef]) -> None:
    """Raises ModelMissing where files are missing or have other sizes: better before gigabytes were written."""
    for ref in refs:
        found = size_problems(ref)
        if found:
            raise _damaged(ref, "; ".join(found))


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes], progress: Progress | None) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._progress = progress

    def read(self, count: int = -1, /) -> bytes:
        chunk = self._file.read(count)
        self.digest.update(chunk)
        if self._progress:
            self._progress(len(chunk))
        return chunk


@contextmanager
def _opened(ref: ModelRef, name: str) -> Iterator[IO[bytes]]:
    try:
        file = (ref.folder / name).open("rb")
    except OSError as error:
        raise _unreadable(ref, name, error) from error
    with file:
        yield file


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_member(name, len(data)), io.BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"{TOP}/{name}")
    member.size = size
    member.mode = 0o644
    return member


def _damaged(ref: ModelRef, why: str) -> KuuloError:
    return ModelMissing(
        f"the model {ref.name} ({ref.format}) is damaged: {why}",
        looked_at=str(ref.folder),
        do=f"kuulo models verify {ref.name}, then pull or add it again",
    )


def _unreadable(ref: ModelRef, name: str, error: OSError) -> KuuloError:
    return ModelMissing(
        f"{name} of the model {ref.name} ({ref.format}) cannot be read: {error.strerror}", looked_at=str(ref.folder)
    )
