"""Lines and tiers: a transcript as the programs of speech research take it.

A line is what one speaker says in one segment. Times are not before zero and every line lasts a millisecond or more,
since Praat and ELAN take no empty interval. Segments without text are left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kuulo.formats.labels import labels, one_line
from kuulo.transcript import Segment, Transcript, Word

NOBODY = "(no speaker)"
"""The name of the tier of what no speaker is set for."""

# What XML 1.0 cannot hold, also escaped (https://www.w3.org/TR/xml/#charsets).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Line:
    """`text` is on one line and not empty; `speaker` is a label, empty when none is set; `words` may be empty."""

    start_ms: int
    end_ms: int
    text: str
    speaker: str = ""
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Tier:
    """Lines of one speaker that do not overlap, in order. `name` is unique in its transcript."""

    name: str
    speaker: str
    lines: tuple[Line, ...]


def lines(transcript: Transcript) -> Iterator[Line]:
    """The lines in the segments' order; a segment whose words change speaker is cut there."""
    label = labels(transcript)
    for segment in transcript.segments:
        for start_ms, end_ms, text, speaker, words in _parts(segment):
            if said := one_line(text):
                begin = max(0, start_ms)
                yield Line(begin, max(begin + 1, end_ms), said, label(speaker), words)


def stretches(transcript: Transcript) -> Iterator[Line]:
    """The lines; of a recording whose words nobody recognised its turns, with the speaker's label for a text."""
    yield from lines(transcript)
    label = labels(transcript)
    for turn in () if transcript.segments else transcript.turns:
        name, begin = label(turn.speaker), max(0, turn.start_ms)
        yield Line(begin, max(begin + 1, turn.end_ms), name, name)


def _parts(segment: Segment) -> Iterator[tuple[int, int, str, str | None, tuple[Word, ...]]]:
    runs = [
        (speaker, tuple(words))
        for speaker, words in itertools.groupby(segment.words, key=lambda w: w.speaker or segment.speaker)
    ]
    if len(runs) < 2:
        speaker = runs[0][0] if runs else segment.speaker
        yield segment.start_ms, segment.end_ms, segment.text, speaker, segment.words
        return
    for speaker, words in runs:
        yield words[0].start_ms, words[-1].end_ms, "".join(w.text for w in words), speaker, words


def tiers(transcript: Transcript) -> list[Tier]:
    """A tier for each speaker in the order in which they first speak. A speaker's lines that overlap each other go to
    further tiers, `Anna (2)`, unless somebody is called so; there is a tier even when nothing was said."""
    rows: dict[str, list[list[Line]]] = {}
    for line in sorted(stretches(transcript), key=lambda line: (line.start_ms, line.end_ms)):
        of_speaker = rows.setdefault(line.speaker, [])
        free = next((row for row in of_speaker if row[-1].end_ms <= line.start_ms), None)
        if free is None:
            of_speaker.append([line])
        else:
            free.append(line)
    label = labels(transcript)
    taken = {speaker or NOBODY for speaker in rows} | {label(speaker.id) for speaker in transcript.speakers}
    found = []
    for speaker, of_speaker in rows.items():
        for number, row in enumerate(of_speaker, start=1):
            name = (speaker or NOBODY) if number == 1 else _further(speaker or NOBODY, taken)
            if not speaker and number == 1 and NOBODY in rows:  # a speaker is called so
                name = _further(NOBODY, taken)
            found.append(Tier(name, speaker, tuple(row)))
    return found or [Tier(NOBODY, "", ())]


def _further(name: str, taken: set[str]) -> str:
    """The first of `Anna (2)`, `Anna (3)`... that is not taken; it is taken then."""
    new = next(n for n in (f"{name} ({number})" for number in itertools.count(2)) if n not in taken)
    taken.add(new)
    return new


def times(found: Sequence[Tier], *more: int) -> list[int]:
    """Every time in the tiers and `more`, each once, in order."""
    return sorted({ms for tier in found for line in tier.lines for ms in (line.start_ms, line.end_ms)} | set(more))


def xml(text: str) -> str:
    """The text with U+FFFD for each character that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def seconds(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000:03d}"


def clock(ms: int) -> str:
    """`HH:MM:SS`, rounded down; hours may pass 99."""
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}"


def no_space(text: str) -> str:
    """The text as one field of a table whose columns are parted by spaces."""
    return "_".join(one_line(text).split()) or "-"
