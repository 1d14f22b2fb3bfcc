"""A loopback server that speaks what `kuulo models pull` needs of the Hugging Face hub, and OpenAI's file server.

with hub.Hub({"org/name": {"model.bin": b"..."}}) as served:
    served.url                      # for HF_ENDPOINT
    served.cut("model.bin", 1000)   # the next answer with it ends after 1000 bytes
    served.log                      # (method, path, Range header, Authorization header) of every request
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000
"""Bytes from which a file is kept by Git LFS, and so has a sha256 at the hub."""


class Hub:
    """The server; `repos`: repository -> file name -> bytes; `files`: other paths -> bytes.

    `token`: when set, everything needs it. `lies`: file name -> bytes that are sent instead of the true ones.
    `ranges`: whether it knows them. `gated`: repository -> tokens of those who accepted its terms; who has none may see
    what it has, as at the hub, and no file. `accounts`: token -> the name of its owner."""

    def __init__(
        self, repos: Mapping[str, Mapping[str, bytes]], files: Mapping[str, bytes] | None = None, token: str = ""
    ) -> None:
        self.repos = repos
        self.files = files or {}
        self.token = token
        self.lies: dict[str, bytes] = {}
        self.ranges = True
        self.redirect_to = ""
        self.gated: dict[str, set[str]] = {}
        self.accounts: dict[str, str] = {}
        self.broken = 0
        self.log: list[tuple[str, str, str | None, str | None]] = []
        self._cuts: dict[str, list[int]] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def cut(self, name: str, *after: int) -> None:
        """The next answers with this file end after so many bytes, one number an answer."""
        self._cuts[name] = list(after)

    def next_cut(self, name: str) -> int | None:
        cuts = self._cuts.get(name)
        return cuts.pop(0) if cuts else None

    def ranges_of(self, name: str) -> list[str | None]:
        """The Range header of every request for this file."""
        return [asked for _, path, asked, _ in self.log if path.split("?")[0].endswith(f"/{name}")]


def sibling(name: str, content: bytes) -> dict[str, Any]:
    """A file as `?blobs=true` lists it."""
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
    row: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
    if len(content) >= LARGE:
        sha256 = hashlib.sha256(content).hexdigest()
        row |= {"blobId": "f" * 40, "lfs": {"sha256": sha256, "size": len(content), "pointerSize": 134}}
    return row


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        asked, auth = self.headers.get("Range"), self.headers.get("Authorization")
        self.hub.log.append((self.command, self.path, asked, auth))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        if self.hub.broken > 0:
            self.hub.broken -= 1
            return self._answer(500, b"")
        if path in self.hub.files:
            return self._file(path.split("/")[-1], self.hub.files[path])
        if self.hub.token and auth != f"Bearer {self.hub.token}":
            return self._answer(401, b'{"error":"gated"}', {"X-Error-Code": "GatedRepo"})
        parts = path.split("/")
        owner = (auth or "").removeprefix("Bearer ")
        if path == "api/whoami-v2" and owner in self.hub.accounts:
            return self._answer(200, json.dumps({"type": "user", "name": self.hub.accounts[owner]}).encode())
        if parts[:2] == ["api", "models"] and parts[4:] == ["auth-check"] and self.hub.gated:
            return self._answer(200 if owner in self.hub.gated.get("/".join(parts[2:4]), {owner}) else 403, b"{}")
        if parts[:2] == ["api", "models"] and len(parts) == 6 and parts[4] == "revision":
            return self._listing("/".join(parts[2:4]), parts[5])
        if owner not in self.hub.gated.get("/".join(parts[:2]), {owner}):
            return self._answer(403 if owner else 401, b"{}", {"X-Error-Code": "GatedRepo"})
        if len(parts) >= 5 and parts[2] == "resolve":
            content = self.hub.repos.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
            if content is not None and parts[3] == COMMIT:
                if self.hub.redirect_to:
                    return self._answer(302, b"", {"Location": self.hub.redirect_to + "/" + parts[-1]})
                return self._file(parts[-1], content)
        return self._answer(404, b'{"error":"not found"}', {"X-Error-Code": "RepoNotFound"})

    def _listing(self, repo: str, revision: str) -> None:
        files = self.hub.repos.get(repo)
        if files is None or revision not in ("main", "v1", COMMIT):
            return self._answer(404, b"{}")
        told = {
            "id": repo,
            "sha": COMMIT,
            "gated": "auto" if self.hub.token or repo in self.hub.gated else False,
            "cardData": {"license": "apache-2.0"},
            "siblings": [sibling(name, content) for name, content in files.items()],
        }
        return self._answer(200, json.dumps(told).encode())

    def _file(self, name: str, content: bytes) -> None:
        content = self.hub.lies.get(name, content)
        start, status, headers = 0, 200, {}
        asked = self.headers.get("Range")
        if asked and self.hub.ranges:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                return self._answer(416, b"")
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._answer(status, content[start:], headers, self.hub.next_cut(name))

    def _answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body if cut is None else body[:cut])
            self.wfile.flush()
        if cut is not None:
            self.close_connection = True
