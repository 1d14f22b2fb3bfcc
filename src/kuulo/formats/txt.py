"""Text, a line for each segment, as openai/whisper writes it. A speaker is "Anna: " before the line."""

from __future__ import annotations

from kuulo.formats import Layout
from kuulo.formats.labels import labels
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text; empty when nothing was said. Line breaks inside a segment stay."""
    label = labels(transcript)
    return "".join(f"{_before(label(s.speaker))}{s.text.strip()}\n" for s in transcript.segments)


def _before(label: str) -> str:
    return f"{label}: " if label else ""
