"""The allowed routes of a server, and who gets in: whoever has its key. All else is 401 or 404."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kuulo.llm.serving import bodies, keys
from kuulo.llm.serving.audio import Speech, routes
from kuulo.llm.serving.life import Life
from kuulo.llm.serving.passing import Engine, Passed
from kuulo.llm.serving.refusals import UNKNOWN_ROUTE, WRONG_KEY, Refusal, unknown_model

CHAT_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""Those that go on to the engine's server, which has them under the same names."""

OPEN = "/health"
"""The one route without a key: it says that a server is here, as the open port does, and nothing else."""


@dataclass(frozen=True)
class Limits:
    """The largest bodies, in bytes. `read_s`: how long a request may not come on, in seconds."""

    chat: int = 16 << 20
    audio: int = 1 << 30
    read_s: float = 60.0


@dataclass
class Served:
    """What is behind a front: a language model's engine, recognition, or both, with the names of their models."""

    key: str
    life: Life
    chat: Engine | None = None
    chat_name: str = ""
    speech: Speech | None = None
    limits: Limits = field(default_factory=Limits)
    began: int = field(default_factory=lambda: int(time.time()))

    @property
    def models(self) -> list[str]:
        speech = [self.speech.name] if self.speech else []
        return [*([self.chat_name] if self.chat else []), *speech]


class Gate:
    """Lets in who has the key. What it refuses reaches nothing else."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self._app, self._served = app, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a websocket is closed unopened
        headers = Headers(scope=scope)
        if scope["path"] == OPEN:
            await self._app(scope, receive, send)
        elif not keys.opens(self._served.key, headers.get("authorization", "")):
            await bodies.discard(receive, headers)
            await refused(WRONG_KEY)(scope, receive, send)
        else:
            with self._served.life.at_work():
                await self._app(scope, receive, send)


def app(served: Served) -> Starlette:
    """The application."""

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(served, name) for name in served.models]})

    async def one_model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in served.models:
            raise unknown_model(name, served.models)
        return JSONResponse(_model(served, name))

    async def on(request: Request) -> Passed:
        path = request.url.path
        if served.chat is None:
            raise Refusal(404, "This server has no language model.", "unknown_url")
        data = await bodies.whole(request.receive, request.headers, served.limits.chat, served.limits.read_s)
        return Passed(served.chat, path.removeprefix("/v1"), asked_of(served, data))

    chat = [Route(path, on, methods=["POST"]) for path in CHAT_ROUTES]
    speech = routes(served.speech, served.limits.audio, served.limits.read_s, served.life) if served.speech else []
    made = Starlette(
        routes=[
            Route(OPEN, health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one_model),
            *chat,
            *speech,
        ],
        middleware=[Middleware(Gate, served=served)],
        exception_handlers={Refusal: _refuse, HTTPException: _refuse_http, Exception: _failed},
    )
    made.router.redirect_slashes = False
    return made


def asked_of(served: Served, data: bytes) -> bytes:
    """A request's body as the engine is asked. Raises Refusal when it is none, or asks for a model that is not here."""
    assert served.chat is not None
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "The request is not JSON.") from error
    if not isinstance(asked, dict):
        raise Refusal(400, "The request is JSON of another kind than an object.")
    engines = served.chat.endpoint.model
    if asked.get("model") not in (served.chat_name, engines):
        raise unknown_model(asked.get("model"), served.models)
    if asked["model"] == engines:
        return data
    return json.dumps({**asked, "model": engines}).encode("utf-8", "surrogatepass")


def _model(served: Served, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": served.began, "owned_by": "kuulo"}


def refused(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body(), refusal.status, headers=refusal.headers())


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if error.status == 413:
        await bodies.discard(request.receive, request.headers)
    return refused(error)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return refused(UNKNOWN_ROUTE)
    return refused(Refusal(error.status_code, str(error.detail)))


async def _failed(request: Request, error: Exception) -> Response:
    return refused(Refusal(500, "The server made a mistake: its log has more.", "internal_error"))
