"""Text with a time before each paragraph, which MAXQDA, ATLAS.ti and NVivo import together with its times.

    [00:01:02] Anna: Hyvää päivää, kiitos.

The times are in order, as NVivo asks.
"""

from __future__ import annotations

from kuulo.formats import Layout
from kuulo.formats.spoken import clock, lines
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text."""
    return "".join(
        f"[{clock(line.start_ms)}] {line.speaker + ': ' if line.speaker else ''}{line.text}\n"
        for line in sorted(lines(transcript), key=lambda line: line.start_ms)
    )
