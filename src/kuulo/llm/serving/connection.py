"""A client's connection, which is closed when it owes the head of a request for too long.

uvicorn closes a connection that is idle between two requests; one that has begun a request and does not go on it keeps
for ever, and one that never began too. The body is waited for in `bodies.py`. While an answer is made and sent, which
may take as long as it takes, no time runs here.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """`read_s`: how long its client may take, from the connection's beginning or the last answer, until a request's
    head is whole. Time begins once: a byte now and then does not win more of it."""

    read_s: float

    _owing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing():
            self._unwatch()
        elif self._owing is None:
            self._owing = self.loop.call_later(self.read_s, self.timeout_keep_alive_handler)

    def _unwatch(self) -> None:
        if self._owing is not None:
            self._owing.cancel()
            self._owing = None


def patient(read_s: float) -> type[Connection]:
    """Connections of that patience, in seconds, for uvicorn's setting `http`."""
    return type("PatientConnection", (Connection,), {"read_s": read_s})
