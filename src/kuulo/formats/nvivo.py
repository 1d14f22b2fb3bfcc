"""A table for NVivo's "Import Rows": time span, speaker and words, parted by tabs, below a row of headings.

    Timespan	Speaker	Content
    00:01:02.3 - 00:01:05.0	Anna	Hyvää päivää, kiitos.

NVivo measures in tenths of a second and wants the rows in the order of time. A `"` that begins a cell is written as
U+201C, since spreadsheets, and what reads tables as they do, take it for the beginning of a quoted cell.
"""

from __future__ import annotations

from kuulo.formats import Layout
from kuulo.formats.spoken import clock, lines
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text."""
    rows = (
        f"{_time(line.start_ms)} - {_time(line.end_ms)}\t{_cell(line.speaker)}\t{_cell(line.text)}\n"
        for line in sorted(lines(transcript), key=lambda line: line.start_ms)
    )
    return "Timespan\tSpeaker\tContent\n" + "".join(rows)


def _cell(text: str) -> str:
    return f"\u201c{text[1:]}" if text.startswith('"') else text


def _time(ms: int) -> str:
    return f"{clock(ms)}.{ms // 100 % 10}"
