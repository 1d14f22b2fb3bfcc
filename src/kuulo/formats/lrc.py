"""Lyrics: `[mm:ss.xx]text`, xx being hundredths of a second. Minutes may pass 99; there are no hours.

A speaker is "Anna: " before the words. A segment without text has no line, since players would
show an empty one. Line breaks become spaces: a line without a time belongs to nothing.
"""

from __future__ import annotations

from kuulo.formats import Layout
from kuulo.formats.labels import labels, one_line
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text: title, length, then the lines."""
    minutes, seconds = divmod(round(transcript.audio.duration_ms / 1000), 60)
    # A bracket would end the tag.
    title = one_line(transcript.audio.name).replace("[", "(").replace("]", ")")
    head = f"[ti:{title}]\n[length:{minutes:02d}:{seconds:02d}]\n"
    label = labels(transcript)
    lines = ((s.start_ms, label(s.speaker), one_line(s.text)) for s in transcript.segments)
    return head + "".join(f"[{_time(ms)}]{_text(speaker, text)}\n" for ms, speaker, text in lines if text)


def _time(ms: int) -> str:
    minutes, hundredths = divmod((max(0, ms) + 5) // 10, 6000)
    return f"{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def _text(speaker: str, text: str) -> str:
    """A space keeps "[Music]" apart from the time, so that no player takes it for a second tag."""
    text = f"{speaker}: {text}" if speaker else text
    return " " + text if text.startswith("[") else text
