"""SubRip subtitles, as openai/whisper writes them. A speaker is "Anna: " before the cue's text."""

from __future__ import annotations

import re

from kuulo.formats import Layout
from kuulo.formats.cues import Cue, cues, timestamp
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text; empty when nothing was said."""
    numbered = enumerate(cues(transcript, layout, room=lambda label: len(f"{label}: ")), start=1)
    return "".join(f"{number}\n{_time(c.start_ms)} --> {_time(c.end_ms)}\n{_text(c)}\n\n" for number, c in numbered)


def _time(ms: int) -> str:
    return timestamp(ms, always_hours=True, marker=",")


def _text(cue: Cue) -> str:
    """With a speaker openai sets no bytes to keep: then a blank line, which would end the cue, is closed up, and an
    arrow shortened."""
    if not cue.speaker:
        return cue.text()
    return re.sub(r"[\r\n]+", "\n", f"{cue.speaker}: {cue.text()}").replace("-->", "->")
