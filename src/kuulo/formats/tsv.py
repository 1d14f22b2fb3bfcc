"""Start and end in milliseconds and the text, parted by tabs, as openai/whisper writes it."""

from __future__ import annotations

from kuulo.formats import Layout
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text. Tabs inside a text become spaces; its line breaks stay, as openai's do: csv quotes them."""
    rows = (f"{s.start_ms}\t{s.end_ms}\t{_cell(s.text)}\n" for s in transcript.segments)
    return "start\tend\ttext\n" + "".join(rows)


def _cell(text: str) -> str:
    return text.strip().replace("\t", " ")
