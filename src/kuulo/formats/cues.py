"""Subtitle cues: a transcript cut for srt and vtt.

The cuts are those of openai/whisper's `SubtitlesWriter` (whisper/utils.py, version 20250625), so that the files are
the same byte for byte: without the words' times a cue for each segment; with them the words are laid into lines and
cues as the layout says, also when it says nothing. Three things that its data cannot hold are ours:

- a segment that has text but no words among others that have them is laid as if it were one word, so that nothing
  that was said is lost;
- a change of speaker begins a cue, and the label takes room in the first line;
- a time before zero is written as zero.

Where the engine's text holds line breaks, control characters or `-->`, the bytes are openai's too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from kuulo.formats import Layout
from kuulo.formats.labels import labels
from kuulo.transcript import Segment, Transcript

UNLIMITED = 1000
"""openai's value for a width or a number of words that is not set. It is not endless: it shows in long segments."""

LONG_PAUSE_S = 3.0
"""Seconds from word to word after which cues that do not follow the segments are cut."""


@dataclass(frozen=True)
class Cue:
    """What is shown from `start_ms` to `end_ms`: the pieces, one after the other; `lit` is the one to highlight.
    `speaker` is a label, empty when none is set."""

    start_ms: int
    end_ms: int
    pieces: tuple[str, ...]
    speaker: str = ""
    lit: int | None = None

    def text(self, escape: Callable[[str], str] = str) -> str:
        """The pieces joined, each through `escape`, the highlighted one underlined."""
        return "".join(
            _underlined(escape(piece)) if index == self.lit else escape(piece)
            for index, piece in enumerate(self.pieces)
        )


@dataclass(frozen=True)
class _Piece:
    """A word, or a text without words' times, with the white space that goes before it."""

    text: str
    start_ms: int
    end_ms: int
    speaker: str


def cues(transcript: Transcript, layout: Layout, room: Callable[[str], int]) -> Iterator[Cue]:
    """The cues in order. `room(label)` is how many characters of the first line a speaker's label takes."""
    if any(segment.words for segment in transcript.segments):
        for group in _groups(_stretches(transcript), layout, room):
            yield from _highlighted(group) if layout.highlight_words else (_cue(group),)
        return
    label = labels(transcript)
    for segment in transcript.segments:
        yield Cue(segment.start_ms, segment.end_ms, (_shown(segment),), label(segment.speaker))


def timestamp(ms: int, *, always_hours: bool, marker: str) -> str:
    """`[HH:]MM:SS` and milliseconds after `marker`. Hours may pass 99."""
    seconds, milliseconds = divmod(max(0, ms), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    before = f"{hours:02d}:" if hours or always_hours else ""
    return f"{before}{minutes:02d}:{seconds:02d}{marker}{milliseconds:03d}"


def _shown(segment: Segment) -> str:
    return segment.text.strip().replace("-->", "->")


def _stretches(transcript: Transcript) -> Iterator[list[_Piece]]:
    """The pieces of each segment."""
    label = labels(transcript)
    for segment in transcript.segments:
        if segment.words:
            yield [_Piece(w.text, w.start_ms, w.end_ms, label(w.speaker or segment.speaker)) for w in segment.words]
        elif text := _shown(segment):
            yield [_Piece(" " + text, segment.start_ms, segment.end_ms, label(segment.speaker))]


def _groups(
    stretches: Iterator[list[_Piece]], layout: Layout, room: Callable[[str], int]
) -> Iterator[Sequence[_Piece]]:
    """The pieces of each cue, their texts with the white space and line breaks they have in it."""
    follows_segments = layout.follow_segments
    if follows_segments is None:
        follows_segments = layout.max_line_count is None or layout.max_line_width is None
    width = layout.max_line_width or UNLIMITED
    group: list[_Piece] = []
    line_length, lines, before_ms = 0, 1, None
    for starts_stretch, piece in _chunked(stretches, layout.max_words_per_line or UNLIMITED):
        # In float seconds, as openai: 3.0 s apart may be a little more than 3.0 in floating point.
        pause = 0.0 if before_ms is None else piece.start_ms / 1000 - before_ms / 1000
        before_ms = piece.start_ms
        long_pause = not follows_segments and pause > LONG_PAUSE_S
        other_speaker = bool(group) and group[-1].speaker != piece.speaker
        new_stretch = bool(group) and starts_stretch and follows_segments
        fits = line_length + len(piece.text) <= width
        if line_length > 0 and fits and not (long_pause or new_stretch or other_speaker):
            line_length += len(piece.text)
            group.append(piece)
            continue
        text = piece.text.strip()
        full = layout.max_line_count is not None and (long_pause or lines >= layout.max_line_count)
        if group and (full or new_stretch or other_speaker):
            yield group
            group, lines = [], 1
        elif line_length > 0:
            lines += 1
            text = "\n" + text
        line_length = len(text.strip())
        if not group and piece.speaker:
            line_length += room(piece.speaker)
        group.append(replace(piece, text=text))
    if group:
        yield group


def _chunked(stretches: Iterator[list[_Piece]], size: int) -> Iterator[tuple[bool, _Piece]]:
    """Every piece, and whether it is the first of a run of `size` in its stretch."""
    for stretch in stretches:
        for index, piece in enumerate(stretch):
            yield index % size == 0, piece


def _cue(group: Sequence[_Piece]) -> Cue:
    return Cue(group[0].start_ms, group[-1].end_ms, tuple(p.text for p in group), group[0].speaker)


def _highlighted(group: Sequence[_Piece]) -> Iterator[Cue]:
    """A cue for each word with that word lit, and the plain text in the gaps between words."""
    whole = _cue(group)
    before_ms = whole.start_ms
    for index, piece in enumerate(group):
        if before_ms != piece.start_ms:
            yield replace(whole, start_ms=before_ms, end_ms=piece.start_ms)
        yield replace(whole, start_ms=piece.start_ms, end_ms=piece.end_ms, lit=index)
        before_ms = piece.end_ms


def _underlined(word: str) -> str:
    """The word in `<u>`, its leading white space outside; one that holds a line break within stays as it is."""
    return re.sub(r"^(\s*)(.*)$", r"\1<u>\2</u>", word)
