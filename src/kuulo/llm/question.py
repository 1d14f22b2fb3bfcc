"""A question to a model: what was typed, standard input, files and a template, put together.

Files and standard input go before the question. A transcript is text with times and speakers; any other file is its
text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kuulo import naming
from kuulo.errors import InputFailed
from kuulo.llm import transcripts
from kuulo.llm.asking import Asker, Message
from kuulo.llm.tasks import summary
from kuulo.llm.templates import Template
from kuulo.llm.transcripts import Line

SHARE = 0.7
PART = "This is part {number} of {parts} of a text that is too long to be read at once."
MERGE = """
Below are answers to one question about the parts of a text, in order. Answer the question from them alone. Keep times
in square brackets as they are.

The question: $question

$input"""


@dataclass(frozen=True)
class Source:
    """A text that is asked about. `name` is shown to the model; `lines` has a transcript's lines, or the text's."""

    name: str
    text: str
    lines: tuple[Line, ...] = ()

    @property
    def shown(self) -> str:
        return f"{self.name}:\n{self.text}" if self.name else self.text


@dataclass(frozen=True)
class Question:
    """`typed` is what was typed, empty where a template says it all."""

    template: Template
    typed: str = ""
    sources: tuple[Source, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def messages(self) -> list[Message]:
        """What the model is told. Raises UsageError for a variable that is missing."""
        return self._about([source.shown for source in self.sources])

    def _about(self, texts: Sequence[str]) -> list[Message]:
        input_ = "\n\n".join(text for text in (*texts, self.typed) if text)
        system, prompt = self.template.filled(self.variables, input_)
        told = [{"role": "system", "content": system.strip()}] if system.strip() else []
        return [*told, {"role": "user", "content": prompt.strip()}]

    def in_parts(self, asker: Asker) -> str:
        """The answer about texts that are longer than the context: about each part, then from these answers. Raises
        NoAnswer, and InputFailed when nothing can be split."""
        lines = [line for source in self.sources for line in _lines(source)]
        if not lines:
            raise InputFailed("there is nothing to split: the question itself is too long", do="shorten it")
        numbered = _renumbered(lines)
        system, prompt = self.texts(self._about(["", PART]))
        parts = transcripts.split(numbered, max(1, asker.room(system, prompt, SHARE)), asker.counter, overlap=2)
        answers = []
        for number, part in enumerate(parts, start=1):
            head = [PART.format(number=number, parts=len(parts))] if len(parts) > 1 else []
            text = "\n".join(line.shown() for line in part.lines)
            answers.append(asker.text(*self.texts(self._about([*head, text]))))
        if len(answers) == 1:
            return answers[0]
        question = self.typed or self.template.description or "what the template asks"
        merging = Template("merge", MERGE, system=self.template.system, merge=MERGE, defaults=self.template.defaults)
        known = {n: v for n, v in {**self.template.defaults, **self.variables}.items() if n in merging.variables}
        return summary.merged(asker, merging, {**known, "question": question}, answers)

    @staticmethod
    def texts(messages: Sequence[Message]) -> tuple[str, str]:
        """The system's text and the question's."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        return system, messages[-1]["content"]


def source(path: Path) -> Source:
    """A file that is asked about; raises UsageError."""
    name = naming.shown(path.name)
    if transcripts.is_transcript(path):
        material = transcripts.read(path)
        return Source(f"Transcript {name}", material.text, material.lines)
    return Source(f"File {name}", transcripts.text_of(path).strip())


def _lines(source_: Source) -> list[Line]:
    if source_.lines:
        return list(source_.lines)
    return [Line(n, row.strip()) for n, row in enumerate(source_.text.split("\n"), start=1) if row.strip()]


def _renumbered(lines: Sequence[Line]) -> list[Line]:
    return [Line(n, line.text, line.speaker, line.start_ms, line.end_ms) for n, line in enumerate(lines, start=1)]
