"""What was talked about, and when. Topics refer to lines by number; a number that the part did not have is refused.

The topics of the parts of a long transcript are put together by asking which of them are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kuulo import naming
from kuulo.llm.asking import Misfit, NoAnswer
from kuulo.llm.tasks.base import Result, Task, Work, encoded
from kuulo.llm.transcripts import Line, Part

TASK = Task("topics", (".topics.md",))

SHARE = 0.6

_RANGE = {
    "type": "object",
    "properties": {"from": {"type": "integer"}, "to": {"type": "integer"}},
    "required": ["from", "to"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "topics": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "minLength": 1},
                    "summary": {"type": "string"},
                    "lines": {"type": "array", "minItems": 1, "items": _RANGE},
                },
                "required": ["title", "summary", "lines"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["topics"],
    "additionalProperties": False,
}
MERGED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "topics": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "minLength": 1},
                    "summary": {"type": "string"},
                    "of": {"type": "array", "minItems": 1, "items": {"type": "integer"}},
                },
                "required": ["title", "summary", "of"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["topics"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Topic:
    """`ranges`: first and last line number of each stretch about it."""

    title: str
    summary: str
    ranges: tuple[tuple[int, int], ...]


def run(work: Work) -> Result:
    """The topics in the order in which they come up."""
    parts = work.parts(SHARE, numbered=True)
    found = [topic for part in parts for topic in _of_part(work, part)]
    notes = []
    if len(parts) > 1:
        try:
            found = _together(work, found)
        except NoAnswer:
            notes.append(
                f"the topics of the {len(parts)} parts stand one after the other: nobody could put them together"
            )
    found.sort(key=lambda topic: topic.ranges[0])
    lines = work.material.lines
    data = [
        {
            "title": topic.title,
            "summary": topic.summary,
            "stretches": [_stretch(lines, first, last) for first, last in topic.ranges],
        }
        for topic in found
    ]
    covered = {n for topic in found for first, last in topic.ranges for n in range(first, last + 1)}
    return Result(
        {"topics": data},
        files={".topics.md": encoded(_page(naming.shown(work.material.name), found, lines))},
        checks={
            "parts": len(parts),
            "topics": len(found),
            "lines": len(lines),
            "lines_without_topic": len(lines) - len(covered),
        },
        notes=notes,
    )


def _of_part(work: Work, part: Part) -> list[Topic]:
    numbers = {line.number for line in part.lines}

    def check(data: Any) -> None:
        for topic in data["topics"]:
            for one in topic["lines"]:
                if one["from"] > one["to"] or not {one["from"], one["to"]} <= numbers:
                    raise Misfit(f"lines {one['from']} to {one['to']} are not among {min(numbers)} to {max(numbers)}")

    data = work.asker.data(*work.prompt(part.lines, numbered=True), SCHEMA, check)
    return [
        Topic(one["title"].strip(), one["summary"].strip(), tuple(sorted((r["from"], r["to"]) for r in one["lines"])))
        for one in data["topics"]
    ]


def _together(work: Work, found: Sequence[Topic]) -> list[Topic]:
    """Topics that are the same as one. Those that the answer leaves out stay as they are. Raises NoAnswer."""
    listed = "\n".join(f"{n} {topic.title}: {topic.summary}" for n, topic in enumerate(found, start=1))

    def check(data: Any) -> None:
        used = [n for topic in data["topics"] for n in topic["of"]]
        if len(set(used)) != len(used) or not set(used) <= set(range(1, len(found) + 1)):
            raise Misfit(f"each topic from 1 to {len(found)} goes into one of the new ones, and no other number")

    data = work.asker.data(*work.template.filled(work.variables, listed, merging=True), MERGED, check)
    used = {n for topic in data["topics"] for n in topic["of"]}
    merged = [
        Topic(
            one["title"].strip(),
            one["summary"].strip(),
            tuple(sorted({r for n in one["of"] for r in found[n - 1].ranges})),
        )
        for one in data["topics"]
    ]
    return merged + [topic for n, topic in enumerate(found, start=1) if n not in used]


def _stretch(lines: Sequence[Line], first: int, last: int) -> dict[str, Any]:
    begin, end = lines[first - 1], lines[last - 1]
    return {"from_line": first, "to_line": last, "start_ms": begin.start_ms, "end_ms": end.end_ms}


def _page(name: str, found: Sequence[Topic], lines: Sequence[Line]) -> str:
    rows = [f"# {name}: topics", ""]
    for topic in found:
        places = ", ".join(_place(lines, first, last) for first, last in topic.ranges)
        rows += [f"## {topic.title}", "", *([topic.summary, ""] if topic.summary else []), places, ""]
    return "\n".join(rows)


def _place(lines: Sequence[Line], first: int, last: int) -> str:
    begin, end = lines[first - 1], lines[last - 1]
    if not begin.clock:
        return f"lines {first} to {last}"
    return f"[{begin.clock}]" if first == last else f"[{begin.clock}] to [{end.clock}]"
