"""One server: its socket, the engines behind it, and the application in front of them, from beginning to end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import uvicorn

import kuulo
from kuulo.errors import CannotRun, KuuloError
from kuulo.llm import server as engines
from kuulo.llm.endpoint import Endpoint
from kuulo.llm.plan import ChatPlan
from kuulo.llm.serving import address, connection, keys, life, registry
from kuulo.llm.serving.app import Limits, Served, app
from kuulo.llm.serving.audio import Speech
from kuulo.llm.serving.ear import Ear
from kuulo.llm.serving.life import Life
from kuulo.llm.serving.passing import Engine
from kuulo.llm.serving.registry import Server, ServerFolder
from kuulo.plan import Plan

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
CLOSE_S = 2
"""How long connections have to close when answers have been broken off."""

ANSWERS_S = 30.0


@dataclass(frozen=True)
class Front:
    """What is to be served, and where. One of `chat` and `speech` at least."""

    folder: ServerFolder
    chat: ChatPlan | None = None
    speech: Plan | None = None
    bind: str = address.LOOPBACK
    port: int = 0
    socket: Path | None = None
    chat_name: str | None = None
    speech_name: str | None = None
    idle_s: float | None = None
    limits: Limits = field(default_factory=Limits)
    scratch: Path | None = None
    keep: bool = False
    """Whether its folder stays when it fails: somebody else waits for it."""


def run(front: Front, ready: Callable[[Server], None]) -> str:
    """Serve until there is a reason to end; the reason. `ready` is called when it answers. Raises KuuloError."""
    folder = front.folder
    record = registry.myself(
        folder.name,
        model=front.chat_name or (front.chat.model_name if front.chat else None),
        engine=front.chat.engine if front.chat else None,
        speech=front.speech_name or (front.speech.model_name if front.speech else None),
        ends_by=life.ends_by(),
        idle_s=front.idle_s,
        kuulo=kuulo.__version__,
    )
    failed = ""
    try:
        folder.write(record)
        with _listening(front) as listening, _scratch(front.scratch) as scratch:
            return _with_engines(front, record, listening, scratch, ready)
    except KuuloError as error:
        failed = error.what
        raise
    except OSError as error:
        failed = f"{error.strerror}: {error.filename}"
        raise CannotRun(f"the server cannot go on: {failed}") from error
    finally:
        if failed and front.keep:
            with contextlib.suppress(OSError):
                folder.key.unlink(missing_ok=True)
                folder.write(dataclasses.replace(record, state=registry.FAILED, why=failed))
        else:
            folder.remove()


@contextlib.contextmanager
def _listening(front: Front) -> Iterator[socket.socket]:
    if front.socket is None:
        with address.bound(front.bind, front.port) as made:
            yield made
        return
    with address.bound_at(front.socket) as made:
        try:
            yield made
        finally:
            front.socket.unlink(missing_ok=True)


@contextlib.contextmanager
def _scratch(where: Path | None) -> Iterator[Path]:
    """A folder for all that is temporary, uploads too; emptied at the end."""
    try:
        made = Path(tempfile.mkdtemp(prefix="kuulo-", dir=where)).absolute()
    except OSError as error:
        raise CannotRun(f"no scratch folder can be made: {error}", do="name another with --scratch") from error
    before, tempfile.tempdir = tempfile.tempdir, str(made)
    try:
        yield made
    finally:
        tempfile.tempdir = before
        shutil.rmtree(made, ignore_errors=True)


def _with_engines(
    front: Front, record: Server, listening: socket.socket, scratch: Path, ready: Callable[[Server], None]
) -> str:
    if front.chat is None:
        return asyncio.run(_serve(front, record, listening, scratch, ready, None))
    if not front.chat.starts_server:
        return asyncio.run(_serve(front, record, listening, scratch, ready, engines.given(front.chat)))
    engine = engines.Server(front.chat, _subfolder(scratch, "llm"), float(front.chat.options["timeout"]))
    try:
        engine.start()
        process = engine.process
        assert process is not None
        with_engine = _serve(
            front, record, listening, scratch, ready, engine.endpoint, lambda: process.poll() is not None
        )
        try:
            return asyncio.run(with_engine)
        except EngineDied as error:
            raise engine.death() from error
    finally:
        engine.stop()


class EngineDied(CannotRun):
    """The engine's server has ended, and so does ours."""


async def _serve(
    front: Front,
    record: Server,
    listening: socket.socket,
    scratch: Path,
    ready: Callable[[Server], None],
    endpoint: Endpoint | None,
    has_died: Callable[[], bool] = lambda: False,
) -> str:
    lives = Life(front.idle_s, record.ends_by, has_died)
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, lives.end, f"told to ({number.name})")
    async with contextlib.AsyncExitStack() as stack:
        served = Served(keys.read(front.folder.key), lives, limits=front.limits)
        if endpoint is not None:
            record = dataclasses.replace(record, model=record.model or endpoint.model)
            served.chat, served.chat_name = Engine(endpoint, lives.ending), str(record.model)
            stack.push_async_callback(served.chat.close)
        if front.speech is not None:
            ear = Ear(front.speech, _subfolder(scratch, "ear"))
            stack.callback(ear.close)
            await ear.open()
            served.speech = Speech(str(record.speech), ear)
        web = _Web(uvicorn.Config(app(served), http=connection.patient(front.limits.read_s), log_config=None,
            access_log=False, lifespan="off", ws="none", server_header=False, proxy_headers=False,
            timeout_graceful_shutdown=CLOSE_S))  # fmt: skip
        serving = asyncio.create_task(web.serve(sockets=[listening]))
        try:
            record = _placed(record, listening, front.socket)
            await _answers(record, served.key)
            record = dataclasses.replace(record, state=registry.READY, ready=time.time())
            front.folder.write(record)
            ready(record)
            await lives.watch()
        finally:
            web.should_exit = True
            await serving
            for number in SIGNALS:  # nobody is to disturb the tidying
                asyncio.get_running_loop().remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
    if lives.failed:
        raise EngineDied(lives.why)
    return lives.why


class _Web(uvicorn.Server):
    """Without uvicorn's own ways with signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _subfolder(scratch: Path, name: str) -> Path:
    (scratch / name).mkdir(mode=0o700)
    return scratch / name


def _placed(record: Server, listening: socket.socket, path: Path | None) -> Server:
    if path is not None:
        return dataclasses.replace(record, socket=os.fspath(path.absolute()))
    host, port = listening.getsockname()[:2]
    return dataclasses.replace(record, bind=host, port=port)


async def _answers(record: Server, key: str) -> None:
    """Until it answers as it will answer others. Raises CannotRun."""
    transport = httpx.AsyncHTTPTransport(uds=record.socket) if record.socket else None
    base = "http://localhost/v1" if record.socket else address.url(record.bind, record.port or 0)
    async with httpx.AsyncClient(
        transport=transport, trust_env=False, headers={"Authorization": f"Bearer {key}"}
    ) as asks:
        deadline = time.monotonic() + ANSWERS_S
        while True:
            try:
                said = await asks.get(f"{base}/models")
            except httpx.TransportError as error:
                if time.monotonic() > deadline:
                    raise CannotRun("the server does not answer itself", looked_at=base) from error
                await asyncio.sleep(0.02)
                continue
            if said.status_code != 200:
                raise CannotRun(f"something else answers there ({said.status_code})", looked_at=base)
            return
