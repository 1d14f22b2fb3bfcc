"""A plan's model, to talk to: its server started if need be, and ended with the block.

with session.opened(plan) as talk:
    reply = talk.ask(messages)
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kuulo.errors import CannotRun, UsageError
from kuulo.llm import options as table
from kuulo.llm import provenance, server
from kuulo.llm.client import Client, Delta, PromptTooLong, Reply, Usage
from kuulo.llm.plan import ChatPlan
from kuulo.options import parse

SPLIT = "ask about its parts with --split, take a larger --context, or ask for a shorter answer (--max-tokens)"

NOT_NOTED = ("schema", "kuulo", "task", "template", "usage", "finish", "key")
"""Of what an answer was made with: what records have in a place of their own."""


class _Shared:
    """What all branches of a Talk know: tokens so far, and how many the context has, once the server said so."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.context: int | None = None
        self._lock = threading.Lock()

    def add(self, usage: Usage) -> None:
        with self._lock:
            self.usage = Usage(self.usage.prompt + usage.prompt, self.usage.answer + usage.answer)


class Talk:
    """Asks an endpoint with a plan's options, and counts tokens. It is what `asking.Asker` wants of a model."""

    def __init__(self, client: Client, plan: ChatPlan) -> None:
        self.client, self.plan = client, plan
        self.finish: str | None = None
        self.values = plan.request_options()
        self._shared = _Shared()

    def branch(self) -> Talk:
        """Another one, for another thread: with the options as they are now. Tokens of both are counted together."""
        other = Talk(self.client, self.plan)
        other.values, other._shared = dict(self.values), self._shared
        return other

    @property
    def usage(self) -> Usage:
        return self._shared.usage

    @property
    def context(self) -> int | None:
        """Tokens of question and answer; None until anybody said how many there may be."""
        return self.client.endpoint.context or self.plan.context or self._shared.context

    def ask(self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None = None) -> Reply:
        """The whole answer."""
        try:
            reply = self.client.chat(_sound(messages), self._with(schema))
        except PromptTooLong as error:  # it says how much would have fitted
            self._shared.context = error.context
            raise
        self._took(reply.usage, reply.finish)
        return reply

    def stream(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[Delta]:
        """The answer as it comes."""
        for delta in self.client.stream(_sound(messages), self.values):
            self._took(delta.usage, delta.finish)
            yield delta

    def talk(self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None) -> str:
        """The answer's text, to this schema or to none. An engine that cannot be told a schema answers as it likes: who
        asks for one checks the answer anyhow."""
        return self.ask(messages, schema if "schema" in self.plan.spec.options else None).text

    def count(self, text: str) -> int | None:
        return self.client.count(text.encode("utf-8", "replace").decode())

    def tell(self, options: Mapping[str, Any]) -> None:
        """From now on, have answers made with a template's options, where nobody decided them. Raises UsageError for
        one that is not known or is the server's."""
        self.values = self.plan.request_options()
        for key, value in options.items():
            option = table.BY_NAME.get(key)
            if option is None or not option.request:
                known = ", ".join(o.name for o in table.OPTIONS if o.request)
                raise UsageError(f"a template's options cannot have {key!r} here", do=f"known: {known}")
            if key not in self.plan.given:
                self.values[key] = parse(option, value)

    def check_fits(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Raises PromptTooLong when it is sure that a question does not fit into the context."""
        if self.context is None:
            return
        told = [*messages]
        if self.values.get("system") and not (told and told[0]["role"] == "system"):
            told.insert(0, {"role": "system", "content": self.values["system"]})
        counted = self.client.count_chat(_sound(told))
        if counted.exact and counted.tokens >= self.context:
            raise PromptTooLong(counted.tokens, self.context)

    def note(self) -> dict[str, Any]:
        """How answers are made, for records: what is the same for all of them."""
        told = provenance.of(self.plan, self.client.endpoint)
        return {name: value for name, value in told.items() if name not in NOT_NOTED and value is not None}

    @property
    def identity(self) -> str:
        """Digest of all that decides an answer, beside the question. Where a server listens is not in it: the same
        model may be served elsewhere tomorrow."""
        return provenance.digest(self.note())

    def _with(self, schema: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**self.values, "schema": schema}

    def _took(self, usage: Usage | None, finish: str | None) -> None:
        if usage:
            self._shared.add(usage)
        self.finish = finish or self.finish


def _sound(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with ? for bytes of a name or a half character that UTF-8 cannot hold."""
    return [{**one, "content": str(one["content"]).encode("utf-8", "replace").decode()} for one in messages]


@contextmanager
def opened(plan: ChatPlan) -> Iterator[Talk]:
    """The model of a plan, which answers. Raises CannotRun."""
    try:
        scratch = Path(tempfile.mkdtemp(prefix="kuulo-", dir=plan.options["scratch"]))
    except OSError as error:
        raise CannotRun(f"no scratch folder can be made: {error}", do="name another with --scratch") from error
    try:
        with (
            server.running(plan, scratch) as endpoint,
            Client(endpoint, timeout=float(plan.options["timeout"])) as client,
        ):
            yield Talk(client, plan)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
