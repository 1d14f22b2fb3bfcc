"""RTTM: who speaks when, a line for each stretch of a speaker.

    SPEAKER interview 1 12.340 2.500 <NA> <NA> Anna <NA> <NA>

NIST's Rich Transcription format, which diarization tools and their scorers read. Words are not in it. White space in
names becomes `_`, as the fields are parted by spaces. What no speaker is set for is left out.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from kuulo.formats import Layout
from kuulo.formats.spoken import no_space, seconds, stretches
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text; empty when there are no speakers."""
    name = no_space(PurePosixPath(transcript.audio.name).stem)
    return "".join(
        f"SPEAKER {name} 1 {seconds(line.start_ms)} {seconds(line.end_ms - line.start_ms)}"
        f" <NA> <NA> {no_space(line.speaker)} <NA> <NA>\n"
        for line in sorted(stretches(transcript), key=lambda line: line.start_ms)
        if line.speaker
    )
