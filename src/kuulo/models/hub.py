"""The servers that models come from: what they list, and the bytes. The only module that opens a connection.

Files come through huggingface_hub's HTTP session. huggingface_hub itself gives up what it has when a download is cut
(its temporary file has a random name and is deleted), so the bytes are written here: the part that is there is kept,
and the next pull asks for the rest.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo.errors import KuuloError, ModelMissing
from kuulo.models import check
from kuulo.models.catalog import Source

HUB = "https://huggingface.co"
OPENAI = "https://openaipublic.azureedge.net/main/whisper/models"
"""The beginning of every address in openai-whisper's table of models."""

OPENAI_VARIABLE = "KUULO_OPENAI_URL"
TIMEOUT_S = 30.0
NAME = re.compile(r"[\w.-]{1,100}")
"""An account at the hub."""


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
    """What a source offers: its files, and where they come from exactly. `page`: where people read of it."""

    files: tuple[Wanted, ...]
    page: str
    revision: str | None = None
    licence: str | None = None
    gated: bool = False


class Session:
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
        names = _names(source, list(blobs))
        if not names or any(there not in blobs for there in names.values()):
            raise ModelMissing(
                f"the repository {source.repo} has no {source.file or check.FORMATS[source.format].NAME + ' model'}",
                looked_at=f"{self.endpoint}/{source.repo} at {commit}",
                do="take another --revision or --format",
            )
        files = tuple(self._wanted(source, commit, name, blobs[there]) for name, there in names.items())
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

    def denied(self, listing: Listing) -> bool:
        """Whether the hub says that the token's owner has not accepted a repository's terms. A mirror may not say."""
        status, _ = self._ask(f"/api/models/{listing.page.removeprefix(self.endpoint + '/')}/auth-check")
        return status in (401, 403)

    def account(self) -> str | None:
        """The name at the hub of the token's owner; None where it does not say."""
        status, body = self._ask("/api/whoami-v2")
        try:
            name = json.loads(body)["name"] if status == 200 else None
        except (ValueError, LookupError, TypeError):
            return None
        return name if isinstance(name, str) and NAME.fullmatch(name) else None

    def _ask(self, path: str) -> tuple[int, bytes]:
        """Status and body of what need not be answered; status 0 when nobody does."""
        url = f"{self.endpoint}{path}"
        try:
            response = self.client.get(url, headers=self._headers(url), timeout=TIMEOUT_S)
        except self.transport_error:
            return 0, b""
        return response.status_code, response.content

    def _wanted(self, source: Source, commit: str, name: str, row: dict[str, Any]) -> Wanted:
        lfs = row.get("lfs") or {}
        size = lfs.get("size", row.get("size"))
        quoted = urllib.parse.quote(str(row["rfilename"]))
        sha256 = source.take[name].sha256 if name in source.take else source.sha256
        if sha256 and lfs.get("sha256") and sha256 != lfs["sha256"]:
            raise ModelMissing(
                f"{name} at the server is another file than the catalogue knows (sha256 {lfs['sha256']})",
                looked_at=f"{self.endpoint}/{source.repo} at {commit}",
            )
        return Wanted(
            name=name,
            url=f"{self.endpoint}/{source.repo}/resolve/{commit}/{quoted}",
            bytes=size if isinstance(size, int) else None,
            sha256=sha256 or lfs.get("sha256"),
            sha1=source.sha1,
            git_sha1=None if lfs else row.get("blobId"),
        )

    def download(self, file: Wanted, part: Path, report: Callable[[int], None] | None) -> None:
        """Fetches what `part` lacks of the file. What came stays there when the connection is cut."""
        for left in range(self.retries, -1, -1):
            before = size_of(part)
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
                    looked_at=str(part.parents[2 + file.name.count("/")]),
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
            f"the connection was cut: {file.name} has {size_of(part):,} bytes of {file.bytes or '?'}",
            looked_at=urllib.parse.urlsplit(file.url).netloc,
            do="pull again: it goes on from there",
        )

    def _not_understood(self, source: Source) -> KuuloError:
        return ModelMissing(
            "the server's answer is not understood", looked_at=f"{self.endpoint}/{source.repo}", do="see HF_ENDPOINT"
        )


def _names(source: Source, there: list[str]) -> dict[str, str]:
    """By their names in the model's folder, the repository's files that are wanted."""
    if source.file:
        return {source.file: source.file}
    if source.take:
        return {name: taken.name for name, taken in source.take.items()}
    if source.format not in check.NESTED:
        there = [name for name in there if "/" not in name]
    return {name: name for name in check.wanted(source.format, there)}


def size_of(*paths: Path) -> int:
    """Bytes of the first of these files that is there; 0 when none is."""
    return next((path.stat().st_size for path in paths if path.exists()), 0)


def _huggingface_hub() -> Any:
    """The library, with its telemetry off: it would also ask another address and leave a file in the home."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub
