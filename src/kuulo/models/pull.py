"""Brings a model of the catalogue into a store.

Files come from the repository and commit that the catalogue names, or, for openai-whisper's own files, from OpenAI's
server (see `hub.py`). Every file is compared with the size and digest that the hub and the catalogue say, then the
model is checked, and comes into place by one rename. Nothing is written outside the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
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
from kuulo.models.adding import described, localized
from kuulo.models.catalog import Entry, Source
from kuulo.models.files import CHUNK
from kuulo.models.hub import Listing, Session, Wanted, size_of
from kuulo.models.manifest import ModelFile, ModelRef, Repository
from kuulo.models.store import STAGING, Store, free_name, now

SPARE_BYTES = 64_000_000
"""Left free on the disk beside the model."""

ABANDONED_S = 600
"""A staging folder of another machine that nobody wrote to for this long is taken over."""

REPO_PATTERN = re.compile(r"[\w.-]+/[\w.-]+")
GGUF_PATTERN = re.compile(r"([\w.-]+/[\w.-]+)/([\w.-]+\.gguf)")

PREFERRED = ("ct2", "ggml", "pt", "hf", "onnx", "pyannote", "speakers-onnx", "nemo", "gguf", "hf-text")
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

    `name`: of the catalogue, or a Hugging Face repository ORG/NAME (of a format that is a folder), or one file of it,
    ORG/NAME/FILE.gguf. `revision`: instead of the catalogue's; of several repositories, of the first. `rename`: its
    name in the store. A pull that was cut goes on where it stopped. Raises UsageError for what cannot be asked,
    ModelMissing for all that the network, the server, the disk or the files do."""
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
        taken = {name: dataclasses.replace(file, sha256=None) for name, file in source.take.items()}
        source = dataclasses.replace(source, revision=revision, sha1=None, sha256=None, take=taken)
    for one in source.all:
        if one.repo and not one.revision and notice:
            notice(f"no commit of {one.repo} is pinned in the catalogue: taking the current one, and recording it")
    session = Session(environ, retries)
    listings = [session.openai(source)] if source.path else [session.hub(one) for one in source.all]
    _refuse_gated(session, entry.name, [listing for listing in listings if listing.gated])
    wanted = tuple(file for listing in listings for file in listing.files)
    with _claimed(store, f"pull-{source.format}-{local}-{_version(source, listings)}") as staged:
        _refuse_full(staged, wanted)
        files = _fetch_all(session, wanted, staged, progress)
        if source.format == "pyannote":
            files = localized(staged, files)
        found = check.problems(source.format, staged if source.format in check.FOLDERS else staged / files[0].path)
        if found:
            shutil.rmtree(staged, ignore_errors=True)
            raise ModelMissing(
                f"what was downloaded is no good {check.FORMATS[source.format].NAME} model: {'; '.join(found)}",
                looked_at=listings[0].page,
                do="take another revision (--revision) or format (--format)",
            )
        repositories = () if source.path else _repositories(session, source, listings)
        ref = dataclasses.replace(
            described(local, source.format, staged, files),
            repo=source.repo,
            revision=listings[0].revision,
            source=listings[0].page,
            licence=_licence(entry, repositories),
            gated=any(listing.gated for listing in listings),
            repositories=repositories,
            added=now(),
        )
        return store.install(ref, staged, replace=replace)


def _refuse_gated(session: Session, name: str, gated: list[Listing]) -> None:
    """Before a byte is fetched: repositories whose terms must be accepted, and were not as far as the hub says."""
    closed = [listing.page for listing in gated if not session.token or session.denied(listing)]
    if not closed:
        return
    tokens = f"{session.endpoint}/settings/tokens"
    if session.token:
        why, more = "this token's account has not, or the token may not read gated repositories", f"see {tokens}"
    else:
        why, more = "without a token nobody knows who asks", f"make a token at {tokens}, set HF_TOKEN to it"
    raise ModelMissing(
        f"{name} is gated: its authors give it to those who accept their terms, and {why}",
        looked_at=", ".join(closed),
        do=f"read and accept the terms at {' and at '.join(closed)}, {more}, then pull again",
    )


def _version(source: Source, listings: list[Listing]) -> str:
    """Twelve characters that tell pulls of other files apart."""
    one = "-".join(listing.revision or source.sha256 or "x" for listing in listings)
    return one[:12] if len(listings) == 1 else hashlib.sha256(one.encode()).hexdigest()[:12]


def _repositories(session: Session, source: Source, listings: list[Listing]) -> tuple[Repository, ...]:
    """What the files came from, and who has accepted the terms of those that are gated."""
    who: dict[str, str] = {}
    if any(listing.gated for listing in listings):
        account = session.account()
        who = {"accepted_by": account or _user(), "account": "hub" if account else "machine", "accepted_at": now()}
    return tuple(
        Repository(
            str(one.repo),
            listing.revision,
            one.licence or listing.licence,
            listing.gated,
            **(who if listing.gated else {}),
        )
        for one, listing in zip(source.all, listings, strict=True)
    )


def _licence(entry: Entry, repositories: tuple[Repository, ...]) -> str | None:
    """What the repositories say, each licence once; where one does not say, what the catalogue says."""
    said = [repository.licence for repository in repositories]
    if not said or None in said:
        return entry.licence or None
    return ", ".join({str(licence).casefold(): str(licence) for licence in said}.values())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        return f"user {os.getuid()}"


def _what(name: str, format_: str | None) -> tuple[Entry, Source]:
    one_file = GGUF_PATTERN.fullmatch(name)
    if one_file and format_ in (None, "gguf"):
        repo, file = one_file.groups()
        return Entry(file.removesuffix(".gguf"), catalog.LAST_RANK, ""), Source("gguf", repo=repo, file=file)
    if REPO_PATTERN.fullmatch(name) and format_ == "gguf":
        raise UsageError(
            f"which file of the repository {name}?",
            looked_at="its page, under Files: there is one for each quantisation",
            do=f"kuulo models pull {name}/FILE.gguf",
        )
    if REPO_PATTERN.fullmatch(name):
        if format_ not in check.FOLDERS:
            raise UsageError(
                f"which format does the repository {name} have?", do=f"give --format {', '.join(sorted(check.FOLDERS))}"
            )
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
            path.parent.mkdir(parents=True, exist_ok=True)
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
        latest = max(p.stat().st_mtime for p in [folder, *folder.rglob("*")])
    except OSError:
        return False
    return time.time() - latest > ABANDONED_S
