"""`kuulo serve` with a language model: who gets in, what passes, and how it ends. Behind it is the stand-in server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import httpx2 as httpx
import pytest

import llm_standin
from conftest import Kuulo
from kuulo import engines, machine
from kuulo.errors import UsageError
from kuulo.llm.serving import keys, publishing, reaching, registry
from kuulo.llm.serving.registry import Server
from serving import Serving, home, serving, until

openai = pytest.importorskip("openai")

Start = Callable[..., AbstractContextManager[Serving]]
MESSAGES = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def start(kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path) -> Start:
    """Starts a server over an endpoint: `with start(endpoint, "--idle", "5s") as server`."""

    def begin(endpoint: Any, *words: str, name: str = "s1") -> AbstractContextManager[Serving]:
        url = f"unix:{endpoint.socket}" if endpoint.socket else endpoint.base_url
        environ = {**kuulo_environment, **({"KUULO_LLM_KEY": endpoint.key} if endpoint.key else {})}
        return serving(kuulo_command, environ, tmp_path, "--endpoint", url, *words, name=name)

    return begin


@pytest.fixture
def server(start: Start, tmp_path: Path) -> Iterator[Serving]:
    """A server of one test's own."""
    with llm_standin.running(tmp_path / "engine", key="engine-key") as endpoint, start(endpoint) as one:
        yield one


@pytest.fixture(scope="module")
def shared(kuulo_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that tests ask and leave as it was."""
    folder = tmp_path_factory.mktemp("shared")
    environ = {**home(folder), "KUULO_LLM_KEY": "engine-key"}
    with (
        llm_standin.running(folder / "engine", key="engine-key") as endpoint,
        serving(kuulo_command, environ, folder, "--endpoint", endpoint.base_url) as one,
    ):
        yield one


@pytest.fixture
def http(shared: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared.url, headers=shared.headers, timeout=30, trust_env=False) as client:
        yield client


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "standin", "messages": MESSAGES, **more}


# ------------------------------------------------------------------ OpenAI's own client


def client_of(server: Serving, **more: Any) -> Any:
    return openai.OpenAI(base_url=server.url, api_key=server.key, max_retries=0, **more)


def test_openais_client_gets_answers_streams_and_models(shared: Serving) -> None:
    with client_of(shared) as client:
        assert [model.id for model in client.models.list()] == ["standin"]
        assert client.models.retrieve("standin").owned_by == "kuulo"
        said = client.chat.completions.create(model="standin", messages=MESSAGES)
        assert said.choices[0].message.content == "Answer: one two three"
        assert said.usage.completion_tokens == 4
        pieces = list(client.chat.completions.create(model="standin", messages=MESSAGES, stream=True))
        assert "".join(p.choices[0].delta.content or "" for p in pieces) == "Answer: one two three"
        assert len(pieces) == 6
        with pytest.raises(openai.NotFoundError, match="does not have the model 'gpt-4o'"):
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match="context size"):
            client.chat.completions.create(model="standin", messages=[{"role": "user", "content": "x " * 5000}])


def test_openais_client_understands_a_wrong_key(shared: Serving) -> None:
    with (
        openai.OpenAI(base_url=shared.url, api_key="sk-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.models.list()
        assert refused.value.code == "invalid_api_key"
        assert "sk-wrong" not in str(refused.value)


def test_a_schema_goes_to_the_engine(shared: Serving) -> None:
    schema = {"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with client_of(shared) as client:
        said = client.chat.completions.create(model="standin", messages=MESSAGES, response_format=form)
    assert json.loads(said.choices[0].message.content) == {"who": "text"}


# ------------------------------------------------------------------ who gets in


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer sk-", "Basic {key}", "{key}", "Bearer {key}x", "Bearer {short}", "Bearer \xe9"],
)
def test_nobody_gets_in_without_the_key(shared: Serving, header: str) -> None:
    value = header.format(key=shared.key, short=shared.key[:-1])
    for path in ("/v1/models", "/v1/chat/completions", "/nothing"):
        request = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {value}\r\nContent-Length: 2\r\n\r\n{{}}"
        head, _, body = raw(shared, request.encode("latin-1")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 ")
        assert b"www-authenticate: Bearer" in head
        assert json.loads(body)["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "path",
    [
        "/", "/metrics", "/tokenize", "/v1", "/v1/", "/v1/nothing", "/v1/chat", "/v1/chat/completions/",
        "/v1/../health",         "/v1/%2e%2e/tokenize", "//v1/models", "/V1/models",
        "/v1/responses", "/invocations", "/docs", "/openapi.json",
        "/v1/audio/transcriptions", "/v1/load_lora_adapter",
        "/health/", "/slots", "/props",
    ],
)  # fmt: skip
def test_other_routes_are_not_there(shared: Serving, path: str) -> None:
    """Written by hand, since a client would tidy the path."""
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.key}\r\nContent-Length: 2\r\n\r\n{{}}"
    said = raw(shared, request.encode())
    assert said.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")), said[:200]
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


def raw(server: Serving, request: bytes) -> bytes:
    """What is answered to these bytes, until the connection is quiet."""
    record = server.record()
    with socket.create_connection((record["bind"], record["port"]), 10) as connection:
        connection.sendall(request)
        connection.settimeout(2)
        parts = []
        try:
            while part := connection.recv(1 << 16):
                parts.append(part)
                if b"\r\n\r\n" in b"".join(parts) and parts[-1].endswith(b"}"):
                    break
        except TimeoutError:
            pass
    return b"".join(parts)


def test_health_needs_no_key_and_says_nothing(shared: Serving) -> None:
    said = httpx.get(shared.url.removesuffix("/v1") + "/health", trust_env=False)
    assert (said.status_code, said.json()) == (200, {"status": "ok"})


def test_a_route_that_the_engine_lacks_is_not_there(http: httpx.Client) -> None:
    refused = http.post("/embeddings", json={"model": "standin", "input": "x"})
    assert refused.status_code == 404
    assert "does not have this" in refused.json()["error"]["message"]


def test_nothing_of_the_engine_but_its_answer_comes_back(http: httpx.Client) -> None:
    said = http.post("/chat/completions", json=chat())
    assert {*said.headers} == {"content-type", "content-length", "cache-control", "date"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"model": "standin", "x": }']
)
def test_a_body_that_is_no_request_is_refused(http: httpx.Client, body: bytes) -> None:
    refused = http.post("/chat/completions", content=body)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["type"] == "invalid_request_error"


def memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_a_body_of_100_mb_is_refused_while_it_is_read(shared: Serving, http: httpx.Client) -> None:
    before = memory(shared.process.pid)
    whole = http.post("/chat/completions", content=b"x" * (100 << 20))
    assert whole.status_code == 413
    assert whole.json()["error"]["code"] == "request_too_large"

    def pieces() -> Iterator[bytes]:  # no length is said before
        for _ in range(100):
            yield b"x" * (1 << 20)

    streamed = http.post("/chat/completions", content=pieces())
    assert streamed.status_code == 413
    assert memory(shared.process.pid) - before < 60 << 20
    assert http.post("/chat/completions", json=chat()).status_code == 200


def test_a_large_body_without_the_key_is_refused_too(shared: Serving) -> None:
    with httpx.Client(trust_env=False, timeout=30) as client:
        assert client.post(f"{shared.url}/chat/completions", content=b"x" * (100 << 20)).status_code == 401


def test_the_limit_can_be_chosen(start: Start, tmp_path: Path) -> None:
    with (
        llm_standin.running(tmp_path / "engine", context=10**7) as endpoint,
        start(endpoint, "--body-limit", "2M") as one,
    ):
        long = [{"role": "user", "content": "x" * (3 << 20)}]
        refused = httpx.post(
            f"{one.url}/chat/completions", headers=one.headers, json=chat(messages=long), trust_env=False
        )
        assert refused.status_code == 413


# ------------------------------------------------------------------ clients that do not go on


@pytest.fixture(scope="module")
def impatient(kuulo_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that waits a second for requests, and whose engine takes longer than that for each word."""
    folder = tmp_path_factory.mktemp("impatient")
    words = ["--speech-engine", "null", "--speech-name", "whisper-1", "--read-timeout", "1s"]
    with (
        llm_standin.running(folder / "engine", slow=1.5) as endpoint,
        serving(kuulo_command, home(folder), folder, "--endpoint", endpoint.base_url, *words) as one,
    ):
        yield one


@contextlib.contextmanager
def connected(server: Serving) -> Iterator[socket.socket]:
    record = server.record()
    with socket.create_connection((record["bind"], record["port"]), 10) as connection:
        connection.settimeout(30)
        yield connection


def rest(connection: socket.socket) -> bytes:
    """All that still comes until the other side closes; TimeoutError when it does not."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def head(server: Serving, path: str, length: int, kind: str = "application/json") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthor"])
def test_a_client_that_does_not_end_its_headers_is_left(impatient: Serving, sent: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(sent)
        assert rest(connection) == b""


def test_a_byte_now_and_then_wins_no_time(impatient: Serving) -> None:
    with connected(impatient) as connection:
        connection.settimeout(0.2)
        begun = "GET /health HTTP/1.1\r\n" + "".join(f"X-{n}: {n}\r\n" for n in range(200))
        with contextlib.suppress(ConnectionError):  # it may be closed while a byte is on its way
            for letter in begun:
                connection.sendall(letter.encode())
                try:
                    assert connection.recv(1) == b""
                    return
                except TimeoutError:
                    continue
            pytest.fail("after 200 s it is still open")


def test_a_second_request_on_a_connection_has_to_come_on_too(impatient: Serving) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHo")
        said = rest(connection)
    assert said.count(b"HTTP/1.1 200 OK") == 1 and said.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize(
    ("path", "kind", "sent"),
    [
        ("/v1/chat/completions", "application/json", b'{"model": "stand'),
        ("/v1/chat/completions", "application/json", b""),
        (
            "/v1/audio/transcriptions",
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF',
        ),
    ],
)
def test_a_body_that_does_not_come_on_is_refused(impatient: Serving, path: str, kind: str, sent: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(head(impatient, path, 1000, kind) + sent)
        first, _, body = rest(connection).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 408 ") and b"connection: close" in first.lower()
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "request_timeout")
    assert "for 1 s" in error["message"]


def test_without_the_key_half_a_body_holds_nothing_either(impatient: Serving) -> None:
    with connected(impatient) as connection:
        connection.sendall(head(impatient, "/v1/models", 1000).replace(impatient.key.encode(), b"sk-wrong") + b"{")
        said = rest(connection)
    assert said.startswith(b"HTTP/1.1 401 ")


def test_a_body_that_comes_slowly_is_read(impatient: Serving) -> None:
    """What counts is that it comes on: here it takes longer than the limit in all."""
    asked = json.dumps(chat(max_tokens=1)).encode()
    with connected(impatient) as connection:
        connection.sendall(head(impatient, "/v1/chat/completions", len(asked)))
        for place in range(0, len(asked), 1 + len(asked) // 8):
            connection.sendall(asked[place : place + 1 + len(asked) // 8])
            time.sleep(0.2)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_an_answer_takes_as_long_as_it_takes(impatient: Serving) -> None:
    """Nothing is said for longer than a client has for its request, before the first word and between words."""
    with client_of(impatient, timeout=60) as client:
        said = client.chat.completions.create(model="standin", messages=MESSAGES, stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in said) == "Answer: one two three"
        again = client.chat.completions.create(model="standin", messages=MESSAGES)
        assert again.choices[0].message.content == "Answer: one two three"


@pytest.mark.parametrize("text", ["soon", "0s", "60"])
def test_how_long_a_request_may_take_is_a_time(kuulo: Kuulo, text: str) -> None:
    """With its unit: 60 would be minutes for one, and seconds for another."""
    refused = kuulo("serve", "--endpoint", "http://127.0.0.1:1/v1", "--read-timeout", text)
    assert refused.returncode == 2 and f"--read-timeout: {text!r} is not a time" in refused.stderr


# ------------------------------------------------------------------ settings of recognition that a server does not use

NOT_USED = (
    "a server of recordings does not use pack = true (a variable), roster = voices.json (your settings), "
    "speakers = auto (your settings), speech_detection = true (the site's file): kuulo transcribe does"
)


@pytest.fixture
def settings(kuulo_environment: dict[str, str], tmp_path: Path) -> None:
    user = Path(kuulo_environment["XDG_CONFIG_HOME"]) / "kuulo" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text(
        '[defaults]\nspeakers = "auto"\nroster = "voices.json"\nworkers = 1\nformat = "docx"\nbeam_size = 1\n'
    )
    site = tmp_path / "site.toml"
    site.write_text("[defaults]\nhighlight_words = false\n[forced]\nspeech_detection = true\n")
    kuulo_environment |= {"KUULO_SITE": str(site), "KUULO_PACK": "yes"}


@pytest.mark.usefixtures("settings")
def test_settings_that_it_does_not_use_are_named(start: Start, kuulo: Kuulo, tmp_path: Path) -> None:
    shown = kuulo("serve", "--speech-engine", "null", "--dry-run")
    assert f"note:   {NOT_USED}\n" in shown.stdout, shown.stdout + shown.stderr
    with (
        llm_standin.running(tmp_path / "engine") as endpoint,
        start(endpoint, "--speech-engine", "null") as one,
    ):
        assert f"{NOT_USED}\n" in one.said.read_text()


def test_without_such_settings_nothing_is_said(kuulo: Kuulo) -> None:
    shown = kuulo("serve", "--speech-engine", "null", "--dry-run")
    assert shown.returncode == 0 and "does not use" not in shown.stdout + shown.stderr


# ------------------------------------------------------------------ streams, and what breaks them


def test_an_engine_that_dies_in_a_stream_is_an_error(start: Start, tmp_path: Path) -> None:
    with (
        llm_standin.running(tmp_path / "engine", dies_after=2) as endpoint,
        start(endpoint) as one,
        client_of(one, timeout=20) as client,
    ):
        heard = []
        with pytest.raises(openai.APIError, match="did not answer to the end"):
            for piece in client.chat.completions.create(model="standin", messages=MESSAGES, stream=True):
                heard.append(piece.choices[0].delta.content)
        assert heard == ["", "Answer:", " one"]
        with pytest.raises(openai.InternalServerError, match="nothing answers") as later:
            client.chat.completions.create(model="standin", messages=MESSAGES)
        assert later.value.status_code == 502


def test_an_engine_that_dies_before_it_answers_is_502(start: Start, tmp_path: Path) -> None:
    with llm_standin.running(tmp_path / "engine", dies_after=0) as endpoint, start(endpoint) as one:
        said = httpx.post(f"{one.url}/chat/completions", headers=one.headers, json=chat(), trust_env=False, timeout=20)
        assert said.status_code == 502
        assert said.json()["error"]["code"] == "engine_failed"


class Engine:
    """A server of one answer, written by hand. `left` is set when the client of a connection has gone."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.left, self.asked = answer, threading.Event(), threading.Event()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self.listening.getsockname()[1]}/v1"
        self.socket, self.key = None, None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := connection.recv(1 << 16)):
                    return  # somebody only looked whether anybody listens
                data += more
            if data.startswith(b"GET /v1/models"):
                body = b'{"data": [{"id": "standin"}]}'
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                connection.sendall(head % len(body) + body)
                return
            if not data.startswith(b"POST "):
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            connection.sendall(self.answer)
            self.asked.set()
            if self.answer.endswith(b"KEEP\n\n"):
                while connection.recv(1 << 16):
                    pass
                self.left.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.close()


SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def test_a_stream_that_just_stops_is_an_error(start: Start) -> None:
    """Without chunks, the end of a connection looks like the end of an answer; half an event is dropped."""
    with (
        Engine(SSE + b'data: {"choices": [{"delta": {"content": "a"}}]}\r\n\r\ndata: {"cho') as engine,
        start(engine) as one,
    ):
        said = httpx.post(f"{one.url}/chat/completions", headers=one.headers, json=chat(stream=True), trust_env=False)
    first, second = [event for event in said.text.replace("\r\n", "\n").split("\n\n") if event]
    assert json.loads(first[6:])["choices"][0]["delta"]["content"] == "a"
    assert json.loads(second[6:])["error"]["code"] == "engine_failed"


def test_a_stream_comes_as_it_is_made_and_a_client_that_leaves_ends_the_engines_work(start: Start) -> None:
    """The first event is here while the engine has not made another."""
    with Engine(SSE + b"data: KEEP\n\n") as engine, start(engine) as one:
        with httpx.stream(
            "POST", f"{one.url}/chat/completions", headers=one.headers, json=chat(stream=True), trust_env=False
        ) as stream:
            pieces = stream.iter_raw()  # without a name it would be closed at once, and the stream with it
            assert next(pieces) == b"data: KEEP\n\n"
            assert not engine.left.wait(0.5)
        assert engine.left.wait(10)


def test_a_client_that_leaves_before_an_answer_ends_it_too(start: Start) -> None:
    with Engine(b"HTTP/1.1 200 OK\r\nX: KEEP\n\n") as engine, start(engine) as one, pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{one.url}/chat/completions", headers=one.headers, json=chat(), trust_env=False, timeout=2)
        assert engine.left.wait(10)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\noops", 500, "The engine says: oops"),
        (b'HTTP/1.1 422 X\r\nContent-Length: 16\r\n\r\n{"detail": "bad"}'[:-1] + b"}", 422, "bad"),
        (b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n", 502, "refuses its own server's key"),
        (b"garbage\r\n\r\n", 502, "ended in the middle"),
    ],
)
def test_errors_of_an_engine_have_openais_shape(start: Start, answer: bytes, status: int, words: str) -> None:
    with Engine(answer) as engine, start(engine) as one:
        said = httpx.post(f"{one.url}/chat/completions", headers=one.headers, json=chat(), trust_env=False, timeout=20)
    assert said.status_code == status
    assert words in said.json()["error"]["message"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_it_ends_in_good_order_when_told(server: Serving, how: signal.Signals, kuulo_environment: Any) -> None:
    assert server.end(how) == 0
    assert f"told to ({how.name})" in server.said.read_text()
    assert not server.folder.exists()
    assert list(Path(kuulo_environment["TMPDIR"]).iterdir()) == []


def test_an_answer_that_is_being_made_is_finished_when_told_to_end(start: Start, tmp_path: Path) -> None:
    with (
        llm_standin.running(tmp_path / "engine", slow=0.3) as endpoint,
        start(endpoint) as one,
        client_of(one) as client,
    ):
        stream = client.chat.completions.create(model="standin", messages=MESSAGES, stream=True)
        text = next(stream).choices[0].delta.content
        one.process.terminate()
        text += "".join(piece.choices[0].delta.content or "" for piece in stream)
        assert text == "Answer: one two three"
        assert one.process.wait(20) == 0


def test_an_answer_without_an_end_is_broken_off_with_an_error(start: Start) -> None:
    with Engine(SSE + b"data: KEEP\n\n") as engine, start(engine) as one:
        with httpx.stream(
            "POST", f"{one.url}/chat/completions", headers=one.headers, json=chat(stream=True),
            timeout=60, trust_env=False,
        ) as stream:  # fmt: skip
            parts = stream.iter_raw()
            assert next(parts) == b"data: KEEP\n\n"
            one.process.terminate()
            rest = b"".join(parts)
        assert json.loads(rest.removeprefix(b"data: "))["error"]["code"] == "server_ending"
        assert one.process.wait(20) == 0


def test_it_ends_when_nobody_asks_anything(start: Start, tmp_path: Path) -> None:
    with llm_standin.running(tmp_path / "engine", slow=0.5) as endpoint, start(endpoint, "--idle", "2s") as one:
        record = one.record()
        assert record["idle_s"] == 2
        with client_of(one) as client:
            for _ in client.chat.completions.create(model="standin", messages=MESSAGES, stream=True):
                assert one.process.poll() is None  # who is being answered keeps it alive
        assert one.process.wait(20) == 0
        assert "nobody asked anything for 2 s" in one.said.read_text()


# ------------------------------------------------------------------ where it is, and who knows


def test_the_record_and_the_key_are_their_owners_alone(server: Serving) -> None:
    for path in (server.folder, server.folder.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("key", "server.json"):
        assert stat.S_IMODE((server.folder / name).stat().st_mode) == 0o600
    assert server.key.startswith("sk-") and len(server.key) >= 46
    assert server.key not in (server.folder / "server.json").read_text()
    record = server.record()
    assert (record["bind"], record["state"], record["model"]) == ("127.0.0.1", "ready", "standin")
    arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert server.key.encode() not in arguments and b"engine-key" not in arguments


def test_two_servers_have_two_keys(start: Start, tmp_path: Path, kuulo: Kuulo) -> None:
    with (
        llm_standin.running(tmp_path / "engine") as endpoint,
        start(endpoint) as one,
        start(endpoint, name="other") as two,
    ):
        assert one.key != two.key and one.url != two.url
        wrong = httpx.get(f"{two.url}/models", headers=one.headers, trust_env=False)
        assert wrong.status_code == 401
        said = kuulo("llm", "list")
        assert [line.split()[:2] for line in said.stdout.splitlines()[1:]] == [["other", "ready"], ["s1", "ready"]]
        refused = kuulo("llm", "url")
        assert refused.returncode == 2 and "name one" in refused.stderr
        assert kuulo("llm", "url", "other").stdout == f"{two.url}\n"
        assert kuulo("llm", "stop", "other").stdout == "other has ended\n"
        assert two.process.wait(10) == 0
        assert kuulo("llm", "stop").returncode == 0
        assert one.process.wait(10) == 0
    assert "no server" in kuulo("llm", "list").stdout


def test_a_name_or_a_port_that_is_taken_is_refused(server: Serving, kuulo: Kuulo) -> None:
    port = str(server.record()["port"])
    taken = kuulo("serve", "--endpoint", server.url, "--port", port, "--name", "s2", env={"KUULO_LLM_KEY": server.key})
    assert taken.returncode == 3
    assert f"port {port}" in taken.stderr and "leave --port out" in taken.stderr
    assert not server.folder.with_name("s2").exists()
    named = kuulo("serve", "--endpoint", server.url, "--name", "s1", env={"KUULO_LLM_KEY": server.key})
    assert named.returncode == 2 and "there is a server s1 already" in named.stderr
    assert server.folder.exists()


def test_a_server_can_be_in_front_of_another(server: Serving, start: Start) -> None:
    class Other:
        base_url, socket, key = server.url, None, server.key

    with start(Other, "--served-name", "ours", name="s2") as front, client_of(front) as client:
        said = client.chat.completions.create(model="ours", messages=MESSAGES)
        assert said.choices[0].message.content == "Answer: one two three"
        assert [model.id for model in client.models.list()] == ["ours"]


def test_on_a_unix_socket(start: Start, tmp_path: Path, kuulo: Kuulo) -> None:
    place = tmp_path / "a b.sock"
    with (
        llm_standin.running(tmp_path / "engine", unix=True) as endpoint,
        start(endpoint, "--socket", str(place)) as one,
    ):
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0
        assert kuulo("llm", "url").stdout == f"unix:{place}\n"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), headers=one.headers) as client:
            said = client.post("http://localhost/v1/chat/completions", json=chat())
        assert said.json()["choices"][0]["message"]["content"] == "Answer: one two three"
        taken = kuulo("serve", "--endpoint", f"unix:{endpoint.socket}", "--socket", str(place))
        assert taken.returncode == 3 and "Address already in use" in taken.stderr
        assert one.end() == 0
    assert not place.exists()


def test_a_dead_server_is_shown_as_dead_until_it_is_forgotten(server: Serving, kuulo: Kuulo) -> None:
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    for _ in range(2):  # looking takes nothing away
        said = kuulo("llm", "list")
        assert said.stdout.splitlines()[1].split()[:2] == ["s1", "dead"]
        assert f"its process {server.process.pid} is gone" in said.stdout
    refused = kuulo("llm", "url")
    assert refused.returncode == 3 and "s1 is dead" in refused.stderr
    assert "It is forgotten" in kuulo("llm", "stop").stdout
    assert not server.folder.exists()


def test_a_record_that_is_none_is_said(kuulo: Kuulo, kuulo_environment: dict[str, str]) -> None:
    folder = Path(kuulo_environment["XDG_STATE_HOME"]) / "kuulo" / "servers" / "s1"
    folder.mkdir(parents=True)
    (folder / "server.json").write_text("{")
    said = kuulo("llm", "list")
    assert said.returncode == 0 and "record cannot be read" in said.stdout
    (folder / "server.json").unlink()
    assert "it was never started" in kuulo("llm", "list").stdout


def test_another_process_of_the_same_number_is_not_taken_for_it(tmp_path: Path) -> None:
    folder = registry.Servers(tmp_path / "servers").new()
    mine = registry.myself(folder.name)
    folder.write(mine)
    assert registry.look(folder).state == registry.STARTING
    folder.write(Server(**{**vars(mine), "born": mine.born - 1}))
    assert registry.look(folder).state == registry.DEAD


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "nothing is named"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--idle", "soon"), "is not a time"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--body-limit", "many"), "is not a size"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--socket", "x", "--port", "1"), "--socket is instead"),
        (("--endpoint", "http://127.0.0.1:1/v1", "-m", "x", "--name", "../x"), None),
        (("nothing-of-that-name",), None),
    ],
)
def test_what_cannot_be_is_refused(kuulo: Kuulo, words: tuple[str, ...], what: str | None) -> None:
    refused = kuulo("serve", *words)
    assert refused.returncode in (2, 3)
    assert what is None or what in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_address_that_is_none_is_refused(server: Serving, kuulo: Kuulo) -> None:
    refused = kuulo(
        "serve", "--endpoint", server.url, "--bind", "example.org", "--name", "s2", env={"KUULO_LLM_KEY": server.key}
    )
    assert refused.returncode == 2 and "is no address" in refused.stderr


# ------------------------------------------------------------------ lines to type

HERE = Server("s1", "ready", "login1", 1, 1, 0.0, bind="127.0.0.1", port=8123, node="")
NODE = Server("s1", "ready", "gpu7.cluster", 1, 1, 0.0, bind="127.0.0.1", port=8123, node="gpu7")


@pytest.mark.parametrize(
    ("server", "port", "line"),
    [
        (HERE, None, "ssh -N -L 8123:127.0.0.1:8123 anna@login.example"),
        (HERE, 9000, "ssh -N -L 9000:127.0.0.1:8123 anna@login.example"),
        (NODE, None, "ssh -N -L 8123:127.0.0.1:8123 -J anna@login.example anna@gpu7"),
        (Server(**{**vars(NODE), "bind": "10.0.0.7"}), None, "ssh -N -L 8123:10.0.0.7:8123 anna@login.example"),
        (Server(**{**vars(NODE), "port": None, "socket": "/x/s"}), None,
         "ssh -N -L 8000:/x/s -J anna@login.example anna@gpu7"),
    ],
)  # fmt: skip
def test_the_line_that_brings_a_server_home(server: Server, port: int | None, line: str) -> None:
    assert " ".join(reaching.tunnel(server, "login1", "anna", "login.example", port)) == line


def test_who_reaches_a_server() -> None:
    assert reaching.is_reachable(HERE, "login1") and not reaching.is_reachable(NODE, "login1")
    assert reaching.is_reachable(NODE, "gpu7") and reaching.is_reachable(NODE, "gpu7.cluster")
    assert reaching.is_reachable(Server(**{**vars(NODE), "bind": "10.0.0.7"}), "login1")


def test_tunnel_prints_lines_for_a_shell(server: Serving, kuulo: Kuulo) -> None:
    port = server.record()["port"]
    said = kuulo("llm", "tunnel", "--user", "anna", "--login", "login.example", "--port", "9000")
    assert f"ssh -N -L 9000:127.0.0.1:{port} anna@login.example\n" in said.stdout
    assert "export OPENAI_BASE_URL=http://127.0.0.1:9000/v1\n" in said.stdout
    assert server.key not in said.stdout


def test_the_lines_of_url_work_in_a_shell(server: Serving, kuulo: Kuulo) -> None:
    lines = kuulo("llm", "url", "--env").stdout
    assert server.key not in lines
    show = f'{lines}\n{sys.executable} -c "import openai; print(openai.OpenAI().models.list().data[0].id)"'
    done = subprocess.run(["sh", "-c", show], capture_output=True, text=True, check=False)
    assert done.stdout == "standin\n", done.stderr


# ------------------------------------------------------------------ simonw/llm


def llm(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm", *words], env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=60, check=False,
    )  # fmt: skip


def test_a_server_is_published_to_llm_and_taken_back(
    server: Serving, kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("llm")
    place = tmp_path / 'llm\'s "folder"'
    place.mkdir()
    environ = {**kuulo_environment, "LLM_USER_PATH": str(place)}
    theirs = "# mine\n- model_id: other   # keep this\n  model_name: x\n  api_base: http://127.0.0.1:1/v1"
    (place / publishing.MODELS).write_text(theirs)
    (place / publishing.KEYS).write_text('{"openai": "sk-theirs"}')
    env = {"LLM_USER_PATH": str(place)}
    said = kuulo("llm", "publish", env=env)
    assert said.returncode == 0, said.stderr
    assert server.key not in said.stdout
    asked = llm(environ, "-m", "kuulo-s1", "--no-log", "one two three")
    assert asked.stdout.strip() == "Answer: one two three", asked.stderr
    assert llm(environ, "models").stdout.count("other") == 1
    assert (place / publishing.MODELS).read_text().startswith(theirs + "\n")
    assert json.loads((place / publishing.KEYS).read_text())["openai"] == "sk-theirs"
    assert stat.S_IMODE((place / publishing.KEYS).stat().st_mode) == 0o600
    assert (place / (publishing.MODELS + publishing.BEFORE)).read_text() == theirs
    assert kuulo("llm", "publish", env=env).returncode == 0  # again: the same entry, once
    assert (place / publishing.MODELS).read_text().count("kuulo-s1:") == 2
    done = kuulo("llm", "publish", "--remove", "s1", env=env)
    assert done.returncode == 0, done.stderr
    assert (place / publishing.MODELS).read_text() == theirs + "\n"
    assert json.loads((place / publishing.KEYS).read_text()) == {"// Note": publishing.NOTE, "openai": "sk-theirs"}
    assert kuulo("llm", "publish", "--remove", "s1", env=env).returncode == 2


ENTRY = {"model_id": "kuulo-s1", "model_name": "a: 'b' \"c\" ü", "api_base": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    "text",
    ["", "# a comment\n", "- model_id: a\n", "  - model_id: a\n    x: 1\n", "- model_id: a", "---\n- model_id: a\n"],
)
def test_an_entry_goes_in_and_out_of_any_list(text: str) -> None:
    import yaml

    made = publishing.with_entry(text, "kuulo-s1", ENTRY, "f")
    assert made.startswith(text)
    assert yaml.safe_load(made)[-1] == ENTRY
    assert publishing.without_entry(made, "kuulo-s1") in (text, text + "\n")


@pytest.mark.parametrize(
    "text", ["[{model_id: a}]\n", "a: 1\n", "{", "- model_id: kuulo-s1\n", "- a: |\n    text\n..."]
)
def test_a_file_that_cannot_take_it_is_left_alone(text: str) -> None:
    with pytest.raises(UsageError):
        publishing.with_entry(text, "kuulo-s1", ENTRY, "f")


def test_a_key_opens_alone(tmp_path: Path) -> None:
    key = keys.new(tmp_path / "key")
    assert keys.read(tmp_path / "key") == key
    assert keys.opens(key, f"Bearer {key}") and keys.opens(key, f"bearer  {key} ")
    assert not keys.opens(key, f"Bearer {key[:-1]}") and not keys.opens(key, "") and not keys.opens(key, "\udcff")
    assert len({keys.new(tmp_path / "key") for _ in range(5)}) == 5


# ------------------------------------------------------------------ with a server that is started for it

TINY = Path(__file__).parent / "llm" / "tiny"


@pytest.fixture
def started(kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path) -> Iterator[Serving]:
    """A server with a real, very small model in its engine's own server."""
    if not engines.installed(engines.spec("transformers-chat")):
        pytest.skip("transformers is not installed")
    with serving(kuulo_command, kuulo_environment, tmp_path, str(TINY), "--engine", "transformers-chat") as one:
        yield one


def below(pid: int) -> list[int]:
    """All processes that a process has started, and those that these have."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, ())]
        found += new
    return found


@pytest.mark.engine("transformers-chat")
def test_a_real_model_answers_and_a_killed_engine_ends_its_server(
    started: Serving, kuulo: Kuulo, kuulo_environment: dict[str, str]
) -> None:
    with client_of(started, timeout=60) as client:
        asked: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
        whole = client.chat.completions.create(**asked).choices[0].message.content
        pieces = client.chat.completions.create(**asked, stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole
        assert whole
        engine = below(started.process.pid)[-1]
        os.kill(engine, signal.SIGSTOP)  # its answers are made within milliseconds: this one is not
        threading.Timer(1.0, os.kill, (engine, signal.SIGKILL)).start()
        with pytest.raises(openai.APIError, match="ended in the middle"):
            client.chat.completions.create(**asked)
    assert started.process.wait(30) == 3
    said = started.said.read_text()
    assert "was killed (SIGKILL" in said
    assert not below(started.process.pid) and list(Path(kuulo_environment["TMPDIR"]).iterdir()) == []
    assert "no server" in kuulo("llm", "list").stdout


@pytest.mark.engine("transformers-chat")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_ends_with_its_server(started: Serving, how: signal.Signals, kuulo_environment: Any) -> None:
    engine = below(started.process.pid)
    assert engine
    assert started.end(how) == (0 if how == signal.SIGTERM else -9)
    until(lambda: not any(machine.has_process(pid) for pid in engine))
    if how == signal.SIGTERM:
        assert list(Path(kuulo_environment["TMPDIR"]).iterdir()) == []


def test_told_to_end_while_the_model_is_loaded_it_ends(
    kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    if not engines.installed(engines.spec("transformers-chat")):
        pytest.skip("transformers is not installed")
    process = subprocess.Popen(
        [*kuulo_command, "serve", str(TINY), "--engine", "transformers-chat", "--name", "s1"],
        env=kuulo_environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    folder = Path(kuulo_environment["XDG_STATE_HOME"]) / "kuulo" / "servers" / "s1"
    until(lambda: (folder / "server.json").exists())
    until(lambda: below(process.pid))
    assert json.loads((folder / "server.json").read_text())["state"] == "starting"
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert not folder.exists() and list(Path(kuulo_environment["TMPDIR"]).iterdir()) == []
