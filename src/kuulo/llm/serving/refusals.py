"""Errors as clients of OpenAI's API read them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

KINDS = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
"""Status -> `type`, as OpenAI has them; what is not here is `server_error`."""

HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}}
"""Status -> headers that RFC 9110 (15.5.2, 15.5.9) has with it. After 408 what might still come is no new request."""


@dataclass(eq=False)
class Refusal(Exception):
    """A request that is not answered. `message` is for the client's people: what failed, and what to do."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None

    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """What its answer has beside the body's kind and length."""
        return HEADERS.get(self.status, {})

    def event(self) -> bytes:
        """As the last event of a stream that had begun."""
        return b"data: " + json.dumps(self.body()).encode("ascii") + b"\n\n"


WRONG_KEY = Refusal(
    401, "The key is missing or wrong: send this server's as `Authorization: Bearer sk-...`.", "invalid_api_key"
)
UNKNOWN_ROUTE = Refusal(404, "There is nothing at this address.", "unknown_url")
ENDING = Refusal(503, "The server is ending: the answer was broken off.", "server_ending")


def too_large(limit: int) -> Refusal:
    return Refusal(413, f"The request is larger than {limit} bytes, this server's limit.", "request_too_large")


def too_slow(seconds: float) -> Refusal:
    return Refusal(408, f"Nothing more of the request came for {seconds:g} s, this server's limit.", "request_timeout")


def engine_gone(how: str) -> Refusal:
    return Refusal(502, f"The engine did not answer to the end: {how}.", "engine_failed")


def unknown_model(asked: object, served: list[str]) -> Refusal:
    return Refusal(
        404, f"This server does not have the model {asked!r}. It has: {', '.join(served)}.", "model_not_found", "model"
    )
