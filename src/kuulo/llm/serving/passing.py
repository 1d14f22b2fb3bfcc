"""Requests that go on to the engine's server, and its answers, which come back as they are made.

Of a request nothing goes on but its body, and of an answer nothing comes back but its status, its kind and its body. A
client that leaves ends its request at the engine too. An engine that dies in the middle of a stream is the stream's
last event: an error, so that nobody takes what came for all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Mapping
from typing import Any

import httpx2 as httpx
from starlette.types import Receive, Scope, Send

from kuulo.llm.endpoint import Endpoint
from kuulo.llm.serving.refusals import ENDING, Refusal, engine_gone

CONNECT_S = 10.0
EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
LONGEST_EVENT = 16 << 20
JSON, EVENTS = "application/json", "text/event-stream"


class Engine:
    """The engine's server, as its front asks it. `ending` is set when answers have to be broken off."""

    def __init__(self, endpoint: Endpoint, ending: asyncio.Event) -> None:
        self.endpoint = endpoint
        self.ending = ending
        headers = {"Accept-Encoding": "identity", "Content-Type": JSON}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self.http = httpx.AsyncClient(
            base_url=endpoint.base_url,
            headers=headers,
            # An answer may take as long as it takes; a server that dies closes its connections.
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            transport=httpx.AsyncHTTPTransport(uds=str(endpoint.socket) if endpoint.socket else None, limits=limits),
            trust_env=False,  # no proxy between us and ourselves
        )

    async def close(self) -> None:
        await self.http.aclose()


class Passed:
    """The answer to a request that goes on: an ASGI application."""

    def __init__(self, engine: Engine, path: str, body: bytes) -> None:
        self._engine, self._path, self._body = engine, path, body
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        broken = await unless(self._pass(send), {left(receive): None, self._engine.ending.wait(): ENDING})
        if broken is not None:
            await self._break(broken, send)

    async def _pass(self, send: Send) -> None:
        try:
            async with self._engine.http.stream("POST", self._path, content=self._body) as answer:
                kind = answer.headers.get("content-type", "")
                if answer.status_code == 200 and kind.startswith(EVENTS):
                    await self._stream(answer, send)
                else:
                    await send_whole(
                        send, *_whole(answer.status_code, kind, await answer.aread(), self._engine.endpoint)
                    )
        except httpx.TransportError as error:
            await self._break(engine_gone(_how(error)), send)

    async def _stream(self, answer: httpx.Response, send: Send) -> None:
        """Whole events, each as soon as it is there."""
        await send_start(send, 200, EVENTS)
        self._begun = True
        rest, done = b"", False
        async for chunk in answer.aiter_raw():
            rest += chunk
            ends = [found.end() for found in EVENT_END.finditer(rest)]
            if ends:
                ready, rest = rest[: ends[-1]], rest[ends[-1] :]
                done = done or DONE.search(ready) is not None
                await send({"type": "http.response.body", "body": ready, "more_body": True})
            elif len(rest) > LONGEST_EVENT:
                raise httpx.RemoteProtocolError("an event without an end")
        if not done:
            raise httpx.RemoteProtocolError("its stream ended early")
        await send({"type": "http.response.body", "body": b""})

    async def _break(self, refusal: Refusal, send: Send) -> None:
        if self._begun:
            await send({"type": "http.response.body", "body": refusal.event()})
        else:
            await send_refusal(send, refusal)


async def unless(work: Awaitable[None], reasons: dict[Any, Refusal | None]) -> Refusal | None:
    """Do the work, unless one of the reasons (awaitables) comes first: then it is cancelled, and the answer is what
    the reason stands for."""
    doing = asyncio.ensure_future(work)
    waiting = {asyncio.ensure_future(reason): answer for reason, answer in reasons.items()}
    try:
        await asyncio.wait({doing, *waiting}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
            return None
        return next(answer for reason, answer in waiting.items() if reason.done())
    finally:
        for task in (doing, *waiting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def left(receive: Receive) -> None:
    """Until the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _whole(status: int, kind: str, body: bytes, endpoint: Endpoint) -> tuple[int, str, bytes]:
    """An answer that is no stream. An error has OpenAI's shape afterwards; a key that the engine refuses is ours."""
    if status < 400:
        return status, kind or JSON, body
    if status in (401, 403):
        refusal = Refusal(502, "The engine refuses its own server's key.", "engine_failed")
    elif status in (404, 405, 501):
        refusal = Refusal(404, f"The engine {endpoint.engine} does not have this.", "unknown_url")
    elif _has_shape(body):
        return status, JSON, body
    else:
        refusal = Refusal(status, f"The engine says: {_words(body)}", "engine_refused")
    return refusal.status, JSON, json.dumps(refusal.body()).encode("ascii")


def _has_shape(body: bytes) -> bool:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and isinstance(said.get("error"), dict)


def _words(body: bytes) -> str:
    """What an error says that has another shape, for its own client."""
    try:
        said = json.loads(body)
        body = str(said.get("message") or said.get("detail") or said.get("error") or said).encode()
    except (ValueError, RecursionError, AttributeError):
        pass
    return " ".join(body.decode("utf-8", "replace").split())[:500] or "nothing"


def _how(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError):
        return "nothing answers at its address"
    return "it ended in the middle"


async def send_start(
    send: Send, status: int, kind: str, length: int | None = None, more: Mapping[str, str] | None = None
) -> None:
    headers = [(b"content-type", kind.encode("latin-1", "replace")), (b"cache-control", b"no-store")]
    if length is not None:
        headers.append((b"content-length", str(length).encode("ascii")))
    headers += [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in (more or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_whole(send: Send, status: int, kind: str, body: bytes) -> None:
    await send_start(send, status, kind, len(body))
    await send({"type": "http.response.body", "body": body})


async def send_refusal(send: Send, refusal: Refusal) -> None:
    body = json.dumps(refusal.body()).encode("ascii")
    await send_start(send, refusal.status, JSON, len(body), refusal.headers())
    await send({"type": "http.response.body", "body": body})
