"""Text as f4transkript and f5transkript write it: a paragraph for each segment, with its end time after it.

    Anna: Hyvää päivää, kiitos. #00:01:02-3#

The time is hours, minutes, seconds and tenths. MAXQDA and ATLAS.ti import it with its times too. One time mark is in
each paragraph: a `#` of the words is written as U+FF03, so that none is taken for one.
"""

from __future__ import annotations

from kuulo.formats import Layout
from kuulo.formats.spoken import clock, lines
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text."""
    return "".join(
        f"{_plain(line.speaker + ': ') if line.speaker else ''}{_plain(line.text)} #{_time(line.end_ms)}#\n"
        for line in lines(transcript)
    )


def _plain(text: str) -> str:
    return text.replace("#", "\uff03")


def _time(ms: int) -> str:
    return f"{clock(ms)}-{ms // 100 % 10}"
