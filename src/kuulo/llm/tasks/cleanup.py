"""A transcript without false starts, repetitions and fillers, for reading.

The master copy stays as it is. Beside it come NAME.cleaned.diff, to review, and NAME.cleaned.json, a transcript that
can be exported in all formats: words that are still there keep their times. A line of which the model made something
else than a tidier version stays as it was, and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kuulo import atomic, naming
from kuulo.formats.labels import labels
from kuulo.imports import Stretch
from kuulo.imports.merge import EDITED, merge
from kuulo.llm.tasks.base import (
    Result,
    Task,
    Work,
    encoded,
    line_by_line,
    needs_times,
    noted,
    plain,
    times_of,
    whole_lines,
)
from kuulo.llm.transcripts import Material
from kuulo.transcript import Transcript

TASK = Task("cleanup", (".cleaned.json", ".cleaned.diff"), answers=1.5)  # all lines again, in JSON

SHARE, MOST_LINES = 0.35, 40
"""How much of the context is for the lines, whose answer is as long as they are; and how many are asked about."""

CLEANED = "cleaned"
"""The flag of a segment whose words were cleaned up."""

LEAST_KEPT = 0.7
"""The share of a cleaned line's words that must be the line's own."""

FILLER_WORDS = 4
"""Lines of at most so many words may go altogether."""


def run(work: Work) -> Result:
    """The cleaned transcript and the difference."""
    before = needs_times(work)
    parts = work.parts(SHARE, numbered=True, most=MOST_LINES)
    made = whole_lines(parts, [line_by_line(work, part.new) for part in parts])
    lines = work.material.lines
    silent = [line for line in lines if made[line.number] is None]
    strange = [line for line in lines if (text := made[line.number]) is not None and not is_tidier(line.text, text)]
    kept = {line.number for line in (*silent, *strange)}
    texts = {line.number: line.text if line.number in kept else made[line.number] or "" for line in lines}
    changed = sum(texts[line.number] != line.text for line in lines)
    notes = [f"{changed} of {len(lines)} lines changed"]
    if strange:
        notes.append(f"left as they were, since the answer strays from what was said: {times_of(strange)}")
    after = noted(work, cleaned(before, work.material, texts))
    difference = diff(work.material, texts)
    return Result(
        {"left": [line.number for line in strange], "unanswered": [line.number for line in silent]},
        files={".cleaned.json": atomic.encode_json(after.to_json()), ".cleaned.diff": encoded(difference)},
        checks={"lines": len(lines), "changed": changed, "left_since_strange": len(strange)},
        notes=notes,
        failed=[f"no answer that fits, left as they were: {times_of(silent)}"] if silent else [],
    )


def is_tidier(before: str, after: str) -> bool:
    """Whether a line is the earlier one with words left out and few changed. Much that is new, or most that is gone,
    is something else."""
    old, new = plain(before).split(), plain(after).split()
    if not new:
        return len(old) <= FILLER_WORDS
    own = sum((Counter(_bare(new)) & Counter(_bare(old))).values())
    return own >= LEAST_KEPT * len(new) and own >= LEAST_KEPT * len(set(_bare(old))) / 2


def _bare(words: list[str]) -> list[str]:
    return [word.strip(".,;:!?\"'()") for word in words]


def cleaned(before: Transcript, material: Material, texts: Mapping[int, str]) -> Transcript:
    """The transcript with these texts by line number; an empty one takes its segment away."""
    label = labels(before)
    stretches = []
    for line in material.lines:
        segment = before.segments[material.segment_of(line)]
        text = segment.text if texts[line.number] == line.text else texts[line.number]
        if text.strip():
            stretches.append(Stretch(segment.start_ms, segment.end_ms, text, label(segment.speaker)))
    after, _ = merge(before, stretches)
    flagged_before = {(s.start_ms, s.end_ms) for s in before.segments if EDITED in s.flags}
    segments = [
        replace(
            s,
            flags=tuple(
                CLEANED if f == EDITED and (s.start_ms, s.end_ms) not in flagged_before else f for f in s.flags
            ),
        )
        for s in after.segments
    ]
    return replace(after, segments=tuple(segments))


def diff(material: Material, texts: Mapping[int, str]) -> str:
    """A unified difference of the lines, as `diff -u` writes it, with each line's new text right below the old one.
    An empty text takes its line away."""
    changed = [n for n, line in enumerate(material.lines) if texts[line.number] != line.text]
    if not changed:
        return ""
    name = naming.shown(material.name)
    rows = [f"--- {name}.json", f"+++ {name}.cleaned.json"]
    gone = 0
    for first, last in _hunks(changed, len(material.lines)):
        body: list[str] = []
        for line in material.lines[first : last + 1]:
            text = texts[line.number]
            if text == line.text:
                body.append(f" {line.shown()}")
                continue
            body.append(f"-{line.shown()}")
            if text:
                body.append(f"+{replace(line, text=text).shown()}")
        old, new = last + 1 - first, sum(row[0] != "-" for row in body)
        rows += [f"@@ -{first + 1},{old} +{first + 1 - gone - (not new)},{new} @@", *body]
        gone += old - new
    return "\n".join(rows) + "\n"


def _hunks(changed: Sequence[int], lines: int) -> Iterator[tuple[int, int]]:
    """First and last index of each stretch of lines with changes, with one line around it."""
    first = before = changed[0]
    for index in [*changed[1:], lines + 3]:
        if index > before + 2:
            yield max(0, first - 1), min(lines - 1, before + 1)
            first = index
        before = index
