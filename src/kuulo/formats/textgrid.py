"""Praat's TextGrid (the long text form), an interval tier for each speaker, an interval for each segment.

Tiers cover the recording from 0 to its end; what nobody says in is an empty interval.
https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
"""

from __future__ import annotations

from collections.abc import Iterator

from kuulo.formats import Layout
from kuulo.formats.spoken import Tier, seconds, tiers, times
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text."""
    found = tiers(transcript)
    end_ms = times(found, 1, transcript.audio.duration_ms)[-1]
    head = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
        f"xmin = 0\nxmax = {seconds(end_ms)}\ntiers? <exists>\nsize = {len(found)}\nitem []:\n"
    )
    return head + "".join(_tier(number, tier, end_ms) for number, tier in enumerate(found, start=1))


def _tier(number: int, tier: Tier, end_ms: int) -> str:
    intervals = list(_intervals(tier, end_ms))
    return (
        f'    item [{number}]:\n        class = "IntervalTier"\n        name = {_quoted(tier.name)}\n'
        f"        xmin = 0\n        xmax = {seconds(end_ms)}\n        intervals: size = {len(intervals)}\n"
    ) + "".join(
        f"        intervals [{index}]:\n            xmin = {seconds(start)}\n            xmax = {seconds(end)}\n"
        f"            text = {_quoted(text)}\n"
        for index, (start, end, text) in enumerate(intervals, start=1)
    )


def _intervals(tier: Tier, end_ms: int) -> Iterator[tuple[int, int, str]]:
    at_ms = 0
    for line in tier.lines:
        if at_ms < line.start_ms:
            yield at_ms, line.start_ms, ""
        yield line.start_ms, line.end_ms, line.text
        at_ms = line.end_ms
    if at_ms < end_ms:
        yield at_ms, end_ms, ""


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
