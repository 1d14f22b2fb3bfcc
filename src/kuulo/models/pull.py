"""Brings a model of the catalogue into a store.

Files come from the repository and commit that the catalogue names, or, for openai-whisper's own files, from OpenAI's
server (see `hub.py`). Every file is compared with the size and digest that the hub and the catalogue say, then the
model is checked, and comes into place by one rename. Nothing is written outside the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kuulo import machine
from kuulo.errors import ModelMissing, UsageError
from kuulo.models import catalog, check
from kuulo.models.adding import described
from kuulo.models.catalog import Entry, Source
from kuulo.models.files import CHUNK
from kuulo.models.hub import Session, Wanted, size_of
from kuulo.models.manifest import ModelFile, ModelRef
from kuulo.models.store import STAGING, Store, free_name, now

SPARE_BYTES = 64_000_000
"""Left free on the disk beside the model."""

ABANDONED_S = 600
"""A staging folder of another machine that nobody wrote to for this long is taken over."""

REPO_PATTERN = re.compile(r"[\w.-]+/[\w.-]+")

PREFERRED = ("ct2", "ggml", "pt", "hf", "onnx")
"""Which format is pulled when nobody says: that of the default engine first."""


@dataclass(frozen=True)
class Step:
    """How far a pull is: bytes of all files, done and altogether (None when the server does not say)."""

    file: str
    done: int
    total: int | None


Report = Callable[[Step], None]
Notice = Callable[[str], None]


def pull(
    name: str,
    store: Store,
    format_: str | None = None,
    *,
    revision: str | None = None,
    rename: str | None = None,
    replace: bool = False,
    progress: Report | None = None,
    notice: Notice | None = None,
    environ: Mapping[str, str] = os.environ,
    retries: int = 4,
) -> ModelRef:
    """Brings a model into the store and gives it.

    `name`: of the catalogue, or a Hugging Face repository ORG/NAME (ct2, hf or onnx). `revision`: instead of the
    catalogue's. `rename`: its name in the store. A pull that was cut goes on where it stopped. Raises UsageError
    for what cannot be asked, ModelMissing for all that the network, the server, the disk or the files do."""
    entry, source = _what(name, format_)
    local = free_name(rename or entry.name)
    target = store.place(local, source.format)
    if target.is_dir() and not replace:
        raise UsageError(
            f"the store already has {local} as {source.format}",
            looked_at=str(target),
            do=f"kuulo models verify {local}, or give --replace to pull it again",
        )
    _refuse_offline(environ)
    if revision and source.path:
        raise UsageError(f"{entry.name} as {source.format} comes from OpenAI's server, which has no revisions")
    if revision:
        source = dataclasses.replace(source, revision=revision, sha1=None, sha256=None)
    elif source.repo and not source.revision and notice:
        notice(f"no commit of {source.repo} is pinned in the catalogue: taking the current one, and recording it")
    session = Session(environ, retries)
    listing = session.openai(source) if source.path else session.hub(source)
    label = f"pull-{source.format}-{local}-{(listing.revision or source.sha256 or 'x')[:12]}"
    with _claimed(store, label) as staged:
        _refuse_full(staged, listing.files)
        files = _fetch_all(session, listing.files, staged, progress)
        found = check.problems(source.format, staged if source.format in check.FOLDERS else staged / files[0].path)
        if found:
            shutil.rmtree(staged, ignore_errors=True)
            raise ModelMissing(
                f"what was downloaded is no good {check.FORMATS[source.format].NAME} model: {'; '.join(found)}",
                looked_at=listing.source,
                do="take another revision (--revision) or format (--format)",
            )
        ref = dataclasses.replace(
            described(local, source.format, staged, files),
            repo=source.repo,
            revision=listing.revision,
            source=listing.source,
            licence=listing.licence or entry.licence or None,
            gated=listing.gated,
            added=now(),
        )
        return store.install(ref, staged, replace=replace)


def _what(name: str, format_: str | None) -> tuple[Entry, Source]:
    if REPO_PATTERN.fullmatch(name):
        if format_ not in check.FOLDERS:
            raise UsageError(f"which format does the repository {name} have?", do="give --format ct2, hf or onnx")
        return Entry(name.split("/")[1], catalog.LAST_RANK, ""), Source(format_, repo=name)
    if format_ is None:
        entry, _ = catalog.find(name)
        format_ = next(f for f in PREFERRED if f in entry.sources)
    return catalog.find(name, format_)


def _refuse_offline(environ: Mapping[str, str]) -> None:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environ.get(variable, "").strip().upper() in ("1", "ON", "YES", "TRUE"):
            raise ModelMissing(
                "pulling a model needs the network, and the environment forbids it",
                looked_at=f"{variable}={environ[variable]}",
                do=f"env -u {variable} kuulo models pull ..., or pull on another machine and `kuulo models add` it",
            )


def _refuse_full(folder: Path, files: tuple[Wanted, ...]) -> None:
    missing = sum(max(0, (file.bytes or 0) - size_of(folder / file.name, _part(folder, file))) for file in files)
    free = shutil.disk_usage(folder).free
    if missing + SPARE_BYTES > free:
        raise ModelMissing(
            f"the disk is too full: {missing / 1e6:,.0f} MB are to come and {free / 1e6:,.0f} MB are free",
            looked_at=str(folder.parent.parent),
            do="free some space, or set KUULO_STORE to a folder with more",
        )


def _part(folder: Path, file: Wanted) -> Path:
    return folder / f"{file.name}.part"


def _fetch_all(
    session: Session, wanted: tuple[Wanted, ...], folder: Path, progress: Report | None
) -> tuple[ModelFile, ...]:
    total = None if any(f.bytes is None for f in wanted) else sum(f.bytes or 0 for f in wanted)
    done = 0
    files = []
    for file in wanted:
        path = folder / file.name
        if not path.exists():
            report = progress and _reporter(progress, file.name, done, total)
            session.download(file, _part(folder, file), report)
            files.append(_verified(file, _part(folder, file)))
            _part(folder, file).rename(path)
        else:  # complete from an earlier pull that was cut later; nobody else could write here, but a disk may lie
            files.append(_verified(file, path))
        done += files[-1].bytes
        if progress:
            progress(Step(file.name, done, total))
    return tuple(files)


def _reporter(progress: Report, name: str, before: int, total: int | None) -> Callable[[int], None]:
    return lambda here: progress(Step(name, before + here, total))


def _verified(wanted: Wanted, path: Path) -> ModelFile:
    """The file's digest, after it was compared with all that is known of it; a file that differs is deleted."""
    size = path.stat().st_size
    digests = {"sha256": hashlib.sha256(), "sha1": hashlib.sha1(usedforsecurity=False)}
    # How git names a file's content: sha1 over "blob SIZE\0" and the bytes
    digests["git_sha1"] = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            for digest in digests.values():
                digest.update(chunk)
    wrong = [] if wanted.bytes in (None, size) else [f"{size} bytes, not {wanted.bytes}"]
    for kind, digest in digests.items():
        expected = getattr(wanted, kind)
        if expected and digest.hexdigest() != expected:
            wrong.append(f"{kind} {digest.hexdigest()}, not {expected}")
    if wrong:
        path.unlink()
        raise ModelMissing(
            f"{wanted.name} is not the file that it should be: {'; '.join(wrong)}",
            looked_at=wanted.url,
            do="pull again; if it happens again, the server or a proxy changes the file: tell whoever runs it",
        )
    return ModelFile(wanted.name, digests["sha256"].hexdigest(), size)


@contextlib.contextmanager
def _claimed(store: Store, label: str) -> Iterator[Path]:
    """The staging folder of this pull, with what an earlier one left. While it is in use its name says by whom, so
    that two pulls of one model never write to the same files; taking it is one rename. It stays when a pull is cut."""
    staging = store.folder / STAGING
    with store.staging("pull") as probe:  # makes STAGING, or says why not
        probe.rmdir()
    mine = staging / f"{label}@{os.getpid()}@{socket.gethostname()}"
    free = staging / label
    for candidate in [free, *sorted(staging.glob(f"{label}@*@*"))]:
        if candidate == free or _abandoned(candidate):
            with contextlib.suppress(OSError):
                candidate.rename(mine)
                break
    else:
        busy = sorted(staging.glob(f"{label}@*@*"))
        if busy:
            _, pid, host = busy[0].name.rsplit("@", 2)
            raise ModelMissing(
                f"this model is being pulled by process {pid} on {host}",
                looked_at=str(busy[0]),
                do="wait for it; if that process is gone, try again in ten minutes or delete that folder",
            )
        mine.mkdir()
    try:
        yield mine
    finally:
        if mine.is_dir():
            with contextlib.suppress(OSError):
                mine.rename(free)


def _abandoned(folder: Path) -> bool:
    _, pid, host = folder.name.rsplit("@", 2)
    if host == socket.gethostname() and pid.isdigit():
        # One that has our own number left it before we began: whoever claims a folder gives it back in the end.
        return int(pid) == os.getpid() or not machine.has_process(int(pid))
    try:
        latest = max(p.stat().st_mtime for p in [folder, *folder.iterdir()])
    except OSError:
        return False
    return time.time() - latest > ABANDONED_S
