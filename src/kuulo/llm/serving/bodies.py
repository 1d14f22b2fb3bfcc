"""Request bodies: read up to a limit, and refused as soon as they are over it or do not come on."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from kuulo.llm.serving.refusals import Refusal, too_large, too_slow

LINGER_S = 2.0
"""How long the rest of a refused body is read and thrown away: a client that is still sending when its connection is
closed may not come to read why."""


def limited(receive: Receive, headers: Headers, limit: int, read_s: float) -> Receive:
    """`receive` that raises Refusal: 413 when more than `limit` bytes come, at once when the header says so; 408 when
    nothing comes for `read_s` seconds, as long as the body is not whole."""
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    taken = 0

    async def checked() -> Message:
        nonlocal taken
        try:
            async with asyncio.timeout(read_s):
                message = await receive()
        except TimeoutError as error:
            raise too_slow(read_s) from error
        taken += len(message.get("body", b""))
        if taken > limit:
            raise too_large(limit)
        return message

    return checked


async def whole(receive: Receive, headers: Headers, limit: int, read_s: float) -> bytes:
    """All of a body. Raises Refusal."""
    checked, parts = limited(receive, headers, limit, read_s), []
    while True:
        message = await checked()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The client left before its request was whole.")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def discard(receive: Receive, headers: Headers) -> None:
    """Throw away what still comes of a body that is refused, for a moment. One whose client waits to be asked for it
    is not asked."""
    none = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    if none or headers.get("expect", "").lower() == "100-continue":
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (message := await receive())["type"] != "http.disconnect" and message.get("more_body"):
                pass
