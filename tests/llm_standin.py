"""A stand-in for a language model's server: OpenAI's API over the standard library, with answers that are known before.

    python tests/llm_standin.py [--port N | --socket PATH] [--key K] [--context N] [--model NAME] [--answers FILE]
                                [--slow SECONDS] [--dies-after N] [--holds-after N] [--starts-in SECONDS]
                                [--parallel N]

The answer is `Answer: ` and the last message, at most `max_tokens` words of it; or that of the first regular expression
in FILE ({"pattern": "answer", ...}) that is found in the messages. With a response_format that has a schema, and
without such an answer, it is the least JSON that keeps to it. A token is a word. The first line of standard output is
JSON with where it is.

`--slow`: so long before each piece of a stream. `--dies-after N`: the process ends after N pieces of a stream (0: in
the middle of any answer). `--holds-after N`: it answers N questions, and others never. `--starts-in`: 503 for so long.

In tests:

    with llm_standin.running(tmp_path, key="k") as endpoint: ...
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import itertools
import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ENDED = 3
"""Exit code of one that died as it was told."""


def least(schema: Any, root: Any = None) -> Any:
    """The least value that keeps to a JSON schema; texts are "text", the first of an enum is taken."""
    root = schema if root is None else root
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        found = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return least(found, root)
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if "enum" in schema:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return least(schema[word][0], root)
    kind = schema.get("type", "object" if "properties" in schema else None)
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: least(one, root) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [least(schema.get("items", {}), root) for _ in range(max(1, schema.get("minItems", 1)))]
    if kind == "string":
        return "text".ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", 1000)]
    return {"integer": schema.get("minimum", 0), "number": schema.get("minimum", 0), "boolean": False}.get(kind)


def schema_of(asked: Mapping[str, Any]) -> Any:
    form = asked.get("response_format") or {}
    return form.get("schema") or (form.get("json_schema") or {}).get("schema")


def text_of(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return str(content or "")


def answer(asked: Mapping[str, Any], scripted: Mapping[str, str]) -> tuple[list[str], str]:
    """The pieces of the answer, and why it ended."""
    whole = "\n".join(text_of(message.get("content")) for message in asked["messages"])
    text = next((said for pattern, said in scripted.items() if re.search(pattern, whole)), None)
    if text is None and schema_of(asked) is not None:
        return [json.dumps(least(schema_of(asked)))], "stop"
    if text is None:
        text = f"Answer: {text_of(asked['messages'][-1].get('content'))}"
    for stop in [asked["stop"]] if isinstance(asked.get("stop"), str) else asked.get("stop") or []:
        text = text.partition(stop)[0]
    pieces = re.findall(r"\s*\S+\s*?", text)
    most = asked.get("max_tokens") or asked.get("max_completion_tokens")
    return (pieces[:most], "length") if most and len(pieces) > most else (pieces, "stop")


class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    given: argparse.Namespace
    scripted: Mapping[str, str] = {}
    began = 0.0
    questions = itertools.count()

    def log_message(self, format: str, *arguments: Any) -> None:
        print(format % arguments, file=sys.stderr, flush=True)

    def address_string(self) -> str:
        return "client"

    def say(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, message: str, **more: Any) -> None:
        self.say(status, {"error": {"message": message, "code": status, **more}})

    def allowed(self) -> bool:
        if time.monotonic() - self.began < self.given.starts_in:
            self.refuse(503, "Loading model", type="unavailable_error")
            return False
        if self.given.key and self.headers.get("Authorization") != f"Bearer {self.given.key}":
            self.refuse(401, "Invalid API Key", type="authentication_error")
            return False
        return True

    def do_GET(self) -> None:
        if not self.allowed():
            return
        if self.path == "/v1/models":
            self.say(200, {"object": "list", "data": [{"id": self.given.model, "object": "model"}]})
        elif self.path == "/health":
            self.say(200, {"status": "ok"})
        else:
            self.refuse(404, "File Not Found", type="not_found_error")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.allowed():
            return
        try:
            asked = json.loads(data)
        except ValueError:
            self.refuse(400, "no JSON")
            return
        if self.path == "/tokenize":
            self.say(200, {"tokens": list(range(len(asked["content"].split())))})
        elif self.path == "/v1/chat/completions":
            self.chat(asked)
        else:
            self.refuse(404, "File Not Found", type="not_found_error")

    def chat(self, asked: Mapping[str, Any]) -> None:
        prompt = sum(len(text_of(message.get("content")).split()) for message in asked["messages"])
        if prompt >= self.given.context:
            self.refuse(
                400,
                "the request exceeds the available context size",
                type="exceed_context_size_error",
                n_prompt_tokens=prompt,
                n_ctx=self.given.context,
            )
            return
        if self.given.holds_after is not None and next(self.questions) >= self.given.holds_after:
            threading.Event().wait()
        pieces, finish = answer(asked, self.scripted)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": len(pieces),
            "total_tokens": prompt + len(pieces),
        }
        about = {"id": "chatcmpl-1", "created": 0, "model": self.given.model}
        if asked.get("stream"):
            self.stream(about, pieces, finish, usage if asked.get("stream_options") else None)
            return
        time.sleep(self.given.slow)
        if self.given.dies_after is not None:
            self.die()
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(pieces)}, "finish_reason": finish}
        self.say(200, {**about, "object": "chat.completion", "choices": [choice], "usage": usage})

    def stream(self, about: Mapping[str, Any], pieces: list[str], finish: str, usage: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(choices: Any, **more: Any) -> None:
            event = {**about, "object": "chat.completion.chunk", "choices": choices, **more}
            self.chunk(f"data: {json.dumps(event)}\n\n")

        send([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for number, piece in enumerate(pieces):
            if self.given.dies_after == number:
                self.die()
            time.sleep(self.given.slow)
            send([{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
        send([{"index": 0, "delta": {}, "finish_reason": finish}])
        if usage:
            send([], usage=usage)
        self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def die(self) -> None:
        """At once, but nobody is accepted any more by then: the kernel may close what is open in any order."""
        self.server.socket.shutdown(socket.SHUT_RDWR)
        os._exit(ENDED)

    def chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class _Tcp(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:  # without looking up our own name
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


class _Unix(_Tcp):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--socket")
    arguments.add_argument("--key")
    arguments.add_argument("--context", type=int, default=4096)
    arguments.add_argument("--model", default="standin")
    arguments.add_argument("--answers")
    arguments.add_argument("--slow", type=float, default=0.0)
    arguments.add_argument("--dies-after", type=int)
    arguments.add_argument("--holds-after", type=int)
    arguments.add_argument("--starts-in", type=float, default=0.0)
    arguments.add_argument("--parallel", type=int, default=1)
    return arguments


def serve(given: argparse.Namespace) -> None:
    Requests.given = given
    Requests.began = time.monotonic()
    Requests.scripted = json.loads(Path(given.answers).read_text(encoding="utf-8")) if given.answers else {}
    server: Any = _Unix(given.socket, Requests) if given.socket else _Tcp((given.host, given.port), Requests)
    url = "http://localhost/v1" if given.socket else f"http://{given.host}:{server.server_port}/v1"
    print(json.dumps({"base_url": url, "socket": given.socket}), flush=True)
    server.serve_forever()


@contextlib.contextmanager
def running(
    folder: Path, *, unix: bool = False, answers: Mapping[str, str] | None = None, **options: Any
) -> Iterator[Any]:
    """An Endpoint of a stand-in that runs; options as on its command line: `key="k", context=50, dies_after=2`."""
    from kuulo.llm.endpoint import Endpoint

    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__]
    if unix:
        options["socket"] = folder / "s"
    if answers is not None:
        options["answers"] = folder / "answers.json"
        options["answers"].write_text(json.dumps(answers), encoding="utf-8")
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    with (folder / "standin.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        yield Endpoint(
            base_url=said["base_url"],
            socket=Path(said["socket"]) if said["socket"] else None,
            key=options.get("key"),
            model=options.get("model", "standin"),
            engine="openai",
            context=options.get("context", 4096),
        )
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def program(folder: Path, name: str, **options: Any) -> Path:
    """An executable `name` in the folder that understands the flags of llama-server or vllm, and is a stand-in with
    these options. `says`: a text for its log; `fails`: the exit code with which it ends at once."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import llm_standin\nllm_standin.as_program({name!r}, {options!r})\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


FLAGS = {
    "llama-server": {"--host": "socket", "--alias": "model", "--ctx-size": "context", "--parallel": "parallel"},
    "vllm": {
        "--uds": "socket",
        "--served-model-name": "model",
        "--max-model-len": "context",
        "--max-num-seqs": "parallel",
    },
}
KEYS = {"llama-server": "LLAMA_API_KEY", "vllm": "VLLM_API_KEY"}


def as_program(name: str, options: dict[str, Any]) -> None:
    given = parser().parse_args([])
    print(options.pop("says", ""), file=sys.stderr, flush=True)
    if "fails" in options:
        sys.exit(options["fails"])
    words = sys.argv[1:]
    for flag, word in itertools.pairwise(words):
        if flag in FLAGS[name]:
            called = FLAGS[name][flag]
            setattr(given, called, int(word) if called in ("context", "parallel") else word)
    given.key = os.environ[KEYS[name]]
    for called, value in options.items():
        setattr(given, called, value)
    serve(given)


if __name__ == "__main__":
    serve(parser().parse_args())
