"""A label track of Audacity: start and end in seconds and the text, parted by tabs (File > Import > Labels).

https://manual.audacityteam.org/man/importing_and_exporting_labels.html
"""

from __future__ import annotations

from kuulo.formats import Layout
from kuulo.formats.spoken import lines, seconds
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text; a speaker is "Anna: " before the words."""
    return "".join(
        f"{seconds(line.start_ms)}\t{seconds(line.end_ms)}\t{line.speaker + ': ' if line.speaker else ''}{line.text}\n"
        for line in lines(transcript)
    )
