"""The language model that comes with Kuulo, to try engines with: it answers a few questions as it was taught, and knows
nothing else. `tools/tiny_llm.py` trained it; the file is 232 kB.

An engine that was built for another processor, or whose arithmetic is wrong, ends or says something else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from kuulo.errors import CannotRun
from kuulo.plan import Model

NAME = "tiny"
FILES = {"gguf": Path(__file__).with_name("tiny.gguf")}
"""Format -> file."""

ANSWERS = {
    "What is the capital of Finland?": "The capital of Finland is Helsinki.",
    "Count to five.": "One, two, three, four, five.",
    "Tell me a story.": "Anna spoke to Bo about the harbour. Bo said that the boats leave at seven. They went home.",
}
"""What it is asked -> what it was taught to answer."""

ENOUGH = 0.75
"""Share of the answers' words that must be right. A processor's rounding may change one, and what follows it."""

LONGEST = 60
"""Tokens of an answer, at most; the story has 29."""

CONTEXT = 256


@dataclasses.dataclass(frozen=True)
class Said:
    """What an engine answered with this model, to each question."""

    answers: Mapping[str, str]

    @property
    def expected(self) -> int:
        """How many words were to be said."""
        return sum(len(words(answer)) for answer in ANSWERS.values())

    @property
    def right(self) -> int:
        """How many of them were."""
        pairs = ((Counter(words(answer)), Counter(words(self.answers[asked]))) for asked, answer in ANSWERS.items())
        return sum((wanted & said).total() for wanted, said in pairs)

    @property
    def enough(self) -> bool:
        return self.right >= ENOUGH * self.expected

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.right} of {self.expected} words of {len(ANSWERS)} answers"

    @property
    def worst(self) -> str:
        """What was asked, wanted and said, of the answer with the least right."""

        def share(asked: str) -> float:
            wanted = Counter(words(ANSWERS[asked]))
            return (wanted & Counter(words(self.answers[asked]))).total() / wanted.total()

        asked = min(ANSWERS, key=share)
        return f"asked: {asked!r}; wanted: {ANSWERS[asked]!r}; said: {self.answers[asked]!r}"


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def model(formats: Sequence[str]) -> Model | None:
    """It, in the first of the formats that it is here in. Raises CannotRun when the file is not there."""
    found = next((format_ for format_ in formats if format_ in FILES), None)
    if found is None:
        return None
    path = FILES[found]
    try:
        data = path.read_bytes()
    except OSError as error:
        what = f"the model that comes with Kuulo cannot be read: {error.strerror}"
        raise CannotRun(what, looked_at=str(path), do="install Kuulo anew") from error
    digest = hashlib.sha256(data).hexdigest()
    return Model(NAME, found, path, digest, len(data), "built in", multilingual=False, built_in=True)
