"""Start and end in milliseconds and the text, parted by tabs, as openai/whisper writes it. A speaker is "Anna: " before
the text."""

from __future__ import annotations

from kuulo.formats import Layout
from kuulo.formats.labels import labels
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text. Tabs inside a text become spaces; its line breaks stay, as openai's do: csv quotes them."""
    label = labels(transcript)
    rows = (f"{s.start_ms}\t{s.end_ms}\t{_cell(label(s.speaker), s.text)}\n" for s in transcript.segments)
    return "start\tend\ttext\n" + "".join(rows)


def _cell(speaker: str, text: str) -> str:
    before = f"{speaker}: " if speaker else ""
    return before + text.strip().replace("\t", " ")
