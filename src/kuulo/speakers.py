"""Who said what: turns of speakers laid over words. Pure; times in ms.

    parse      what `--speakers` asks for: none, auto, channels, 2, 2-5
    lay        gives each word to a speaker and cuts segments where the speaker changes
    rename     gives speakers other labels

**A word** belongs to the speaker who has most of it; where two have as much, to the one who spoke the word before, else
to the one whose turn began first. A word outside every turn belongs to the nearest turn, if that is at most NEAR_MS
away; else to nobody.

**A segment** is cut where the speaker of its words changes, unless the piece would be shorter than SHORTEST_MS: then
its words go to the speaker before (at the segment's beginning, to the one after). A segment without words' times is not
cut: it belongs, whole, to the speaker who has most of it.

**Speakers** are named S1, S2, ... in the order in which they first have a segment.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kuulo.errors import UsageError
from kuulo.transcript import Segment, Speaker, Transcript, Turn, Word

NEAR_MS = 1000
SHORTEST_MS = 250

MOST = 99

CHANNELS = "channels"
"""Instead of a number: a speaker for each channel."""


@dataclass(frozen=True)
class Wanted:
    """How many speakers there are: at least and at most."""

    least: int = 1
    most: int = MOST


def parse(text: str) -> Wanted | None:
    """`none`, `auto`, `channels`, a number, or a range as 2-5; None for none. Raises UsageError."""
    word = text.strip().lower()
    if word == "none":
        return None
    if word in ("auto", CHANNELS):
        return Wanted()
    found = re.fullmatch(r"([1-9]\d?)(?:-([1-9]\d?))?", word)
    if not found or (found[2] and int(found[2]) < int(found[1])):
        raise UsageError(f"{text!r} is no number of speakers", do="auto, none, channels, a number as 2, a range as 2-5")
    return Wanted(int(found[1]), int(found[2] or found[1]))


def lay(segments: Sequence[Segment], turns: Sequence[Turn]) -> tuple[tuple[Segment, ...], tuple[Speaker, ...]]:
    """The segments with their speakers, and these, labelled as the turns call them. No word is lost, doubled or moved;
    segments stay in order."""
    ordered = sorted(turns, key=lambda turn: (turn.start_ms, turn.end_ms, turn.speaker))
    laid: list[Segment] = []
    before: str | None = None
    for segment in segments:
        pieces = _pieces(segment, ordered, before)
        laid += pieces
        before = pieces[-1].speaker or before
    names: dict[str, str] = {}
    for segment in laid:
        if segment.speaker is not None:
            names.setdefault(segment.speaker, f"S{len(names) + 1}")
    return tuple(_named(segment, names) for segment in laid), tuple(Speaker(id_, name) for name, id_ in names.items())


def rename(transcript: Transcript, labels: Mapping[str, str]) -> Transcript:
    """The transcript with other labels of its speakers, by id. Raises UsageError for one that it does not have."""
    known = {speaker.id for speaker in transcript.speakers}
    unknown = sorted(set(labels) - known)
    if unknown:
        raise UsageError(f"there is no speaker {unknown[0]}", looked_at=", ".join(sorted(known)) or "no speakers")
    renamed = tuple(replace(speaker, label=labels.get(speaker.id, speaker.label)) for speaker in transcript.speakers)
    return replace(transcript, speakers=renamed)


def _named(segment: Segment, names: Mapping[str, str]) -> Segment:
    words = tuple(replace(w, speaker=names.get(w.speaker) if w.speaker else None) for w in segment.words)
    return replace(segment, speaker=names[segment.speaker] if segment.speaker else None, words=words)


def _pieces(segment: Segment, turns: Sequence[Turn], before: str | None) -> list[Segment]:
    if not segment.words:
        return [replace(segment, speaker=_speaker(segment.start_ms, segment.end_ms, turns, before))]
    speakers: list[str | None] = []
    for word in segment.words:
        before = _speaker(word.start_ms, word.end_ms, turns, before)
        speakers.append(before)
    runs = _runs(segment.words, speakers)
    if len(runs) == 1:
        words, speaker = runs[0]
        return [replace(segment, speaker=speaker, words=tuple(replace(w, speaker=speaker) for w in words))]
    pieces = [
        replace(segment.piece([replace(word, speaker=speaker) for word in words]), speaker=speaker)
        for words, speaker in runs
    ]
    # Where the segment begins and ends is surer than where its words do.
    pieces[0] = replace(pieces[0], start_ms=segment.start_ms)
    pieces[-1] = replace(pieces[-1], end_ms=segment.end_ms)
    return [replace(piece, end_ms=max(piece.start_ms, piece.end_ms)) for piece in pieces]


def _runs(words: Sequence[Word], speakers: Sequence[str | None]) -> list[tuple[list[Word], str | None]]:
    """Words in a row of one speaker, none of them shorter than SHORTEST_MS while there is another to give it to."""
    runs: list[tuple[list[Word], str | None]] = []
    for word, speaker in zip(words, speakers, strict=True):
        if runs and runs[-1][1] == speaker:
            runs[-1][0].append(word)
        else:
            runs.append(([word], speaker))
    while len(runs) > 1:
        lengths = [run[-1].end_ms - run[0].start_ms for run, _ in runs]
        shortest = min(range(len(runs)), key=lambda number: lengths[number])
        if lengths[shortest] >= SHORTEST_MS:
            break
        into = shortest - 1 if shortest else 1
        first, second = sorted((shortest, into))
        runs[first : second + 1] = [(runs[first][0] + runs[second][0], runs[into][1])]
        for number in range(len(runs) - 1, 0, -1):  # what was parted by the short one
            if runs[number][1] == runs[number - 1][1]:
                runs[number - 1 : number + 1] = [(runs[number - 1][0] + runs[number][0], runs[number][1])]
    return runs


def _speaker(start_ms: int, end_ms: int, turns: Sequence[Turn], before: str | None) -> str | None:
    """Who has most of a stretch, or is nearest to it."""
    shares: dict[str, int] = defaultdict(int)
    for turn in turns:
        if turn.start_ms >= end_ms and shares:
            break
        shares[turn.speaker] += max(0, min(end_ms, turn.end_ms) - max(start_ms, turn.start_ms))
    most = max(shares.values(), default=0)
    if most:
        best = [speaker for speaker, share in shares.items() if share == most]  # in the order of their turns
        return before if before in best else best[0]
    near = min(turns, key=lambda t: max(t.start_ms - end_ms, start_ms - t.end_ms), default=None)
    if near is None or max(near.start_ms - end_ms, start_ms - near.end_ms) > NEAR_MS:
        return None
    return near.speaker
