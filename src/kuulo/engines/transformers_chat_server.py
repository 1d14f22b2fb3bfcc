"""The server of transformers-chat: OpenAI's API over the standard library, one question at a time.

    python -m kuulo.engines.transformers_chat_server CONFIG.json

Runs in the engine's environment. No code of the model's folder is run, and nothing of what is asked is written
anywhere. Standard library alone at its top; parses on Python 3.9.
"""

from __future__ import annotations

import hmac
import http.server
import json
import os
import socketserver
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

LARGEST_BODY = 64_000_000
"""Bytes of a request."""

KNOWN = frozenset(
    {"model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "stream",
     "stream_options", "n", "user"}
)  # fmt: skip


class Refused(Exception):
    """A request that cannot be: HTTP's status, and OpenAI's error."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "invalid_request_error", **more}


class Text:
    """A loaded model and its tokenizer."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.name = str(config["model"])
        self.context = int(config["context"])
        torch.set_num_threads(int(config["threads"]))
        cuda = config["device"] == "cuda" or (config["device"] == "auto" and torch.cuda.is_available())
        self.device = "cuda" if cuda else "cpu"
        path = str(config["model_path"])
        given = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(path, **given)
        model = AutoModelForCausalLM.from_pretrained(
            path, use_safetensors=True, dtype="auto" if cuda else torch.float32, **given
        )
        self.model = model.to(self.device).eval()
        self.lock = threading.Lock()

    def tokens(self, messages: List[Dict[str, Any]]) -> List[int]:
        """The prompt, by the tokenizer's template where there is one, else the texts under each other."""
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer("\n".join(str(m["content"]) for m in messages) + "\n")["input_ids"])

    def answer(self, prompt: List[int], asked: Mapping[str, Any]) -> Iterator[Tuple[str, Optional[str], int]]:
        """Pieces of the answer: text, why it ended (in the last), tokens so far."""
        from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

        ended = threading.Event()
        count = [0]

        class Watching(StoppingCriteria):  # type: ignore[misc]
            """Counts tokens, and ends when the client is gone or a stop text was found."""

            def __call__(self, ids: Any, scores: Any, **more: Any) -> bool:
                count[0] = int(ids.shape[1]) - len(prompt)
                return ended.is_set()

        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        room = self.context - len(prompt)
        most = min(asked["max_tokens"] or room, room)
        hot = asked["temperature"] > 0
        options: Dict[str, Any] = {"do_sample": hot, "max_new_tokens": most}
        if hot:
            options.update(temperature=asked["temperature"], top_k=0)
            if asked["top_p"] is not None:
                options["top_p"] = asked["top_p"]
        ids = self.torch.tensor([prompt], device=self.device)
        failed: List[BaseException] = []

        def work() -> None:
            try:
                self.torch.manual_seed(asked["seed"])
                with self.torch.inference_mode():
                    self.model.generate(
                        input_ids=ids,
                        attention_mask=self.torch.ones_like(ids),
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([Watching()]),
                        **options,
                    )
            except BaseException as error:
                failed.append(error)
                streamer.end()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            found = False
            for piece, found in until(streamer, asked["stop"]):
                if piece:
                    yield piece, None, count[0]
                if found:
                    break
            ended.set()
            thread.join()
            if failed:
                raise failed[0]
            full = not found and count[0] >= most
            yield "", "length" if full else "stop", count[0]
        finally:
            ended.set()
            thread.join()


def until(pieces: Iterator[str], stops: List[str]) -> Iterator[Tuple[str, bool]]:
    """The text before the first of the stop texts, as soon as it is sure, and whether one was found."""
    held = ""
    for piece in pieces:
        held += piece
        places = [held.find(stop) for stop in stops if stop in held]
        if places:
            yield held[: min(places)], True
            return
        keep = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        sure, held = (held[:-keep], held[-keep:]) if keep else (held, "")
        yield sure, False
    yield held, False


def wanted(asked: Mapping[str, Any]) -> Dict[str, Any]:
    """What a request wants, checked; raises Refused."""
    unknown = sorted(k for k, v in asked.items() if k not in KNOWN and v is not None)
    if unknown:
        raise Refused(400, "transformers-chat cannot honour " + ", ".join(unknown))
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise Refused(400, "messages must be a list that is not empty")
    if asked.get("n") not in (None, 1):
        raise Refused(400, "n must be 1")
    stop = asked.get("stop") or []
    most = asked.get("max_tokens", asked.get("max_completion_tokens"))
    try:
        return {
            "messages": [{"role": str(m["role"]), "content": content(m.get("content"))} for m in messages],
            "temperature": float(1.0 if asked.get("temperature") is None else asked["temperature"]),
            "top_p": None if asked.get("top_p") is None else float(asked["top_p"]),
            "max_tokens": None if most is None else max(1, int(most)),
            "seed": int(asked.get("seed") or 0) & (2**63 - 1),
            "stop": [s for s in ([stop] if isinstance(stop, str) else [str(s) for s in stop]) if s],
            "stream": bool(asked.get("stream")),
            "usage": bool((asked.get("stream_options") or {}).get("include_usage")),
        }
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Refused(400, "a value of the request is of the wrong kind") from error


def content(value: Any) -> str:
    if isinstance(value, list):  # of parts; text alone is known
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in value):
            raise Refused(400, "a message may have text alone")
        return "".join(str(part.get("text", "")) for part in value)
    return "" if value is None else str(value)


class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    text: Text
    key = ""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""

    def address_string(self) -> str:
        return "client"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, how: Any) -> None:
        try:
            given = self.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, f"Bearer {self.key}".encode()):
                self.close_connection = True
                raise Refused(401, "Invalid API Key", code="invalid_api_key")
            how()
        except Refused as error:
            self._say(error.status, {"error": error.error})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _get(self) -> None:
        if self.path != "/v1/models":
            raise Refused(404, "not found")
        self._say(200, {"object": "list", "data": [{"id": self.text.name, "object": "model", "owned_by": "local"}]})

    def _post(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            raise Refused(411, "the length is missing")
        if int(length) > LARGEST_BODY:
            self.close_connection = True
            raise Refused(413, "the request is too large")
        data = self.rfile.read(int(length))
        try:
            asked = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the request is not JSON") from error
        if not isinstance(asked, dict):
            raise Refused(400, "the request is JSON of another kind")
        if self.path == "/tokenize":
            tokens = self.text.tokenizer(str(asked.get("content", "")), add_special_tokens=False)["input_ids"]
            self._say(200, {"tokens": list(tokens)})
        elif self.path == "/apply-template":
            self._say(200, {"prompt": self._prompt(wanted({"messages": asked.get("messages")})["messages"])})
        elif self.path == "/v1/chat/completions":
            with self.text.lock:
                self._chat(wanted(asked))
        else:
            raise Refused(404, "not found")

    def _prompt(self, messages: List[Dict[str, Any]]) -> str:
        return str(self.text.tokenizer.decode(self._tokens(messages)))

    def _tokens(self, messages: List[Dict[str, Any]]) -> List[int]:
        try:
            return self.text.tokens(messages)
        except Exception as error:  # a template refuses, as roles that do not take turns
            raise Refused(400, f"the model's chat template refuses the messages ({type(error).__name__})") from error

    def _chat(self, asked: Mapping[str, Any]) -> None:
        prompt = self._tokens(asked["messages"])
        room = self.text.context - len(prompt)
        if room < 1:
            raise Refused(
                400,
                f"This model's maximum context length is {self.text.context} tokens",
                code="context_length_exceeded",
                n_prompt_tokens=len(prompt),
                n_ctx=self.text.context,
            )
        about = {"id": f"chatcmpl-{time.time_ns()}", "created": int(time.time()), "model": self.text.name}
        pieces = self.text.answer(prompt, asked)
        if asked["stream"]:
            self._stream(about, pieces, len(prompt), asked["usage"])
            return
        words: List[str] = []
        finish, count = "stop", 0
        for text, ended, tokens in pieces:
            words.append(text)
            finish, count = ended or finish, tokens
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        usage = _usage(len(prompt), count)
        self._say(200, {**about, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _stream(self, about: Mapping[str, Any], pieces: Any, prompt: int, with_usage: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        count = 0
        try:
            for text, finish, tokens in pieces:
                count = tokens
                choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
                self._event({**about, "object": "chat.completion.chunk", "choices": [choice]})
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            self._event({"error": {"message": f"{type(error).__name__} in the model", "code": 500}})
        finally:
            pieces.close()
        if with_usage:
            usage = _usage(prompt, count)
            self._event({**about, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, value: Any) -> None:
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _say(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)


def _usage(prompt: int, answer: int) -> Dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> int:
    config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Requests.key = config["key"]
    Requests.text = Text(config)
    os.umask(0o077)
    with Server(config["socket"], Requests) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
