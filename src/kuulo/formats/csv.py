"""A table as RFC 4180 has it: a header, a row for each segment, CR LF, quotes where they are needed, UTF-8.

    id,start,end,speaker,language,confidence,text
    1,0.000,2.500,Anna,fi,0.912,"Hyvää päivää, kiitos."

Times are seconds, confidence is from 0 to 1; what is not known is empty. There is no byte order mark: statistics
programs would take it for a part of the first heading (in a spreadsheet choose UTF-8 when it asks).

A spreadsheet takes a cell that begins with `= + - @` for a formula and would run it, or show an error instead of the
words ("- Yes", as dialogue is often written). Such a cell gets an apostrophe before it. Nothing is lost: a cell that
begins with apostrophes and then one of these characters has exactly one more than the words had.
"""

from __future__ import annotations

import csv
import io
import re

from kuulo.formats import Layout
from kuulo.formats.labels import labels
from kuulo.transcript import Transcript

HEADER = ("id", "start", "end", "speaker", "language", "confidence", "text")

# Also the full-width forms: spreadsheets with East Asian input take them as the same.
_FORMULA = re.compile(r"'*[=+\-@＝＋－＠]")


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text."""
    label = labels(transcript)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(HEADER)
    for number, segment in enumerate(transcript.segments, start=1):
        writer.writerow(
            (
                number,
                _seconds(segment.start_ms),
                _seconds(segment.end_ms),
                cell(label(segment.speaker)),
                cell(segment.language or transcript.language or ""),
                "" if segment.confidence is None else f"{segment.confidence:.3f}",
                cell(segment.text),
            )
        )
    return table.getvalue()


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3f}"


def cell(text: str) -> str:
    """The text without white space around it, safe to open. Control characters, which RFC 4180 has no place for,
    become spaces; line breaks and tabs stay."""
    text = "".join(" " if _is_control(c) else c for c in text).strip()
    return "'" + text if _FORMULA.match(text) else text


def _is_control(character: str) -> bool:
    return (character < " " and character not in "\t\n\r") or character in "\x7f\ufeff"
