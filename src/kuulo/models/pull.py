"""Brings a model of the catalogue into a store. The only module that uses the network.

Files come through huggingface_hub's HTTP session, from the repository and commit that the catalogue names, or, for
openai-whisper's own files, from OpenAI's server. huggingface_hub itself gives up what it has when a download is cut
(its temporary file has a random name and is deleted), so the bytes are written here: the part that is there is kept,
and the next pull asks for the rest. Every file is compared with the size and digest that the hub and the catalogue
say, then the model is checked, and comes into place by one rename. Nothing is written outside the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo.errors import KuuloError, ModelMissing, UsageError
from kuulo.models import catalog, check
from kuulo.models.catalog import Entry, Source
from kuulo.models.manifest import ModelFile, ModelRef
from kuulo.models.store import CHUNK, STAGING, Store, described, free_name, now

HUB = "https://huggingface.co"
OPENAI = "https://openaipublic.azureedge.net/main/whisper/models"
"""The beginning of every address in openai-whisper's table of models."""

OPENAI_VARIABLE = "KUULO_OPENAI_URL"
TIMEOUT_S = 30.0
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


@dataclass(frozen=True)
class Wanted:
    """A file to fetch. `git_sha1` is git's own digest of a small file, the only one that the hub has for it."""

    name: str
    url: str
    bytes: int | None = None
    sha256: str | None = None
    sha1: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a source offers: its files, and where they come from exactly."""

    files: tuple[Wanted, ...]
    source: str
    revision: str | None = None
    licence: str | None = None
    gated: bool = False


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
    session = _Session(environ, retries)
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
    missing = sum(max(0, (file.bytes or 0) - _size(folder / file.name, _part(folder, file))) for file in files)
    free = shutil.disk_usage(folder).free
    if missing + SPARE_BYTES > free:
        raise ModelMissing(
            f"the disk is too full: {missing / 1e6:,.0f} MB are to come and {free / 1e6:,.0f} MB are free",
            looked_at=str(folder.parent.parent),
            do="free some space, or set KUULO_STORE to a folder with more",
        )


def _size(*paths: Path) -> int:
    return next((path.stat().st_size for path in paths if path.exists()), 0)


def _part(folder: Path, file: Wanted) -> Path:
    return folder / f"{file.name}.part"


def _fetch_all(
    session: _Session, wanted: tuple[Wanted, ...], folder: Path, progress: Report | None
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
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return int(pid) == os.getpid()
    try:
        latest = max(p.stat().st_mtime for p in [folder, *folder.iterdir()])
    except OSError:
        return False
    return time.time() - latest > ABANDONED_S


class _Session:
    """The network: listings and downloads, with errors in our words. The token goes to the hub alone, and into no
    message."""

    def __init__(self, environ: Mapping[str, str], retries: int) -> None:
        self.endpoint = (environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        self.openai_url = (environ.get(OPENAI_VARIABLE) or OPENAI).rstrip("/")
        self.retries = retries
        hub = _huggingface_hub()
        self.client = hub.get_session()
        self.token = environ.get("HF_TOKEN") or hub.get_token()
        # httpx or httpx2, whichever this huggingface_hub is built on
        library = sys.modules[type(self.client).__module__.partition(".")[0]]
        self.transport_error: type[Exception] = library.HTTPError
        if hub.constants.is_offline_mode():  # as it was when the library was imported
            raise ModelMissing(
                "pulling needs the network, and huggingface_hub is set to be offline", do="unset HF_HUB_OFFLINE"
            )

    def hub(self, source: Source) -> Listing:
        """The files of a repository at a commit."""
        assert source.repo
        wanted_revision = source.revision or "main"
        quoted = urllib.parse.quote(wanted_revision, safe="")
        told = self._json(f"{self.endpoint}/api/models/{source.repo}/revision/{quoted}?blobs=true", source)
        try:
            commit = str(told["sha"])
            blobs = {str(row["rfilename"]): row for row in told["siblings"]}
        except (KeyError, TypeError) as error:
            raise self._not_understood(source) from error
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise self._not_understood(source)
        if re.fullmatch(r"[0-9a-f]{40}", source.revision) and commit != source.revision:
            raise ModelMissing(
                f"the server has commit {commit} where {source.revision} was asked for",
                looked_at=f"{self.endpoint}/{source.repo}",
            )
        top = [name for name in blobs if "/" not in name]
        names = [source.file] if source.file else check.wanted(source.format, top)
        if not names or any(name not in blobs for name in names):
            raise ModelMissing(
                f"the repository {source.repo} has no {source.file or check.FORMATS[source.format].NAME + ' model'}",
                looked_at=f"{self.endpoint}/{source.repo} at {commit}",
                do="take another --revision or --format",
            )
        files = tuple(self._wanted(source, commit, name, blobs[name]) for name in names)
        card = told.get("cardData") or {}
        licence = card.get("license") if isinstance(card, dict) else None
        return Listing(
            files,
            f"{self.endpoint}/{source.repo}",
            commit,
            licence if isinstance(licence, str) else None,
            bool(told.get("gated")),
        )

    def openai(self, source: Source) -> Listing:
        """The one file on OpenAI's server."""
        assert source.path
        url = f"{self.openai_url}/{source.path}"
        file = Wanted(source.path.split("/")[-1], url, sha256=source.sha256)
        return Listing((file,), url)

    def _wanted(self, source: Source, commit: str, name: str, row: dict[str, Any]) -> Wanted:
        lfs = row.get("lfs") or {}
        size = lfs.get("size", row.get("size"))
        quoted = urllib.parse.quote(name)
        if source.sha256 and lfs.get("sha256") and source.sha256 != lfs["sha256"]:
            raise ModelMissing(
                f"{name} at the server is another file than the catalogue knows (sha256 {lfs['sha256']})",
                looked_at=f"{self.endpoint}/{source.repo} at {commit}",
            )
        return Wanted(
            name=name,
            url=f"{self.endpoint}/{source.repo}/resolve/{commit}/{quoted}",
            bytes=size if isinstance(size, int) else None,
            sha256=source.sha256 or lfs.get("sha256"),
            sha1=source.sha1,
            git_sha1=None if lfs else row.get("blobId"),
        )

    def download(self, file: Wanted, part: Path, report: Callable[[int], None] | None) -> None:
        """Fetches what `part` lacks of the file. What came stays there when the connection is cut."""
        for left in range(self.retries, -1, -1):
            before = _size(part)
            if file.bytes is not None and before >= file.bytes:
                return
            try:
                self._stream(file, part, before, report)
                return
            except self.transport_error as error:
                if left == 0:
                    raise self._cut(file, part, error) from error
                time.sleep(0.5 * 2 ** (self.retries - left))

    def _stream(self, file: Wanted, part: Path, before: int, report: Callable[[int], None] | None) -> None:
        headers = self._headers(file.url)
        if before:
            headers["Range"] = f"bytes={before}-"
        with self.client.stream("GET", file.url, headers=headers, timeout=TIMEOUT_S) as response:
            if response.status_code == 416 and before:  # all of it is there, or too much: the digest will tell
                return
            self._refuse_status(response.status_code, file.url, None)
            # A server that does not know ranges sends the whole file again.
            going_on = response.status_code == 206
            done = before if going_on else 0
            try:
                with part.open("ab" if going_on else "wb") as out:
                    for chunk in response.iter_bytes():
                        out.write(chunk)
                        done += len(chunk)
                        if report:
                            report(done)
            except OSError as error:
                raise ModelMissing(
                    f"{file.name} cannot be written: {error.strerror or error}",
                    looked_at=str(part.parent.parent.parent),
                    do="free some space, or set KUULO_STORE to a folder with more; then pull again: it goes on",
                ) from error

    def _json(self, url: str, source: Source) -> dict[str, Any]:
        for left in range(self.retries, -1, -1):
            try:
                response = self.client.get(url, headers=self._headers(url), timeout=TIMEOUT_S)
                break
            except self.transport_error as error:
                if left == 0:
                    raise self._unreachable(url, error) from error
                time.sleep(0.25 * 2 ** (self.retries - left))
        self._refuse_status(response.status_code, url, source)
        try:
            told = json.loads(response.content)
        except ValueError as error:
            raise self._not_understood(source) from error
        if not isinstance(told, dict):
            raise self._not_understood(source)
        return told

    def _headers(self, url: str) -> dict[str, str]:
        """The token goes to the hub's own address alone; the client drops it when it is sent on to another host."""
        headers = {"User-Agent": "kuulo", "Accept-Encoding": "identity"}
        if self.token and url.startswith(f"{self.endpoint}/"):
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def _refuse_status(self, status: int, url: str, source: Source | None) -> None:
        if status in (200, 206):
            return
        looked = f"{url.partition('?')[0]}: the server answered {status}"
        page = f"{self.endpoint}/{source.repo}" if source else url.partition("/resolve/")[0]
        if status in (401, 403):
            raise ModelMissing(
                "the server does not let us have this model: it is gated, private, or not there",
                looked_at=f"{looked} ({'with' if self.token else 'without'} a token)",
                do=f"accept its terms at {page}, make a token at {self.endpoint}/settings/tokens, set HF_TOKEN to it",
            )
        if status == 404:
            raise ModelMissing(
                "the server has no such repository, revision or file",
                looked_at=looked,
                do="see --revision, or `kuulo models list --catalog`",
            )
        raise ModelMissing("the server refuses", looked_at=looked, do="try again later: what came is kept")

    def _unreachable(self, url: str, error: Exception) -> KuuloError:
        host = urllib.parse.urlsplit(url).netloc
        return ModelMissing(
            f"the server cannot be reached: {error or type(error).__name__}",
            looked_at=host,
            do="see whether this machine may use the network (a proxy goes into HTTPS_PROXY, a mirror into "
            "HF_ENDPOINT), or pull on another machine and `kuulo models add` the files",
        )

    def _cut(self, file: Wanted, part: Path, error: Exception) -> KuuloError:
        if not part.exists():
            return self._unreachable(file.url, error)
        return ModelMissing(
            f"the connection was cut: {file.name} has {_size(part):,} bytes of {file.bytes or '?'}",
            looked_at=urllib.parse.urlsplit(file.url).netloc,
            do="pull again: it goes on from there",
        )

    def _not_understood(self, source: Source) -> KuuloError:
        return ModelMissing(
            "the server's answer is not understood", looked_at=f"{self.endpoint}/{source.repo}", do="see HF_ENDPOINT"
        )


def _huggingface_hub() -> Any:
    """The library, with its telemetry off: it would also ask another address and leave a file in the home."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub
