"""An engine's server, for as long as somebody needs it.

    with server.running(plan, scratch) as endpoint:
        with Client(endpoint) as client: ...

It is started in the engine's environment, offline, with caches of its own in `scratch`, on a Unix socket there that
nobody else can open, or else on a port of 127.0.0.1; it asks for a key that was made for it. It counts as running when
it has answered a question, not when it listens. It ends when the block does, and also when this process is killed
(warden.py). Its log is in scratch; a server that dies is a CannotRun with the log's last lines.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kuulo import engines, runtimes
from kuulo.engines.base import Refused, ServerCommand, ServerTask, Unusable
from kuulo.errors import EngineMissing, InputFailed, OptionRefused, UsageError
from kuulo.llm import warden
from kuulo.llm.client import Client, RequestRefused, ServerGone
from kuulo.llm.endpoint import Endpoint
from kuulo.llm.plan import ChatPlan
from kuulo.runtimes import Runtime
from kuulo.runtimes.container import Container

LONGEST_SOCKET = 100
"""Bytes of a socket's path; the system takes 107 (unix(7))."""

TRIES = 3
"""How often a port is chosen anew when somebody else was quicker."""

POLL_S = 0.05
STOP_S = 10.0
LAST_LINES = 8

MOSTLY = {
    "SIGILL": ", an instruction that this processor does not have: it was built for another kind",
    "SIGKILL": ", mostly for lack of memory",
}
"""Signal that ended a server -> what it mostly means."""

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "KUULO_LLM_KEY", "OPENAI_API_KEY")
"""Variables of ours that no server needs."""

OTHERS_OPTIONS = ("LLAMA_ARG_",)
"""Beginnings of variables that would set a server's options behind our back."""


class ServerDied(ServerGone):
    """The engine's server ended, or never answered."""


@contextlib.contextmanager
def running(plan: ChatPlan, scratch: Path, timeout: float | None = None) -> Iterator[Endpoint]:
    """The plan's endpoint, which answers. `scratch` is a folder that is ours alone; `timeout`: seconds until it has to
    answer (default: the option's). Raises CannotRun (ServerDied with the last lines of its log)."""
    if not plan.starts_server:
        yield given(plan)
        return
    server = Server(plan, scratch, float(plan.options["timeout"] if timeout is None else timeout))
    try:
        server.start()
        try:
            yield server.endpoint
        except ServerGone as error:
            if isinstance(error, ServerDied) or not server.has_ended():
                raise
            raise server.death() from error
    finally:
        server.stop()


def given(plan: ChatPlan) -> Endpoint:
    """The endpoint that a plan names. Where it names no model, the one that the endpoint has. Raises UsageError where
    that has several."""
    assert plan.base_url is not None
    endpoint = Endpoint(
        plan.base_url, plan.socket, plan.secret, plan.model_name or "", plan.engine, schema_as=plan.spec.schema_as
    )
    if plan.model_name:
        return endpoint
    with Client(endpoint, timeout=30.0) as client:
        names = client.models()
    if len(names) != 1:
        raise UsageError(
            f"the endpoint has {len(names) or 'no'} models: which?",
            looked_at=", ".join(names[:20]) or None,
            do=f"--model {names[0]}" if names else None,
        )
    return Endpoint(**{**vars(endpoint), "model": names[0]})


def native(plan: ChatPlan) -> str:
    """The exact command that starts the plan's server, as a shell would have it; SOCKET, PORT and KEY stand for what is
    chosen when it starts. Raises EngineMissing."""
    if not plan.starts_server:
        return f"POST {plan.base_url}/chat/completions" + (f" (socket {plan.socket})" if plan.socket else "")
    command = _command(plan, _task(plan, "SOCKET", 0, "KEY", "FOLDER"))
    words = [f"{k}={shlex.quote('KEY' if k in command.secret else v)}" for k, v in sorted(command.environ.items())]
    lines = [" ".join([*words, shlex.join("PORT" if w == "0" and before == "--port" else w for before, w in zip(
        ("", *command.argv), command.argv, strict=False))])]  # fmt: skip
    return "\n".join([*lines, *(f"# {name}: {text}" for name, text in command.files.items())])


class Server:
    """One server. `start` returns when it answers; `stop` may always be called."""

    def __init__(self, plan: ChatPlan, scratch: Path, timeout: float) -> None:
        self.plan = plan
        self.timeout = timeout
        self.scratch = scratch.absolute()
        self.log = self.scratch / "server.log"
        self.endpoint: Endpoint
        self.process: subprocess.Popen[bytes] | None = None
        self._alive: int | None = None
        self._elsewhere: Path | None = None

    def start(self) -> None:
        """Raises CannotRun."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.scratch.chmod(0o700)
        for chance in range(1, TRIES + 1):
            on_socket = self._begin()
            try:
                self._wait()
                return
            except ServerDied as error:
                if on_socket or chance == TRIES or "address already in use" not in str(error).lower():
                    raise
                self.stop()

    def _begin(self) -> bool:
        """Starts the process; whether it is on a socket."""
        key, place, port = secrets.token_urlsafe(32), self._socket(), free_port()
        task = _task(self.plan, str(place), port, key, str(self.scratch))
        command = _command(self.plan, task)
        for name, text in command.files.items():
            _write_private(self.scratch / name, text)
        address = "localhost" if command.on_socket else f"127.0.0.1:{port}"
        self.endpoint = Endpoint(
            f"http://{address}/v1",
            place if command.on_socket else None,
            key,
            self.plan.model_name or "",
            self.plan.engine,
            self.plan.context,
            self.plan.spec.schema_as,
            version(self.plan),
        )
        self._ready_path = command.ready_path
        runtime, environ = self._prepared()
        argv = list(command.argv)
        if isinstance(runtime, Container):
            reads = [Path(path) for path in (task.model_path, *self.plan.spec.files_of(task.raw).values())]
            argv = runtime.server(self.scratch, argv, reads, command.environ, self._elsewhere)
        else:
            environ |= command.environ
        watched, self._alive = os.pipe()
        # -S -E: nothing of what is installed here is needed
        words = [sys.executable, "-S", "-E", warden.__file__, str(watched), "--", *argv]
        try:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.scratch,
                    env=environ,
                    pass_fds=[watched],
                    start_new_session=True,
                )
        finally:
            os.close(watched)
        return command.on_socket

    def _prepared(self) -> tuple[Runtime, dict[str, str]]:
        """The runtime, with scratch ready for it, and the variables for what starts the server."""
        runtime = runtimes.of(self.plan.environment)
        runtimes.make_room(runtime, self.scratch)
        ours = {k: v for k, v in os.environ.items() if k not in SECRETS and not k.startswith(OTHERS_OPTIONS)}
        return runtime, runtime.environment(self.scratch, ours)

    def _socket(self) -> Path:
        """A path for a socket that is short enough."""
        place = self.scratch / "llm.sock"
        if len(os.fsencode(place)) > LONGEST_SOCKET:
            self._elsewhere = self._elsewhere or _short_folder()
            place = self._elsewhere / "llm.sock"
        place.unlink(missing_ok=True)
        return place

    def _wait(self) -> None:
        """Until it has answered a question."""
        deadline = time.monotonic() + self.timeout
        with Client(self.endpoint, timeout=max(1.0, self.timeout)) as client:
            while not self._says_ready(client):
                if self.has_ended():
                    raise self.death()
                if time.monotonic() > deadline:
                    raise self.death(f"did not answer within {self.timeout:g} s")
                time.sleep(POLL_S)
            try:
                client.chat([{"role": "user", "content": "Hi"}], {"max_tokens": 1, "temperature": 0})
            except InputFailed as error:
                raise self.death(f"does not answer a first question ({error.what})") from error
            except ServerGone as error:
                raise (self.death() if self.has_ended() else error) from error

    def _says_ready(self, client: Client) -> bool:
        if self.endpoint.socket and not _is_open(self.endpoint.socket):
            return False
        try:
            client.request("GET", client.endpoint.root_url + self._ready_path)
        except (ServerGone, RequestRefused):
            return False
        return True

    def has_ended(self) -> bool:
        """Whether it is gone; waits a moment, since a connection breaks before a process is known to have ended."""
        if self.process is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
        return self.process.poll() is not None

    def death(self, how: str = "") -> ServerDied:
        """What happened, with the last lines of its log."""
        code = self.process.poll() if self.process else None
        if not how and code is not None:
            number = code - 128 if code > 128 else -code if code < 0 else 0
            name = signal.Signals(number).name if number in {s.value for s in signal.Signals} else ""
            how = f"was killed ({name}{MOSTLY.get(name, '')})" if name else f"ended (exit code {code})"
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.is_file() else []
        last = "\n".join(f"    {line[:300]}" for line in [li for li in lines if li.strip()][-LAST_LINES:])
        return ServerDied(
            f"the server of {self.plan.engine} {how or 'is gone'}",
            looked_at=f"its log:\n{last}" if last else "its log, which is empty",
        )

    def stop(self) -> None:
        """Ends it and all that it started, and waits until they are gone."""
        if self._alive is not None:
            os.close(self._alive)  # the warden sees it
            self._alive = None
        if self.process is not None:
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self._elsewhere is not None:
            shutil.rmtree(self._elsewhere, ignore_errors=True)
            self._elsewhere = None


def _short_folder() -> Path:
    """A new folder of ours for a socket, where the path is short: the temporary folder may lie in scratch too."""
    room = LONGEST_SOCKET - len("/kuulo-12345678/llm.sock")
    base = next((b for b in (tempfile.gettempdir(), "/tmp", "/var/tmp") if len(os.fsencode(b)) <= room), None)  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="kuulo-", dir=base))


def version(plan: ChatPlan) -> str:
    """The engine's version: that of its package, in its environment or here; empty where only a program was found."""
    if plan.environment:
        return plan.environment.version(plan.spec.package) or ""
    try:
        return importlib.metadata.version(plan.spec.package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _is_open(place: Path) -> bool:
    """Whether somebody listens at a socket."""
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(str(place))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _task(plan: ChatPlan, place: str, port: int, key: str, folder: str) -> ServerTask:
    environment = plan.environment
    own: list[Path] = []
    if environment is not None and environment.image:
        python: str | None = Container(environment).interpreter
    elif environment is not None:
        python = str(environment.interpreter)
        own = [environment.folder / "bin", *environment.folder.glob("lib/python*/site-packages/bin")]
    else:
        python = sys.executable if _is_here(plan) else None
        own = [Path(sys.executable).parent, Path(sysconfig.get_path("platlib")) / "bin"]
    image = environment is not None and bool(environment.image)
    folders = [] if image else [*map(str, own), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    assert plan.model is not None
    return ServerTask(
        model_path=str(plan.model.path),
        model_name=str(plan.model_name),
        options=plan.server_options(),
        raw=plan.raw,
        python=python,
        folders=tuple(f for f in folders if Path(f).is_absolute()),
        socket=place,
        port=port,
        key=key,
        folder=folder,
        image=image,
    )


def _is_here(plan: ChatPlan) -> bool:
    import importlib.util

    return importlib.util.find_spec(plan.spec.module) is not None


def _command(plan: ChatPlan, task: ServerTask) -> ServerCommand:
    try:
        command: Any = engines.module(plan.engine).serve(task)
    except Refused as error:
        raise OptionRefused(f"{plan.engine} cannot do this: {error.what}", do=error.do or None) from error
    except Unusable as error:
        raise EngineMissing(error.what, looked_at=plan.engine, do=error.do or None) from error
    assert isinstance(command, ServerCommand)
    return command


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
