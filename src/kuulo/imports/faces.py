"""What files show of a segment, to tell what was edited from what is only shown differently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kuulo.formats import Layout
from kuulo.formats.cues import cues
from kuulo.formats.labels import labels, one_line
from kuulo.formats.spoken import lines, xml
from kuulo.transcript import Segment, Transcript


def faces_of(transcript: Transcript, segment: Segment) -> set[tuple[object, ...]]:
    """Everything that a file may show for the segment, if it shows it as one stretch: start, end, speaker, words."""
    found: set[tuple[object, ...]] = set()
    for start_ms, end_ms, text, label in _views(transcript, segment):
        times: list[tuple[int, int | None]] = [(start_ms, end_ms), (start_ms // 1000 * 1000, None)]
        for times_ in times:
            found.add((*times_, label, plain(text)))
            found.add((*times_, None, plain(f"{label}: {text}" if label else text)))
    return found


def _views(transcript: Transcript, segment: Segment) -> Iterator[tuple[int, int, str, str]]:
    """Start, end, text and label of the segment as a cue, as a line and as a paragraph."""
    alone = replace(transcript, segments=(segment,))
    as_cues = list(cues(alone, Layout(), lambda _: 0))
    if len(as_cues) == 1:
        cue = as_cues[0]
        yield max(0, cue.start_ms), max(0, cue.end_ms), cue.text(), cue.speaker
    as_lines = list(lines(alone))
    if len(as_lines) == 1:
        line = as_lines[0]
        yield line.start_ms, line.end_ms, line.text, line.speaker
    if len({w.speaker or segment.speaker for w in segment.words}) < 2:
        yield max(0, segment.start_ms), max(0, segment.end_ms), segment.text, labels(transcript)(segment.speaker)


def plain(text: str) -> str:
    """The text as files may hold it: on one line, with `->` for the arrow of subtitles, and what XML can hold."""
    return " ".join(xml(one_line(text).replace("-->", "->")).split())


def starts(transcript: Transcript, segment: Segment) -> set[int]:
    """The starts that files show for the segment; documents show whole seconds."""
    found = {start_ms for start_ms, _, _, _ in _views(transcript, segment)}
    return found | {ms // 1000 * 1000 for ms in found}


def ends(transcript: Transcript, segment: Segment) -> set[int]:
    """The ends that files show for the segment."""
    return {end_ms for _, end_ms, _, _ in _views(transcript, segment)}
