"""The routes for recordings: `/v1/audio/transcriptions` and `/v1/audio/translations`, with Kuulo's engines.

An upload goes to a file without a name in scratch, is decoded beside it, and both are gone when the answer is there.
What the client calls its file is never a path here.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kuulo import audio
from kuulo.errors import CannotRun, InputFailed
from kuulo.llm.serving import bodies, fields
from kuulo.llm.serving.ear import AGAIN, Ear
from kuulo.llm.serving.fields import Asked
from kuulo.llm.serving.life import Life
from kuulo.llm.serving.passing import EVENTS, left, send_refusal, send_start, send_whole, unless
from kuulo.llm.serving.refusals import ENDING, Refusal, engine_gone, unknown_model
from kuulo.transcript import Audio, Segment, Transcript

TASKS = {"/v1/audio/transcriptions": "transcribe", "/v1/audio/translations": "translate"}
MOST_FIELDS = 30


@dataclass(frozen=True)
class Speech:
    """Recognition, as a front has it. `name`: what clients call its model."""

    name: str
    ear: Ear


def routes(speech: Speech, limit: int, read_s: float, life: Life) -> list[Route]:
    """The routes. `limit`: the largest upload, in bytes. `read_s`: how long one may not come on, in seconds."""

    async def transcribe(request: Request) -> Heard:
        return Heard(speech, limit, read_s, life, TASKS[request.url.path])

    return [Route(path, transcribe, methods=["POST"]) for path in TASKS]


class Heard:
    """The answer to a recording: an ASGI application."""

    def __init__(self, speech: Speech, limit: int, read_s: float, life: Life, task: str) -> None:
        self._speech, self._limit, self._read_s, self._life, self._task = speech, limit, read_s, life, task
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            async with _uploaded(request, self._limit, self._read_s) as (file, form):
                request_ = self._asked(form)
                pcm = self._speech.ear.scratch / f"{id(self):x}.f32"
                try:
                    reasons = {left(receive): None, self._life.ending.wait(): ENDING}
                    broken = await unless(self._answer(file, pcm, request_, send), reasons)
                finally:
                    pcm.unlink(missing_ok=True)
            if broken is not None:
                await self._break(broken, send)
        except Refusal as refusal:
            if refusal.status == 413:
                await bodies.discard(receive, request.headers)
            await self._break(refusal, send)

    def _asked(self, form: dict[str, list[str]]) -> Asked:
        model = form.get("model", [""])[-1]
        if model != self._speech.name:
            raise unknown_model(model, [self._speech.name])
        return fields.asked(self._speech.ear.plan, self._task, form)

    async def _answer(self, file: UploadFile, pcm: Path, request: Asked, send: Send) -> None:
        try:
            decoded = await _decode(file, pcm)
            if request.stream:
                await self._stream(decoded, pcm, request, send)
            else:
                transcript = await self._transcript(decoded, pcm, request)
                body, kind = fields.answer(transcript, request, self._task)
                await send_whole(send, 200, kind, body)
        except InputFailed as error:
            said = f"This recording cannot be transcribed: {error.what}"
            await self._break(Refusal(400, said, "invalid_recording", "file"), send)
        except CannotRun as error:
            await self._break(engine_gone(error.what), send)
        except OSError as error:
            await self._break(Refusal(507, f"The server has no room: {error.strerror}.", "no_room"), send)

    async def _transcript(self, decoded: audio.Decoded, pcm: Path, request: Asked) -> Transcript:
        segments: list[Segment] = []
        language: str | None = None
        async for event in self._speech.ear.hear(pcm, decoded.samples, request.options):
            if event["type"] == AGAIN:
                del segments[event["keep"] :]
            elif event["type"] == "language":
                language = language or event["language"]
            else:
                segments.append(Segment.from_json(event["segment"]))
        return _transcript(decoded, language, segments)

    async def _stream(self, decoded: audio.Decoded, pcm: Path, request: Asked, send: Send) -> None:
        """Each segment's text as soon as it is heard, in OpenAI's events."""
        segments: list[Segment] = []
        await send_start(send, 200, EVENTS)
        self._begun = True
        async for event in self._speech.ear.hear(pcm, decoded.samples, request.options):
            if event["type"] == AGAIN and event["keep"] < len(segments):
                raise CannotRun("it died, and what was sent cannot be taken back")
            if event["type"] == "segment":
                text = event["segment"]["text"] if segments else event["segment"]["text"].lstrip()
                segments.append(Segment.from_json(event["segment"]))
                await _event(send, {"type": "transcript.text.delta", "delta": text})
        transcript = _transcript(decoded, None, segments)
        done = {"type": "transcript.text.done", "text": transcript.text.strip(), "usage": fields.usage(transcript)}
        await _event(send, done)
        await send({"type": "http.response.body", "body": b""})

    async def _break(self, refusal: Refusal, send: Send) -> None:
        if self._begun:
            await send({"type": "http.response.body", "body": refusal.event()})
        else:
            await send_refusal(send, refusal)


@asynccontextmanager
async def _uploaded(
    request: Request, limit: int, read_s: float
) -> AsyncIterator[tuple[UploadFile, dict[str, list[str]]]]:
    """The file of a form, and its texts. Raises Refusal."""
    checked = Request(request.scope, bodies.limited(request.receive, request.headers, limit, read_s))
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refusal(415, "A recording is sent as multipart/form-data, in the field `file`.", None, "file")
    try:
        form = await checked.form(max_files=1, max_fields=MOST_FIELDS)
    except ClientDisconnect as error:
        raise Refusal(400, "The client left before its request was whole.") from error
    except HTTPException as error:
        raise Refusal(400, f"The form cannot be read: {error.detail}") from error
    try:
        texts: dict[str, list[str]] = {}
        files = {name: value for name, value in form.multi_items() if isinstance(value, UploadFile)}
        for name, value in form.multi_items():
            if isinstance(value, str):
                texts.setdefault(name, []).append(value)
        if "file" not in files:
            raise Refusal(400, "The form has no recording in the field `file`.", None, "file")
        yield files["file"], texts
    finally:
        await form.close()


async def _decode(file: UploadFile, pcm: Path) -> audio.Decoded:
    """Raises InputFailed, OSError."""
    spooled: Any = file.file
    assert isinstance(spooled, tempfile.SpooledTemporaryFile)
    spooled.rollover()
    spooled.flush()
    path = Path(f"/proc/self/fd/{spooled.fileno()}")  # it has no other name
    stop = threading.Event()
    try:
        return await asyncio.to_thread(audio.decode, path, pcm, stop=stop)
    finally:
        stop.set()


def _transcript(decoded: audio.Decoded, language: str | None, segments: list[Segment]) -> Transcript:
    return Transcript(Audio("upload", "", decoded.duration_ms), tuple(segments), language)


async def _event(send: Send, said: dict[str, Any]) -> None:
    data = b"data: " + json.dumps(said).encode("ascii") + b"\n\n"
    await send({"type": "http.response.body", "body": data, "more_body": True})
