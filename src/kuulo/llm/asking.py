"""Asking a model for an answer that is checked.

An answer that does not keep to its schema, or that a task's own check finds wrong, is asked for again with the reason,
TRIES times in all. What is wrong is said without the words of the answer: these may be people's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kuulo.errors import InputFailed
from kuulo.llm.transcripts import Counter

TRIES = 3
ASSUMED_CONTEXT = 8192
"""Tokens of an endpoint that does not say how many it has."""

MESSAGE_TOKENS = 32
"""What a chat template adds around system and question, at most."""

Message = Mapping[str, str]
_FENCED = re.compile(r"^\s*```(?:\w+)?\s*\n(.*?)\n?```\s*$", re.DOTALL)
_THOUGHT = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)


class Misfit(Exception):
    """An answer is not as it should be. `str()` is for the model and for people, without words of the answer."""


class NoAnswer(InputFailed):
    """A model gave no answer that fits, however often it was asked."""


class Model(Protocol):
    """What is asked: `talk` gives the answer's text, `count` tokens where the server can count them. `tell` sets
    options of the answers that follow. `branch`: the same, for another thread."""

    @property
    def context(self) -> int | None: ...
    @property
    def finish(self) -> str | None:
        """Why the last answer ended: `length` when it was cut."""

    def talk(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str: ...
    def count(self, text: str) -> int | None: ...
    def tell(self, options: Mapping[str, Any]) -> None: ...
    def branch(self) -> Model: ...


@dataclass
class Asker:
    """Asks a model. `asked`, `refused` and `cut` count questions, answers that did not fit, and answers that were taken
    although they were cut: they were as long as they may be."""

    model: Model
    asked: int = 0
    refused: int = 0
    cut: int = 0
    counter: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.counter = Counter(self.model.count)

    def branch(self) -> Asker:
        """Another one of the same model, for another thread: see `joined`."""
        return Asker(self.model.branch())

    def joined(self, other: Asker) -> None:
        """Count also what a branch has asked."""
        self.asked, self.refused, self.cut = (
            self.asked + other.asked,
            self.refused + other.refused,
            self.cut + other.cut,
        )
        self.counter.exact = self.counter.exact and other.counter.exact

    @property
    def context(self) -> int:
        return self.model.context or ASSUMED_CONTEXT

    def room(self, system: str, prompt: str, share: float) -> int:
        """Tokens for a transcript beside these instructions, when its answer takes the rest: `share` of what is
        left. May be less than one."""
        return int((self.context - self.counter(f"{system}\n{prompt}") - MESSAGE_TOKENS) * share)

    def text(self, system: str, prompt: str, check: Callable[[str], str] = str.strip) -> str:
        """The answer as text, as `check` gives it back. Raises NoAnswer when all answers were empty or `check` raised
        Misfit for each."""

        def checked(answer: str) -> str:
            found = check(_THOUGHT.sub("", answer))
            if not found.strip():
                raise Misfit("the answer is empty")
            return found

        return str(self._until(system, prompt, None, checked))

    def data(
        self, system: str, prompt: str, schema: Mapping[str, Any], check: Callable[[Any], None] = lambda data: None
    ) -> Any:
        """The answer as JSON that keeps to `schema` and passes `check`, which raises Misfit. Raises NoAnswer."""

        def checked(answer: str) -> Any:
            data = parsed(answer)
            validate(data, schema)
            check(data)
            return data

        return self._until(system, prompt, schema, checked)

    def _until(self, system: str, prompt: str, schema: Mapping[str, Any] | None, check: Callable[[str], Any]) -> Any:
        why = ""
        for _ in range(TRIES):
            again = f"\n\nAn earlier answer did not fit: {why}. Answer again, so that it does." if why else ""
            messages = [{"role": "system", "content": system}] if system else []
            self.asked += 1
            answer = self.model.talk([*messages, {"role": "user", "content": prompt + again}], schema)
            was_cut = self.model.finish == "length"
            try:
                found = check(answer)
            except Misfit as error:
                self.refused += 1
                why = f"{error}, and it was cut: it is as long as it may be" if was_cut else str(error)
                continue
            self.cut += was_cut
            return found
        raise NoAnswer(
            f"the model gave no answer that fits, asked {TRIES} times",
            looked_at=f"the last one: {why}",
            do="take a model that follows instructions better, or give it a longer --max-tokens",
        )


def parsed(answer: str) -> Any:
    """The JSON in an answer, which may stand in a code block or after a thought; raises Misfit."""
    text = _THOUGHT.sub("", answer)
    fenced = _FENCED.match(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Misfit(f"it is not JSON{where}") from error


def validate(data: Any, schema: Mapping[str, Any]) -> None:
    """Raises Misfit, with the place and the rule that was broken, unless `data` keeps to `schema`."""
    import jsonschema  # type: ignore[import-untyped, unused-ignore]

    validator = jsonschema.validators.validator_for(dict(schema), default=jsonschema.Draft202012Validator)
    error = jsonschema.exceptions.best_match(validator(dict(schema)).iter_errors(data))
    if error is not None:
        rule = json.dumps(error.validator_value, ensure_ascii=False)
        shown = rule if len(rule) <= 120 else rule[:119] + "…"
        raise Misfit(f"{error.json_path} does not keep to the schema's {error.validator}: {shown}")
