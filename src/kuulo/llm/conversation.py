"""A conversation with a model, which is kept only when somebody wants that: in a file that is its owner's alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kuulo
from kuulo import atomic, naming
from kuulo.errors import CannotRun, UsageError
from kuulo.llm import question

SCHEMA = 1
ROLES = ("system", "user", "assistant")


@dataclass
class Conversation:
    """`messages` are OpenAI's. `waiting`: texts that go before the next question. With `path`, each answer is kept
    there as soon as it is whole."""

    path: Path | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    made_by: Mapping[str, Any] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    def show(self, path: Path) -> None:
        """Give the model a file before the next question. Raises UsageError."""
        self.waiting.append(question.source(path).shown)

    def with_question(self, text: str) -> list[dict[str, str]]:
        """What the model is told to answer a question."""
        return [*self.messages, {"role": "user", "content": self._whole(text)}]

    def add(self, text: str, answer: str) -> None:
        """A question was answered. Raises CannotRun when it is to be kept and cannot be."""
        self.messages += [{"role": "user", "content": self._whole(text)}, {"role": "assistant", "content": answer}]
        self.waiting = []
        self._write()

    def reset(self) -> None:
        """Forget what was said."""
        self.messages, self.waiting = [], []
        self._write()

    def undo(self) -> None:
        """Forget the last question and its answer."""
        del self.messages[-2:]
        self._write()

    def keep(self, path: Path) -> None:
        """Keep it in a new file from now on. Raises UsageError, CannotRun."""
        if path.exists():
            raise UsageError("a file of this name is there", looked_at=naming.shown(path), do="take another name")
        self.path = path
        self._write()

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kuulo": kuulo.__version__,
            "conversation": self.messages,
            "provenance": dict(self.made_by),
        }

    def _whole(self, text: str) -> str:
        return "\n\n".join([*self.waiting, text])

    def _write(self) -> None:
        if self.path is None:
            return
        try:
            atomic.write_bytes(self.path, atomic.encode_json(self.to_json()), mode=0o600)
        except OSError as error:
            raise CannotRun(
                f"the conversation cannot be kept: {error.strerror or error}", looked_at=naming.shown(self.path)
            ) from error


def read(path: Path) -> Conversation:
    """A conversation that was kept; raises UsageError."""
    try:
        data = json.loads(path.read_bytes())
        messages = [{"role": m["role"], "content": m["content"]} for m in data["conversation"]]
        if data["schema"] != SCHEMA or not all(m["role"] in ROLES and isinstance(m["content"], str) for m in messages):
            raise ValueError(f"it is no conversation of schema {SCHEMA}")
    except OSError as error:
        raise UsageError(
            f"a conversation cannot be read: {error.strerror or error}", looked_at=naming.shown(path)
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            "this file is no conversation that `kuulo chat --save` kept", looked_at=naming.shown(path)
        ) from error
    return Conversation(path, messages)
