"""A transcript in another language, segment by segment: times and speakers stay, words and their times go.

NAME.LANGUAGE.json is a transcript of which subtitles and documents can be exported. Every line is asked for by number,
and an answer with another number of lines is refused. A line that was not translated has the flag NOT_TRANSLATED.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kuulo import atomic, languages
from kuulo.errors import UsageError
from kuulo.llm.tasks.base import (
    Parameter,
    Result,
    Task,
    Work,
    line_by_line,
    needs_times,
    noted,
    plain,
    times_of,
    whole_lines,
)

TASK = Task(
    "translation",
    (".{to}.json",),
    (Parameter("to", "The language to translate into: a code (fi) or an English name."),),
    "to",
    answers=1.5,  # all lines again, in JSON
)

SHARE, MOST_LINES = 0.3, 40
TRANSLATED, NOT_TRANSLATED = "translated", "not-translated"
LONG_WORDS = 4
"""Lines of so many words that came back as they were are said: shorter ones may be alike in both languages."""


def check(values: Mapping[str, str]) -> dict[str, str]:
    """The parameters, with the language's code; raises UsageError."""
    code = languages.code(values["to"])
    if code == "auto":
        raise UsageError("a translation is into one language", do="-p to fi")
    return {**values, "to": code}


def variables(values: Mapping[str, str]) -> dict[str, str]:
    """What the template is told: the language's name."""
    return {"to": languages.name(values["to"])}


def run(work: Work) -> Result:
    """The translated transcript."""
    before = needs_times(work)
    code = work.value("to")
    parts = work.parts(SHARE, numbered=True, most=MOST_LINES)
    made = whole_lines(parts, [line_by_line(work, part.new) for part in parts])
    lines = work.material.lines
    missing = [line for line in lines if not made[line.number]]
    same = [
        line
        for line in lines
        if line not in missing
        and len(line.text.split()) >= LONG_WORDS
        and plain(made[line.number] or "") == plain(line.text)
    ]
    segments = list(before.segments)
    for line in lines:
        at = work.material.segment_of(line)
        text = made[line.number]
        segment = replace(segments[at], words=(), confidence=None, decoding=None)
        lead = " " if segment.text.startswith(" ") else ""
        segments[at] = (
            replace(segment, text=lead + text, language=code, flags=(*segment.flags, TRANSLATED))
            if text
            else replace(segment, flags=(*segment.flags, NOT_TRANSLATED))
        )
    after = noted(work, replace(before, segments=tuple(segments), language=code, language_confidence=None))
    notes = [f"came back as they were: {times_of(same)}"] if same else []
    return Result(
        {"untranslated": [line.number for line in missing], "unchanged": [line.number for line in same]},
        files={f".{code}.json": atomic.encode_json(after.to_json())},
        checks={"lines": len(lines), "untranslated": len(missing), "unchanged": len(same)},
        notes=notes,
        failed=[f"not translated, in the original language: {times_of(missing)}"] if missing else [],
    )
