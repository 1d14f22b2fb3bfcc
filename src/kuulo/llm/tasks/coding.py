"""Passages coded by a user's code book. The answer may have no other codes, and every quote is looked up.

A code book is CSV with the columns `code` and `description`, and if wanted `examples`, or TOML:

    [codes]
    childcare = "Anything about who looks after children"

NAME.coding.csv has a row for each passage. A quote that stands in another line than the answer says gets that line; one
that stands nowhere in the part is not in the transcript: its row says so in the column `check`, so that nobody takes it
for evidence.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kuulo import naming
from kuulo.errors import UsageError
from kuulo.formats.csv import cell
from kuulo.llm.asking import Misfit
from kuulo.llm.tasks.base import Parameter, Result, Task, Work, encoded, occurs, times_of
from kuulo.llm.transcripts import Line, Part, decoded

TASK = Task("coding", (".coding.csv",), (Parameter("codebook", "The code book: a CSV or TOML file.", file=True),))

SHARE, OVERLAP = 0.5, 2
"""How much of the context is for the lines, and how many lines before are shown with a part."""

FOUND, MOVED, NOT_THERE = (
    "in the transcript",
    "in the transcript, at another line than the answer said",
    "not in the transcript",
)
HEADER = ("file", "line", "start", "end", "speaker", "code", "quote", "check")


@dataclass(frozen=True)
class Code:
    name: str
    description: str
    examples: str = ""


@dataclass(frozen=True)
class Coding:
    """A passage with a code. `check`: FOUND, MOVED or NOT_THERE."""

    line: int
    code: str
    quote: str
    check: str


def variables(values: Mapping[str, str]) -> dict[str, str]:
    """What the template is told: the code book."""
    return {"codes": shown(read(Path(values["codebook"]).expanduser()))}


def run(work: Work) -> Result:
    """The coded passages."""
    codes = read(Path(work.value("codebook")).expanduser())
    parts = work.parts(SHARE, numbered=True, overlap=OVERLAP)
    found = list(dict.fromkeys(coding for part in parts for coding in _of_part(work, part, codes)))
    found.sort(key=lambda coding: coding.line)
    invented = [coding for coding in found if coding.check == NOT_THERE]
    lines = work.material.lines
    notes = []
    if invented:
        places = times_of([lines[coding.line - 1] for coding in invented])
        notes.append(f"{len(invented)} of {len(found)} quotes are not in the transcript: marked, at {places}")
    counts = {code.name: sum(c.code == code.name and c.check != NOT_THERE for c in found) for code in codes}
    return Result(
        {"codings": [asdict(coding) for coding in found], "by_code": counts},
        files={".coding.csv": encoded(table(naming.shown(work.material.path.name), lines, found))},
        checks={
            "parts": len(parts),
            "codings": len(found),
            "moved": sum(coding.check == MOVED for coding in found),
            "not_in_transcript": len(invented),
        },
        notes=notes,
    )


def schema(codes: Sequence[Code]) -> dict[str, Any]:
    """The JSON schema of an answer: no other codes than these."""
    coding = {
        "type": "object",
        "properties": {
            "line": {"type": "integer"},
            "code": {"enum": [code.name for code in codes]},
            "quote": {"type": "string", "minLength": 1},
        },
        "required": ["line", "code", "quote"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"codings": {"type": "array", "items": coding}},
        "required": ["codings"],
        "additionalProperties": False,
    }


def _of_part(work: Work, part: Part, codes: Sequence[Code]) -> list[Coding]:
    """The part's passages, those in lines that the part before had left out."""
    numbers = {line.number for line in part.lines}

    def check(data: Any) -> None:
        if strays := [c["line"] for c in data["codings"] if c["line"] not in numbers]:
            raise Misfit(f"line {strays[0]} is not among {min(numbers)} to {max(numbers)}")

    data = work.asker.data(*work.prompt(part.lines, numbered=True), schema(codes), check)
    found = [looked_up(Coding(c["line"], c["code"], c["quote"].strip(), FOUND), part.lines) for c in data["codings"]]
    new = {line.number for line in part.new}
    return [coding for coding in found if coding.line in new]


def looked_up(coding: Coding, lines: Sequence[Line]) -> Coding:
    """The coding with what is true of its quote. A quote may run on into the next line."""
    here = [line for line in lines if line.number >= coding.line][:2]
    if occurs(coding.quote, " ".join(line.text for line in here)):
        return coding
    for at, line in enumerate(lines):
        if occurs(coding.quote, " ".join(one.text for one in lines[at : at + 2])):
            inside = line if occurs(coding.quote, line.text) or at + 1 == len(lines) else None
            later = lines[at + 1] if inside is None and occurs(coding.quote, lines[at + 1].text) else line
            return replace(coding, line=(inside or later).number, check=MOVED)
    return replace(coding, check=NOT_THERE)


def table(name: str, lines: Sequence[Line], found: Sequence[Coding]) -> str:
    """The CSV file, as kuulo's other tables: a cell that a spreadsheet would take for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(HEADER)
    for coding in found:
        line = lines[coding.line - 1]
        times = ["" if ms is None else f"{ms / 1000:.3f}" for ms in (line.start_ms, line.end_ms)]
        words = [cell(part) for part in (line.speaker, coding.code, coding.quote)]
        writer.writerow((cell(name), coding.line, *times, *words, coding.check))
    return text.getvalue()


# ------------------------------------------------------------------ code books


def shown(codes: Sequence[Code]) -> str:
    """The code book for a model."""
    return "\n".join(
        f"- {code.name}: {code.description}" + (f" Examples: {code.examples}" if code.examples else "")
        for code in codes
    )


def read(path: Path) -> list[Code]:
    """The codes of a code book; raises UsageError."""
    try:
        text = decoded(path.read_bytes(), path)
    except OSError as error:
        raise UsageError(
            f"the code book cannot be read: {error.strerror or error}", looked_at=naming.shown(path)
        ) from error
    codes = _toml(text, path) if path.suffix.lower() == ".toml" else _csv(text, path)
    if not codes:
        raise _wrong(path, "it has no codes")
    seen: set[str] = set()
    for code in codes:
        if not code.name:
            raise _wrong(path, "a code has no name")
        if code.name in seen:
            raise _wrong(path, f"the code {code.name!r} is in it twice")
        seen.add(code.name)
    return codes


def _toml(text: str, path: Path) -> list[Code]:
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, str(error)) from error
    codes = data.get("codes")
    if not isinstance(codes, dict) or not all(isinstance(value, str) for value in codes.values()):
        raise _wrong(path, "it has no table [codes] of names and descriptions")
    return [Code(name.strip(), value.strip()) for name, value in codes.items()]


def _csv(text: str, path: Path) -> list[Code]:
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter, restkey="")
    names = {(name or "").strip().casefold(): name for name in rows.fieldnames or ()}
    if not {"code", "description"} <= set(names):
        raise _wrong(path, "its first row does not name the columns code and description")
    try:
        return [
            Code(*((row.get(names.get(column, "\0")) or "").strip() for column in ("code", "description", "examples")))
            for row in rows
            if any(isinstance(value, str) and value.strip() for value in row.values())
        ]
    except csv.Error as error:
        raise _wrong(path, str(error)) from error


def _wrong(path: Path, why: str) -> UsageError:
    return UsageError(
        f"the code book is not understood: {why}",
        looked_at=naming.shown(path),
        do='CSV with the columns code,description, or TOML with [codes] and name = "description"',
    )
