"""What every task has: parameters, work to do, a result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import kuulo
from kuulo import naming
from kuulo.errors import UsageError
from kuulo.formats.labels import one_line
from kuulo.llm import transcripts
from kuulo.llm.asking import Asker, Misfit, NoAnswer
from kuulo.llm.templates import Template
from kuulo.llm.transcripts import Line, Material, Part
from kuulo.transcript import Provenance, Step, Transcript

MOST_SHOWN = 8
"""Times that are shown of what was marked or left out."""


@dataclass(frozen=True)
class Parameter:
    """What a task may be told with `-p NAME VALUE` beside its template's variables. `file`: the value is a path, and
    the content decides the result."""

    name: str
    help: str
    default: str | None = None
    file: bool = False


@dataclass(frozen=True)
class Task:
    """`files`: what the names of its files end with, after the recording's; `{to}` in one stands for the parameter.
    `variant`: the parameter whose value stands in the name of its record, as a translation's language. `answers`: how
    long they are beside the transcript, about, for who plans jobs."""

    name: str
    files: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    variant: str = ""
    answers: float = 0.1


@dataclass(frozen=True)
class Work:
    """One task on one transcript. `values`: the parameters, defaults included; `variables`: the template's."""

    task: Task
    material: Material
    template: Template
    asker: Asker
    values: Mapping[str, str]
    variables: Mapping[str, str]
    note: Mapping[str, Any] = field(default_factory=dict)
    """How it is made, for provenance: engine, model, digests, options."""

    def value(self, name: str) -> str:
        return self.values[name]

    def parts(self, share: float, *, numbered: bool, overlap: int = 0, most: int | None = None) -> list[Part]:
        """The transcript in parts that leave room for their answers: `share` of the context is for the lines, and
        there are at most `most` lines in each."""
        system, prompt = self.template.filled(self.variables, "")
        room = self.asker.room(system, prompt, share)
        if room < 1:
            raise _no_room(self)
        found = transcripts.split(self.material.lines, room, self.asker.counter, overlap=overlap, numbered=numbered)
        return [piece for part in found for piece in _cut(part, most)]

    def prompt(self, lines: Sequence[Line], *, numbered: bool) -> tuple[str, str]:
        """System and question about these lines."""
        return self.template.filled(self.variables, transcripts.shown(lines, numbered=numbered))


def _cut(part: Part, most: int | None) -> list[Part]:
    if most is None or len(part.new) <= most:
        return [part]
    return [Part(part.new[at : at + most]) for at in range(0, len(part.new), most)]


def _no_room(work: Work) -> UsageError:
    return UsageError(
        f"the template {work.template.name} leaves no room for a transcript in the model's context",
        looked_at=f"{work.asker.context} tokens of context",
        do="give more with --context, or shorten the template",
    )


@dataclass
class Result:
    """What came of a task. `files`: content by suffix. `checks`: what was counted while the answer was checked.
    `notes`: for people, without a word of the transcript. `failed`: what was not done; it is never left unsaid."""

    data: Any
    files: dict[str, bytes] = field(default_factory=dict)
    checks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def encoded(text: str) -> bytes:
    """A text for a file. A character that UTF-8 cannot hold (half of a surrogate pair) becomes a question mark."""
    return text.encode("utf-8", "replace")


_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "–": "-", "—": "-", "\u00a0": " "})
_EDGES = " \t\n\"'.,;:!?…-"


def plain(text: str) -> str:
    """A text for comparing: one space between words, straight quotes, small letters, no stops at its ends."""
    return re.sub(r"\s+", " ", text.translate(_APOSTROPHES)).casefold().strip(_EDGES)


def occurs(quote: str, text: str) -> bool:
    """Whether a quote stands in a text, between words, whatever quotes, case and white space are like. An ellipsis in
    it stands for words left out."""
    pieces = [plain(piece) for piece in re.split(r"\.\.\.|…", quote)]
    pieces = [piece for piece in pieces if piece]
    at, whole = 0, plain(text)
    for piece in pieces:
        found = re.compile(rf"(?<!\w){re.escape(piece)}(?!\w)").search(whole, at)
        if not found:
            return False
        at = found.end()
    return bool(pieces)


# ------------------------------------------------------------------ line by line


def lines_schema(number: int) -> dict[str, Any]:
    """The JSON schema of an answer with so many numbered lines."""
    line = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "text": {"type": "string"}},
        "required": ["n", "text"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"lines": {"type": "array", "items": line, "minItems": number, "maxItems": number}},
        "required": ["lines"],
        "additionalProperties": False,
    }


def line_by_line(work: Work, lines: Sequence[Line]) -> list[str | None]:
    """What the model makes of each line, asked for all at once; None for a line that it gave no fitting answer about.

    An answer must have every line once, in order. When it has not, however often it was asked, the halves are asked
    about, so that one hard line does not take the others with it."""
    numbered = [replace(line, number=n) for n, line in enumerate(lines, start=1)]
    wanted = [line.number for line in numbered]

    def check(data: Any) -> None:
        if [line["n"] for line in data["lines"]] != wanted:
            raise Misfit(f"its lines are not numbered 1 to {len(wanted)}, each once and in order")

    try:
        data = work.asker.data(*work.prompt(numbered, numbered=True), lines_schema(len(numbered)), check)
    except NoAnswer:
        if len(lines) == 1:
            return [None]
        middle = len(lines) // 2
        return [*line_by_line(work, lines[:middle]), *line_by_line(work, lines[middle:])]
    return [one_line(line["text"]) for line in data["lines"]]


def whole_lines(parts: Sequence[Part], answers: Sequence[Sequence[str | None]]) -> dict[int, str | None]:
    """The answers by line number; a line that was cut since it was too long has its pieces joined, and None when one
    of them is."""
    found: dict[int, list[str | None]] = {}
    for part, texts in zip(parts, answers, strict=True):
        for line, text in zip(part.new, texts, strict=True):
            found.setdefault(line.number, []).append(text)
    return {
        number: None if None in pieces else " ".join(piece for piece in pieces if piece)
        for number, pieces in found.items()
    }


def needs_times(work: Work) -> Transcript:
    """The material's transcript; raises UsageError when its lines have no times."""
    transcript = work.material.as_transcript()
    if transcript is None:
        raise UsageError(
            f"{work.task.name} needs a transcript with times",
            looked_at=naming.shown(work.material.path),
            do="name a master copy (NAME.json), or an srt or vtt file",
        )
    return transcript


def noted(work: Work, after: Transcript) -> Transcript:
    """The transcript with a step in its provenance that says how the model made it."""
    origin = after.provenance or Provenance(kuulo.__version__, "")
    return replace(after, provenance=replace(origin, steps=(*origin.steps, step(work))))


def step(work: Work) -> Step:
    """What the model did, for a transcript's provenance."""
    note = work.note
    return Step(
        work.task.name,
        str(note.get("engine", "")),
        str(note.get("engine_version", "")),
        model=note.get("model"),
        model_sha256=note.get("model_sha256"),
        options={**note.get("options", {}), "template": work.template.name, "template_sha256": work.template.digest},
    )


def times_of(lines: Sequence[Line]) -> str:
    """Where some lines are, for people: `00:00:05 00:01:02 and 12 more`."""
    places = list(dict.fromkeys(line.clock or f"line {line.number}" for line in lines))
    more = f" and {len(places) - MOST_SHOWN} more" if len(places) > MOST_SHOWN else ""
    return " ".join(places[:MOST_SHOWN]) + more
