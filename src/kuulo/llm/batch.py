"""Many questions to one model: OpenAI's batch format in and out.

    in    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}
    out   {"id": ..., "custom_id": "a", "response": {"status_code": 200, "body": {...}, ...}, "error": null}

Many are under way at a time, so that a server can batch them. Every answer goes to a journal, OUT.partial, as soon as
it is there; a run that was stopped goes on from it, and asks nothing that was answered. At the end OUT holds a line
for each line that came in, in their order, also for those that could not be asked. The tasks of a job have a journal
each, in OUT.parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo import naming
from kuulo.errors import CannotRun, InputFailed, KuuloError, UsageError
from kuulo.llm import client, question, together, transcripts
from kuulo.llm.client import Client, PromptTooLong, RequestRefused
from kuulo.llm.plan import ChatPlan
from kuulo.llm.session import Talk
from kuulo.llm.templates import Template

URL = "/v1/chat/completions"
INVALID = "invalid_request"
TOO_MANY, TRIES, PAUSE_S = (429, 503), 6, 0.5
"""Statuses with which a server asks for patience, how often it gets it, and how long at first."""

AT_ONCE = 16
"""Questions at a time where nobody says how many."""

TEXTS = (".json", ".md", ".srt", ".text", ".txt", ".vtt")
"""Files of a folder that are asked about."""

LONGEST_LINE = 64 << 20


@dataclass(frozen=True)
class Request:
    """One question. `why` says what is wrong with one that cannot be asked; it has no body then."""

    line: int
    custom_id: str | None
    body: Mapping[str, Any] | None = None
    why: str = ""

    def digest(self, key: str) -> str:
        """Identifies the question under a plan's key."""
        return hashlib.sha256(json.dumps([key, self.custom_id, self.body], sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------ what comes in


def read(path: Path) -> list[Request]:
    """The requests of a JSONL file, those that cannot be asked among them. Raises UsageError when it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the prompts cannot be read: {error.strerror or error}", looked_at=naming.shown(path)
        ) from error
    rows = [(number, row) for number, row in enumerate(content.split(b"\n"), start=1) if row.strip()]
    if not rows:
        raise UsageError("there are no prompts in the file", looked_at=naming.shown(path))
    return _once(request(number, row) for number, row in rows)


def request(number: int, row: bytes) -> Request:
    """What a line asks for, or why it cannot be asked."""
    if len(row) > LONGEST_LINE:
        return Request(number, None, why=f"the line is longer than {LONGEST_LINE >> 20} MB")
    try:
        said = json.loads(row.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Request(number, None, why="the line is not JSON")
    if not isinstance(said, dict):
        return Request(number, None, why="the line is JSON of another kind than an object")
    custom_id = said.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        return Request(number, None, why="it has no custom_id, which is a text")
    for name, wanted in (("method", "POST"), ("url", URL)):
        if said.get(name, wanted) != wanted:
            return Request(number, custom_id, why=f"its {name} is another than {wanted}")
    body = said.get("body")
    if not isinstance(body, dict):
        return Request(number, custom_id, why="it has no body, which is an object")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and "role" in m for m in messages):
        return Request(number, custom_id, why="its body has no messages")
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # half of a surrogate pair, NaN: JSON of Python's alone
        return Request(number, custom_id, why="its body has a number or a character that JSON cannot hold")
    if body.get("stream"):
        return Request(number, custom_id, why="it wants a stream, which a batch cannot give")
    return Request(number, custom_id, body)


def of_folder(folder: Path, template: Template, variables: Mapping[str, str]) -> tuple[list[Request], list[str]]:
    """A request about each text and transcript of a folder, and the names of the files that are neither. Raises
    UsageError when there is nothing to ask about, and for a variable that is missing."""
    template.checked(variables)
    found: list[Request] = []
    left: list[str] = []
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if any(part.startswith(".") for part in below.parts) or not path.is_file():
            continue
        name = naming.shown(below.as_posix())
        if path.suffix.lower() not in TEXTS or (path.suffix.lower() == ".json" and not transcripts.is_transcript(path)):
            left.append(name)
            continue
        number = len(found) + 1
        try:
            asked = question.Question(template, "", (question.source(path),), variables)
            found.append(Request(number, name, {"messages": asked.messages()}))
        except KuuloError as error:
            found.append(Request(number, name, why=error.what))
    if not found:
        raise UsageError(
            "there is nothing to ask about in the folder",
            looked_at=naming.shown(folder),
            do=f"it may hold transcripts and texts: {', '.join(TEXTS)}",
        )
    return _once(found), left


def _once(requests: Iterable[Request]) -> list[Request]:
    """The requests; the second one of a custom_id cannot be asked, since nobody could tell their answers apart."""
    seen: dict[str, int] = {}
    found = []
    for one in requests:
        if one.custom_id in seen and one.custom_id is not None:
            one = Request(one.line, one.custom_id, why=f"line {seen[one.custom_id]} has the same custom_id")
        elif one.custom_id is not None:
            seen[one.custom_id] = one.line
        found.append(one)
    return found


def part(requests: Sequence[Request], target: Path, text: str) -> tuple[list[Request], Path]:
    """Of all requests those of the part `I/N`, and the file of that part's answers: answers.03-of-16.jsonl. The files
    of all parts one after the other, in the order of their names, are the answers to all. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise UsageError(f"--part {text}: it is I/N, with I from 1 to N", do="--part 3/16")
    stem = target.name.removesuffix(".jsonl")
    name = f"{stem}.{number:0{len(str(of))}d}-of-{of}.jsonl"
    begin, end = (len(requests) * at // of for at in (number - 1, number))
    return list(requests[begin:end]), target.with_name(name)


def settled(requests: Sequence[Request], defaults: Mapping[str, Any], model: str, any_model: bool) -> list[Request]:
    """The requests as they are sent: with the model that is asked, and defaults for what they do not say. One that
    wants another model cannot be asked, unless `any_model`."""
    sent = {name: value for name, value in defaults.items() if name != "system"}
    found = []
    for one in requests:
        if one.body is not None:
            body = {**sent, **one.body}
            wanted = one.body.get("model", model)
            if wanted != model and not any_model:
                one = Request(one.line, one.custom_id, why=f"it asks for the model {wanted!r}, and this one is {model}")
            else:
                messages = _with_system(body["messages"], defaults.get("system"))
                one = Request(one.line, one.custom_id, {**body, "messages": messages, "model": model})
        found.append(one)
    return found


def digest(requests: Sequence[Request]) -> str:
    """Identifies what came in, whoever is asked."""
    return whole_key(requests, "")


def at_once(plan: ChatPlan, concurrency: int | None) -> int:
    """Questions at a time: as many as somebody said, else as the plan's server has slots."""
    return concurrency or (int(plan.options["parallel"]) if plan.starts_server else AT_ONCE)


def defaults(talk: Talk) -> dict[str, Any]:
    """What counts where a request does not say it itself: fields of its body, and `system`, the system text."""
    asked = client.body(talk.client.endpoint, [], {**talk.values, "system": None})
    sent = {name: value for name, value in asked.items() if name not in ("model", "messages")}
    return sent | ({"system": talk.values["system"]} if talk.values.get("system") else {})


def _with_system(messages: Sequence[Mapping[str, Any]], system: str | None) -> list[Mapping[str, Any]]:
    """The messages, with the system text before them where they have none."""
    has_one = any(message["role"] in ("system", "developer") for message in messages)
    return [{"role": "system", "content": system}, *messages] if system and not has_one else [*messages]


# ------------------------------------------------------------------ what is kept


def journals(target: Path) -> list[Path]:
    """The journals of this OUT that are there: of a run, and of a job's tasks."""
    own = target.with_name(target.name + ".partial")
    return [path for path in (own, *sorted(parts(target).glob("*.partial"))) if path.exists()]


def parts(target: Path) -> Path:
    """The folder of the journals of a job's tasks."""
    return target.with_name(target.name + ".parts")


def kept(target: Path, wanted: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """What was answered for this OUT, by the digest of what was asked; of the `wanted` digests alone, where there are
    some. A line that may be asked again counts less than one that is final."""
    found: dict[str, dict[str, Any]] = {}
    for path in journals(target):
        for asked, line in Journal(path).read().items():
            if (wanted is None or asked in wanted) and (asked not in found or is_final(line)):
                found[asked] = line
    return found


def forget(target: Path) -> None:
    """Remove the journals of this OUT. Raises OSError."""
    for path in journals(target):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody put something else there
        parts(target).rmdir()


class Journal:
    """The answers so far, a JSON line for each, readable by their owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None

    def read(self) -> dict[str, dict[str, Any]]:
        """Lines for OUT by the digest of what was asked. A last line that was cut short is dropped."""
        try:
            rows = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return {}
        found = {}
        for row in rows:
            try:
                kept = json.loads(row)
                found[str(kept["asked"])] = dict(kept["line"])
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def open(self) -> None:
        """For adding. Raises OSError."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # a kill in the middle of a line
                self._file.write(b"\n")

    def add(self, asked: str, line: Mapping[str, Any]) -> None:
        """Keep an answer; it is with the operating system when this returns."""
        self._file.write(json.dumps({"asked": asked, "line": line}).encode("ascii") + b"\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def is_final(line: Mapping[str, Any]) -> bool:
    """Whether asking again would give the same: an answer, or a refusal that is the question's fault."""
    response = line.get("response")
    return (
        isinstance(response, Mapping)
        and response.get("status_code", 500) < 500
        and response["status_code"] not in TOO_MANY
    )


def answered(line: Mapping[str, Any]) -> bool:
    """Whether a line of OUT has an answer."""
    response = line.get("response")
    return isinstance(response, Mapping) and response.get("status_code") == 200


# ------------------------------------------------------------------ asking


@dataclass
class Batch:
    """Requests that are asked over a client, `at_once` of them at a time."""

    requests: Sequence[Request]
    key: str
    client: Client
    at_once: int
    kept: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lines: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    was_kept: int = 0

    def go(
        self, journal: Journal, watch: Callable[[int, int], None] = lambda done, of: None
    ) -> list[Mapping[str, Any]]:
        """Ask what is left; the lines of OUT in order. `watch(done, of)` is told of each. Raises CannotRun when the
        server cannot be asked any more; what was answered is in the journal then."""
        todo: list[tuple[int, Request, str]] = []
        for index, one in enumerate(self.requests):
            digest = one.digest(self.key)
            if one.body is None:
                self.lines[index] = unasked(one)
            elif digest in self.kept and is_final(self.kept[digest]):
                self.lines[index] = self.kept[digest]
                self.was_kept += 1
            else:
                todo.append((index, one, digest))
        watch(len(self.lines), len(self.requests))

        def ask(one: tuple[int, Request, str], stop: threading.Event) -> Mapping[str, Any]:
            return self._ask(one[1], one[2], stop)

        for (index, _, digest), line in together.answers(todo, ask, self.at_once):
            journal.add(digest, line)
            self.lines[index] = line
            watch(len(self.lines), len(self.requests))
        return [self.lines[index] for index in range(len(self.requests))]

    def _ask(self, one: Request, digest: str, stop: threading.Event) -> Mapping[str, Any]:
        for attempt in range(TRIES):
            try:
                body = self.client.request("POST", "/chat/completions", one.body)
                return _line(one, digest, _response(200, digest, body), None)
            except PromptTooLong as error:
                return _line(one, digest, _refused(400, digest, error, "context_length_exceeded"), None)
            except RequestRefused as error:
                if error.status not in TOO_MANY or attempt == TRIES - 1 or stop.is_set():
                    return _line(one, digest, _refused(error.status, digest, error, None), None)
                stop.wait(PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")


def unasked(one: Request) -> dict[str, Any]:
    """The line of OUT for a request that cannot be asked."""
    return _line(one, one.digest(""), None, {"code": INVALID, "message": one.why})


def _line(one: Request, digest: str, response: Any, error: Any) -> dict[str, Any]:
    return {"id": f"batch_req_{digest[:24]}", "custom_id": one.custom_id, "response": response, "error": error} | (
        {"line": one.line} if one.custom_id is None else {}
    )


def _response(status: int, digest: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": f"req_{digest[24:48]}", "body": dict(body)}


def _refused(status: int, digest: str, error: InputFailed, code: str | None) -> dict[str, Any]:
    told = {
        "message": str(error.what),
        "type": "invalid_request_error" if status < 500 else "server_error",
        "code": code,
    }
    return _response(status if status >= 400 else 502, digest, {"error": told})


# ------------------------------------------------------------------ what comes out


def encoded(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """OUT's bytes."""
    return b"".join(json.dumps(line, ensure_ascii=True).encode("ascii") + b"\n" for line in lines)


@dataclass
class Ledger:
    """What a batch came to, for OUT's report."""

    requests: int = 0
    answered: int = 0
    refused: int = 0
    bad: int = 0
    kept: int = 0
    cut: int = 0
    """Answers that ended since max_tokens or the context was reached."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    bad_lines: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, requests: Sequence[Request], lines: Sequence[Mapping[str, Any]], kept: int) -> Ledger:
        ledger = cls(requests=len(lines), kept=kept)
        for one, line in zip(requests, lines, strict=True):
            if line["error"] is not None:
                ledger.bad += 1
                ledger.bad_lines.append({"line": one.line, "custom_id": one.custom_id, "why": one.why})
            elif not answered(line):
                ledger.refused += 1
            else:
                ledger.answered += 1
                body = line["response"]["body"]
                usage = body.get("usage") or {}
                ledger.prompt_tokens += int(usage.get("prompt_tokens") or 0)
                ledger.completion_tokens += int(usage.get("completion_tokens") or 0)
                ledger.cut += any(c.get("finish_reason") == "length" for c in body.get("choices") or ())
        return ledger

    @property
    def failed(self) -> int:
        return self.bad + self.refused


def whole_key(requests: Sequence[Request], key: str) -> str:
    """Identifies a batch: its questions, in order, under a plan's key."""
    return hashlib.sha256("".join(one.digest(key) + (one.why or "") for one in requests).encode()).hexdigest()


def report_path(target: Path) -> Path:
    """Where the report of this OUT is."""
    return target.with_name(f"{target.name.removesuffix('.jsonl')}.report.json")


def report(
    ledger: Ledger,
    target: Path,
    content: bytes,
    *,
    key: str,
    elapsed_s: float,
    concurrency: int,
    note: Mapping[str, Any],
    template: Template | None,
) -> dict[str, Any]:
    """OUT's report. `key`: the batch's; `note`: how the answers were made."""
    counts = {k: v for k, v in vars(ledger).items() if k not in ("bad_lines", "prompt_tokens", "completion_tokens")}
    return {
        "schema": 1,
        "key": key,
        "output": {"name": naming.shown(target.name), "sha256": hashlib.sha256(content).hexdigest()},
        "counts": counts,
        "usage": {"prompt_tokens": ledger.prompt_tokens, "completion_tokens": ledger.completion_tokens},
        "elapsed_ms": round(elapsed_s * 1000),
        "concurrency": concurrency,
        "bad_lines": ledger.bad_lines,
        "provenance": {
            **note,
            **({"template": {"name": template.name, "sha256": template.digest}} if template else {}),
        },
    }


def report_of(target: Path) -> dict[str, Any]:
    """The report of the batch that wrote this OUT; empty when there is none."""
    try:
        said = json.loads(report_path(target).read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) and isinstance(said.get("counts"), dict) else {}


def is_whole(target: Path, said: Mapping[str, Any]) -> bool:
    """Whether OUT is what its report says, and was not changed since."""
    try:
        return bool(hashlib.sha256(target.read_bytes()).hexdigest() == said["output"]["sha256"])
    except (OSError, KeyError, TypeError):
        return False


def in_the_way(path: Path) -> UsageError:
    """For an OUT that is there and is of something else."""
    return UsageError(
        "a file is in the way that is not of this batch",
        looked_at=naming.shown(path),
        do="name another with -o, or give --overwrite",
    )


def unwritable(path: Path, error: OSError) -> CannotRun:
    return CannotRun(f"it cannot be written: {error.strerror or error}", looked_at=naming.shown(path))
