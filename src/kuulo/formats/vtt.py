"""WebVTT subtitles, as openai/whisper writes them. A speaker is a voice tag: `<v Anna>`.

https://www.w3.org/TR/webvtt1/
"""

from __future__ import annotations

import html
import re

from kuulo.formats import Layout
from kuulo.formats.cues import Cue, cues, timestamp
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text; the header alone when nothing was said."""
    # A voice tag is not shown as text, so it takes no room in a line.
    return "WEBVTT\n\n" + "".join(
        f"{_time(c.start_ms)} --> {_time(c.end_ms)}\n{_text(c)}\n\n" for c in cues(transcript, layout, lambda _: 0)
    )


def _time(ms: int) -> str:
    return timestamp(ms, always_hours=False, marker=".")


def _text(cue: Cue) -> str:
    """openai writes `&` and `<` as they are, and so do we without a speaker; with one the text is escaped as WebVTT
    asks, and a blank line, which would end the cue, closed up."""
    if not cue.speaker:
        return cue.text()
    return re.sub(r"[\r\n]+", "\n", f"<v {_escaped(cue.speaker)}>{cue.text(_escaped)}")


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)
