"""Asks an endpoint.

    with Client(endpoint) as client:
        reply = client.chat([{"role": "user", "content": "Hello?"}], {"max_tokens": 20})
        for delta in client.stream(messages, values):
            print(delta.text, end="")

What can go wrong is a KuuloError:

    KuuloError
    ├── CannotRun
    │   ├── KeyRefused        the endpoint wants another key (401, 403)
    │   └── ServerGone        it cannot be reached, ended in the middle, or says nothing any more
    └── InputFailed
        ├── PromptTooLong     question and answer do not fit into the context: `over` says by how much
        └── RequestRefused    it does not take the request; `status` is HTTP's

What people asked is in none of the messages. A client may be used from several threads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx2 as httpx

from kuulo.errors import CannotRun, InputFailed
from kuulo.llm.endpoint import Endpoint

Message = Mapping[str, Any]
"""`{"role": "system" | "user" | "assistant", "content": TEXT}`"""

CONNECT_S = 10.0
KEPT_S = 2.0
"""For how long a connection is kept that nobody uses: less than servers keep it (uvicorn: 5 s)."""

LONGEST_REASON = 300
"""Characters of a server's own message that are shown."""

MESSAGE_TOKENS = 8
"""What a chat template adds to a message, about; where the server cannot tell."""

TOO_LONG = r"maximum context length|exceed\w* (the )?(available )?context"
"""In the messages of servers whose error has no code for it."""

PER_TOKEN_BYTES = 3
"""Bytes of text in a token, at the least of usual text: an estimate that is rather too many tokens than too few."""


class KeyRefused(CannotRun):
    """The endpoint wants another key."""


class ServerGone(CannotRun):
    """The endpoint cannot be reached, or ended in the middle."""


class RequestRefused(InputFailed):
    """The endpoint does not take the request, or failed over it. `status` is HTTP's."""

    def __init__(self, what: str, *, status: int, looked_at: str | None = None, do: str | None = None) -> None:
        super().__init__(what, looked_at=looked_at, do=do)
        self.status = status


class PromptTooLong(InputFailed):
    """Question and answer do not fit into the context. `tokens`, `context`: how many there are, and there is room for,
    where that is known."""

    def __init__(self, tokens: int | None, context: int | None) -> None:
        self.tokens, self.context = tokens, context
        by = f" by {self.over} tokens" if self.over else ""
        known = [f"{tokens} tokens of text" if tokens else "", f"a context of {context} tokens" if context else ""]
        super().__init__(
            f"the text is longer than the model's context{by}",
            looked_at=", ".join(filter(None, known)) or None,
            do="split the text, ask for a shorter answer (--max-tokens), or take a larger --context",
        )

    @property
    def over(self) -> int | None:
        """Tokens too many."""
        if self.tokens is None or self.context is None:
            return None
        return max(1, self.tokens - self.context)


@dataclass(frozen=True)
class Usage:
    """Tokens of the prompt and of the answer."""

    prompt: int = 0
    answer: int = 0


@dataclass(frozen=True)
class Reply:
    """A whole answer. `finish`: why it ended: `stop`, or `length` where max_tokens or the context did."""

    text: str
    finish: str | None = None
    usage: Usage | None = None
    model: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Delta:
    """A piece of an answer. The last one has `finish`, and `usage` where the server counts."""

    text: str = ""
    finish: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Count:
    """Tokens; `exact` when the server counted them with its template, else an estimate that is rather too high."""

    tokens: int
    exact: bool


class Client:
    """A client of an endpoint. `timeout` in seconds: for how long an answer may stand still."""

    def __init__(self, endpoint: Endpoint, timeout: float = 600.0) -> None:
        self.endpoint = endpoint
        self._timeout = timeout
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        local = endpoint.socket is not None or "//127.0.0.1" in endpoint.base_url
        self._http = httpx.Client(
            base_url=endpoint.base_url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=CONNECT_S),
            transport=httpx.HTTPTransport(uds=str(endpoint.socket)) if endpoint.socket else None,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEPT_S),
            trust_env=not local,  # no proxy between us and ourselves
        )
        self._counts: bool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[str]:
        """The names of the models that it has."""
        return [str(one["id"]) for one in self.request("GET", "/models").get("data", ())]

    def chat(self, messages: Sequence[Message], values: Mapping[str, Any] | None = None) -> Reply:
        """The answer. `values`: options by name (llm/options.py); of those that are None, the server decides."""
        said = self.request("POST", "/chat/completions", body(self.endpoint, messages, values or {}))
        return reply_of(said)

    def stream(self, messages: Sequence[Message], values: Mapping[str, Any] | None = None) -> Iterator[Delta]:
        """The answer, as it comes. Closing the iterator ends it also at the server, where that notices."""
        asked = body(self.endpoint, messages, values or {}) | {
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        finished, heard = False, False
        try:
            with self._http.stream("POST", "chat/completions", json=asked) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._refusal(response)
                for data in _events(response.iter_lines()):
                    delta = self._delta(data)
                    finished, heard = finished or delta.finish is not None, heard or bool(delta.text)
                    if delta != Delta():
                        yield delta
        except httpx.TransportError as error:
            raise self._gone(error) from error
        if not finished:
            if not heard:  # llama-cpp-python's server says what is wrong only to who does not stream
                with Client(self.endpoint, self._timeout) as other:
                    other.chat(messages, {**(values or {}), "max_tokens": 1})
            raise self._gone(None)

    def count(self, text: str) -> int | None:
        """Tokens of a text, by the server; None where it cannot tell."""
        if self._counts is False:
            return None
        for path, asked in (
            ("/tokenize", {"content": text, "prompt": text, "model": self.endpoint.model}),
            ("/extras/tokenize/count", {"input": text, "model": self.endpoint.model}),
        ):
            try:
                said = self.request("POST", self.endpoint.root_url + path, asked)
            except RequestRefused:
                continue
            tokens = said.get("tokens", said.get("count"))
            if isinstance(tokens, (list, int)):
                self._counts = True
                return len(tokens) if isinstance(tokens, list) else tokens
        self._counts = False
        return None

    def count_chat(self, messages: Sequence[Message]) -> Count:
        """Tokens of a whole prompt."""
        try:
            said = self.request("POST", self.endpoint.root_url + "/apply-template", {"messages": list(messages)})
            tokens = self.count(said["prompt"]) if isinstance(said.get("prompt"), str) else None
        except RequestRefused:
            tokens = None
        if tokens is not None:
            return Count(tokens, exact=True)
        texts = [str(message.get("content", "")) for message in messages]
        counted = [self.count(text) for text in texts]
        several = [estimate(t) if n is None else n for t, n in zip(texts, counted, strict=True)]
        return Count(sum(several) + MESSAGE_TOKENS * (len(texts) + 1), exact=False)

    def request(self, method: str, path: str, asked: Any = None) -> dict[str, Any]:
        """The JSON that a path answers with. A path that begins with a slash is under /v1."""
        try:
            response = self._http.request(method, path.removeprefix("/"), json=asked)
        except httpx.TransportError as error:
            raise self._gone(error) from error
        if response.status_code != 200:
            raise self._refusal(response)
        try:
            said = response.json()
        except ValueError as error:
            raise RequestRefused(
                "the endpoint answers with something else than JSON", status=200, looked_at=self._called
            ) from error
        if not isinstance(said, dict):
            raise RequestRefused("the endpoint answers with JSON of another kind", status=200, looked_at=self._called)
        if isinstance(said.get("error"), dict):  # with 200 all the same
            raise refusal(500, said["error"], self._called, self.endpoint.context)
        return said

    @property
    def _called(self) -> str:
        return str(self.endpoint.socket or self.endpoint.base_url)

    def _delta(self, data: str) -> Delta:
        try:
            chunk = json.loads(data)
            if isinstance(chunk.get("error"), dict):
                raise refusal(
                    int(chunk["error"].get("code") or 500), chunk["error"], self._called, self.endpoint.context
                )
            choice = (chunk.get("choices") or [{}])[0]
            text = (choice.get("delta") or {}).get("content") or ""
            return Delta(str(text), choice.get("finish_reason"), _usage(chunk.get("usage")))
        except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
            raise RequestRefused(
                "the endpoint streams what is not OpenAI's format", status=200, looked_at=self._called
            ) from error

    def _refusal(self, response: httpx.Response) -> Exception:
        try:
            said = response.json()
        except ValueError:
            said = {}
        told = said.get("error", said) if isinstance(said, dict) else {}
        return refusal(response.status_code, told, self._called, self.endpoint.context)

    def _gone(self, error: Exception | None) -> ServerGone:
        if isinstance(error, httpx.ConnectError):
            return ServerGone("nothing answers at the endpoint", looked_at=self._called, do="is its server running?")
        if isinstance(error, httpx.TimeoutException):
            return ServerGone(
                "the server says nothing any more", looked_at=self._called, do="ask for less, or a longer --timeout"
            )
        return ServerGone("the server ended in the middle of its answer", looked_at=self._called)


def body(endpoint: Endpoint, messages: Sequence[Message], values: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent: OpenAI's names. A `system` goes before the messages, where they have none."""
    all_messages = [dict(message) for message in messages]
    if values.get("system") and not (all_messages and all_messages[0].get("role") == "system"):
        all_messages.insert(0, {"role": "system", "content": values["system"]})
    asked: dict[str, Any] = {"model": endpoint.model, "messages": all_messages}
    for name in ("temperature", "top_p", "max_tokens", "seed"):
        if values.get(name) is not None:
            asked[name] = values[name]
    if values.get("stop"):
        asked["stop"] = list(values["stop"])
    if values.get("schema") is not None:
        asked["response_format"] = response_format(values["schema"], endpoint.schema_as)
    return asked


def response_format(schema: Any, schema_as: str) -> dict[str, Any]:
    """How the endpoint is told a schema: a dict, or what people give (`--schema`)."""
    if not isinstance(schema, Mapping):
        from kuulo.llm import schema as schemas

        schema = schemas.read(str(schema))
    if schema_as == "json_object":
        return {"type": "json_object", "schema": dict(schema)}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": True}}


def reply_of(said: Mapping[str, Any]) -> Reply:
    """A chat completion of OpenAI's as a Reply; raises RequestRefused."""
    try:
        choice = said["choices"][0]
        text = choice["message"].get("content") or ""
        return Reply(
            str(text), choice.get("finish_reason"), _usage(said.get("usage")), str(said.get("model", "")), said
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RequestRefused("the endpoint answers with what is not OpenAI's format", status=200) from error


def refusal(status: int, told: Any, where: str, context: int | None = None) -> KeyRefused | InputFailed | ServerGone:
    """What a status and the server's own words mean. `told`: OpenAI's `error`, or FastAPI's `detail`."""
    reason = " ".join(_reason(told).split())[:LONGEST_REASON]
    if status in (401, 403):
        return KeyRefused(
            f"the endpoint refuses the key ({status})",
            looked_at=where,
            do="give its key with --key-file or the variable KUULO_LLM_KEY",
        )
    too_long = _too_long(told, reason, context)
    if too_long:
        return too_long
    if status == 503:
        return ServerGone(f"the server is not ready: {reason or 503}", looked_at=where)
    return RequestRefused(f"the endpoint refuses the request ({status}): {reason}", status=status, looked_at=where)


def estimate(text: str) -> int:
    """About how many tokens a text has, rather too many than too few."""
    return -(-len(text.encode("utf-8", "replace")) // PER_TOKEN_BYTES)


def _reason(told: Any) -> str:
    if isinstance(told, str):
        return told
    if not isinstance(told, Mapping):
        return ""
    if isinstance(told.get("message"), str):
        return str(told["message"])
    detail = told.get("detail")
    if isinstance(detail, list):  # FastAPI's also has the input: people's words
        parts = [one for one in detail if isinstance(one, Mapping)]
        return "; ".join(f"{'.'.join(str(p) for p in one.get('loc', ()))}: {one.get('msg', '')}" for one in parts)
    return detail if isinstance(detail, str) else ""


def _too_long(told: Any, reason: str, context: int | None) -> PromptTooLong | None:
    """llama-server says its numbers in fields, OpenAI, vLLM and llama-cpp-python in a sentence."""
    fields = told if isinstance(told, Mapping) else {}
    kind = f"{fields.get('type')} {fields.get('code')}"
    if _int(fields.get("n_prompt_tokens")) is not None or "exceed_context_size" in kind:
        return PromptTooLong(_int(fields.get("n_prompt_tokens")), _int(fields.get("n_ctx")) or context)
    if "context_length_exceeded" in kind or re.search(TOO_LONG, reason):
        limit = re.search(r"context (?:length|window|size)\D{0,12}(\d+)", reason)
        asked = re.search(r"(?:requested|has|contains|tokens \()\s*(\d+)", reason)
        return PromptTooLong(_int(asked and asked[1]), _int(limit and limit[1]) or context)
    return None


def _int(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _usage(said: Any) -> Usage | None:
    if not isinstance(said, Mapping):
        return None
    return Usage(_int(said.get("prompt_tokens")) or 0, _int(said.get("completion_tokens")) or 0)


def _events(lines: Iterator[str]) -> Iterator[str]:
    """The data of server-sent events, up to OpenAI's [DONE]."""
    for line in lines:
        if line.startswith("data:"):
            data = line[5:].strip()
            if data == "[DONE]":
                return
            if data:
                yield data
        elif line.startswith("error:"):  # llama-server's older way
            yield json.dumps({"error": _loads(line[6:])})


def _loads(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = {"message": text.strip()}
    return value.get("error", value) if isinstance(value, dict) else {"message": str(value)}
