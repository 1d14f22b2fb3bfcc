"""An edited transcript laid over its master copy. Pure; times in ms.

A stretch that says what one segment says, at its times and with its speaker, is that segment, untouched. The others are
aligned word by word with the segments that are left and near in time:

- a word that is still there keeps its times and its confidence, and takes the edited punctuation and capitals;
- a word typed in the place of another has that one's times, any other new word shares the time between its neighbours;
  neither has a confidence;
- the segments become the stretches: their times, speakers and order. Where a time was not edited the master's stays,
  also where the file shows it less exactly;
- what is not in the file any more goes, segments without text apart, which no file shows.

A segment whose words were edited has the flag EDITED, and loses the engine's confidence and decoding.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from kuulo.formats.labels import labels, one_line
from kuulo.formats.spoken import NOBODY
from kuulo.imports import Stretch
from kuulo.imports.faces import ends, faces_of, plain, starts
from kuulo.imports.words import Unit, align, is_one, is_whole, split, units_of
from kuulo.transcript import Segment, Speaker, Transcript, Word

EDITED = "edited"
"""The flag of a segment whose words were edited by people."""

NEAR_MS = 2_000
"""How far from its segment a word may have been moved and still be that word."""


@dataclass
class Changes:
    """What an import does. Counts of words and segments; `places` are the times of what was changed."""

    words_kept: int = 0
    words_new: int = 0
    words_gone: int = 0
    segments_same: int = 0
    segments_changed: int = 0
    segments_gone: int = 0
    speakers_changed: int = 0
    new_speakers: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether the file says what the master copy says."""
        return not (self.segments_changed or self.segments_gone)


@dataclass(frozen=True)
class _Piece:
    """A stretch whose speaker is settled: a label, empty for nobody, None where the file does not tell. Its times are
    where it may lie; `stated` says whether start and end are in the file."""

    start_ms: int
    end_ms: int
    stated: tuple[bool, bool]
    text: str
    speaker: str | None


def merge(transcript: Transcript, stretches: Sequence[Stretch]) -> tuple[Transcript, Changes]:
    """The transcript as edited, and what was changed; the same transcript when nothing was."""
    stretches = _owned_tiers(transcript, stretches)
    same, rest = _untouched(transcript, stretches)
    left = [i for i, s in enumerate(transcript.segments) if i not in same and units_of(s, i)]
    changes = Changes(segments_same=len(transcript.segments) - len(left))
    changes.words_kept = sum(len(units_of(s)) for i, s in enumerate(transcript.segments) if i in same)
    work = _Work(transcript, changes)
    new = [s for segments, pieces in _clusters(transcript, left, _pieces(transcript, stretches, rest)) for s in
           work.rebuilt(segments, pieces)]  # fmt: skip
    if changes.nothing:
        return transcript, changes
    gone = set(left)
    kept = [s for i, s in enumerate(transcript.segments) if i not in gone]
    speakers = (*transcript.speakers, *work.speakers)
    return replace(transcript, segments=tuple(_in_order(kept, new)), speakers=speakers), changes


# ------------------------------------------------------------------ what is as it was


def _untouched(transcript: Transcript, stretches: Sequence[Stretch]) -> tuple[set[int], list[int]]:
    """The segments that stretches show as they are, and the indexes of the stretches that show none.

    A text is first taken as it is: words may look like a name or a tag."""
    shown: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, segment in enumerate(transcript.segments):
        for key in faces_of(transcript, segment):
            shown[key].append(index)
    same: set[int] = set()
    rest = []
    for number, stretch in enumerate(stretches):
        said = [(stretch.speaker, plain(stretch.text))]
        if stretch.raw is not None:
            said = [(None, plain(stretch.raw)), *said, ("", plain(stretch.raw))]
        keys = [(stretch.start_ms, stretch.end_ms, *who_what) for who_what in said]
        free = next((i for key in keys for i in shown.get(key, ()) if i not in same), None)
        if free is None:
            rest.append(number)
        else:
            same.add(free)
    return same, rest


# ------------------------------------------------------------------ who says what, near what


def _owned_tiers(transcript: Transcript, stretches: Sequence[Stretch]) -> list[Stretch]:
    """The stretches with a label where they have a tier's name: the tier `Anna (2)` is Anna's, where she is known and
    nobody is called so; the tier NOBODY is nobody's."""
    known = {labels(transcript)(s) for s in _ids(transcript)}
    named = known | {s.speaker for s in stretches if s.speaker} | {NOBODY}
    owners = {}
    for name in {s.speaker for s in stretches if s.speaker}:
        base = re.sub(r" \(\d+\)$", "", name)
        owner = base if name not in known and base in named else name
        owners[name] = "" if owner == NOBODY and owner not in known else owner
    return [replace(s, speaker=owners[s.speaker]) if s.speaker else s for s in stretches]


def _pieces(transcript: Transcript, stretches: Sequence[Stretch], rest: Sequence[int]) -> list[_Piece]:
    """The stretches that are left, with their speakers, and times for those without."""
    known = sorted({labels(transcript)(s) for s in _ids(transcript)} - {""}, key=len, reverse=True)
    settled = [_speaker(stretch, known) for stretch in stretches]
    tells = any(speaker for speaker, _ in settled)
    wanted = set(rest)
    pieces = []
    at_ms, before = 0, None
    for number, (stretch, (speaker, text)) in enumerate(zip(stretches, settled, strict=True)):
        if stretch.start_ms is not None:
            at_ms = stretch.start_ms
            before = "" if tells else None  # a paragraph that was parted from the one before has its speaker
        before = before if speaker is None else speaker
        if number not in wanted or not text.strip():
            continue
        end_ms = stretch.end_ms
        if end_ms is None:
            following = (s.start_ms for s in stretches[number + 1 :] if s.start_ms is not None)
            end_ms = max(at_ms, next(following, transcript.audio.duration_ms))
        stated = (stretch.start_ms is not None, stretch.end_ms is not None)
        pieces.append(_Piece(at_ms, end_ms, stated, text, before))
    return pieces


def _speaker(stretch: Stretch, known: Sequence[str]) -> tuple[str | None, str]:
    """Label and text: the file's own, or a known label before the text; None without one."""
    if stretch.speaker is not None:
        return one_line(stretch.speaker), stretch.text
    text = stretch.text.lstrip()
    for label in known:
        for shown in (label, label.replace("-->", "->")):
            if text.startswith(shown + ":"):
                return label, text[len(shown) + 1 :]
    return None, text


def _ids(transcript: Transcript) -> set[str]:
    spoken = {w.speaker or s.speaker for s in transcript.segments for w in s.words} | {
        s.speaker for s in transcript.segments
    }
    return {s for s in spoken if s} | {s.id for s in transcript.speakers}


def _clusters(
    transcript: Transcript, left: Sequence[int], pieces: Sequence[_Piece]
) -> Iterator[tuple[list[int], list[_Piece]]]:
    """Segments and pieces that are near each other in time, as groups in the order of time; in a group they have the
    order of the master and of the file."""
    spans: list[tuple[int, int, int, int]] = []
    for order, index in enumerate(left):
        start_ms, end_ms = _span(transcript.segments[index])
        spans.append((start_ms, end_ms + NEAR_MS, 0, order))
    for order, piece in enumerate(pieces):
        spans.append((piece.start_ms, piece.end_ms + NEAR_MS, 1, order))
    segments: list[int] = []
    group: list[int] = []
    until_ms = None
    for start_ms, end_ms, kind, order in sorted(spans):
        if until_ms is not None and start_ms > until_ms:
            yield [left[i] for i in sorted(segments)], [pieces[i] for i in sorted(group)]
            segments, group = [], []
            until_ms = None
        (group if kind else segments).append(order)
        until_ms = max(end_ms, until_ms or end_ms)
    if until_ms is not None:
        yield [left[i] for i in sorted(segments)], [pieces[i] for i in sorted(group)]


def _span(segment: Segment) -> tuple[int, int]:
    times = [segment.start_ms, segment.end_ms, *(ms for w in segment.words for ms in (w.start_ms, w.end_ms))]
    return max(0, min(times)), max(0, max(times))


# ------------------------------------------------------------------ segments anew


class _Work:
    """Segments are rebuilt one group after the other; new speakers and the counts are collected."""

    def __init__(self, transcript: Transcript, changes: Changes) -> None:
        self.segments = transcript.segments
        self.changes = changes
        self.label = labels(transcript)
        self.transcript = transcript
        self.ids = _ids(transcript)
        self.speakers: list[Speaker] = []
        self.spaced = any(s.text.startswith(" ") for s in self.segments) or not self.segments
        self.with_words = any(s.words for s in self.segments)

    def rebuilt(self, segments: Sequence[int], pieces: Sequence[_Piece]) -> list[Segment]:
        """The segments that the pieces become."""
        old = [unit for index in segments for unit in units_of(self.segments[index], index)]
        new = [split(piece.text) for piece in pieces]
        same, instead = align([u.key for u in old], [u.key for units in new for u in units])
        self.changes.words_kept += len(same)
        self.changes.words_gone += len(old) - len(same)
        found, at, used = [], 0, set()
        for piece, units in zip(pieces, new, strict=True):
            span = range(at, at + len(units))
            at += len(units)
            of = [old[same[i]] if i in same else None for i in span]
            taken = [(same.get(i), instead.get(i)) for i in span]
            used |= {u.segment for u in of if u}
            self.changes.words_new += sum(1 for u in of if u is None)
            found.append(self._segment(piece, units, old, taken))
        gone = [index for index in segments if index not in used]
        self.changes.segments_gone += len(gone)
        self.changes.segments_changed += len(pieces)
        self.changes.places += [p.start_ms for p in pieces] + [self.segments[i].start_ms for i in gone]
        return found

    def _segment(
        self,
        piece: _Piece,
        units: Sequence[Unit],
        old: Sequence[Unit],
        taken: Sequence[tuple[int | None, int | None]],
    ) -> Segment:
        sources = list(dict.fromkeys(old[i].segment for pair in taken for i in pair[:1] if i is not None))
        sources = sources or list(dict.fromkeys(old[i].segment for _, i in taken if i is not None))
        source = self.segments[sources[0]] if sources else None
        words = self._words(units, old, taken)
        start_ms, end_ms = self._times(piece, sources, words)
        speaker = self._id(piece.speaker, source)
        self.changes.speakers_changed += source is not None and speaker != source.speaker
        timed = [w for w in words if isinstance(w, Word)]
        has_words = bool(timed) or (self.with_words and all(self.segments[i].words for i in sources))
        if has_words:
            settled = tuple(self._owned(w, speaker) for w in _spread(words, start_ms, end_ms))
            text = "".join(w.text for w in settled)
        else:
            settled, text = (), "".join(w if isinstance(w, str) else w.text for w in words)
        if source and len(sources) == 1 and plain(text) == plain(source.text) and len(settled) == len(source.words):
            return replace(source, start_ms=start_ms, end_ms=end_ms, speaker=speaker, words=settled)
        flags = source.flags if source else ()
        return Segment(
            start_ms,
            end_ms,
            text,
            settled,
            speaker,
            source.language if source else None,
            None,
            flags if EDITED in flags else (*flags, EDITED),
        )

    def _words(
        self, units: Sequence[Unit], old: Sequence[Unit], taken: Sequence[tuple[int | None, int | None]]
    ) -> list[Word | str]:
        """The piece's words; those whose times are to be found yet are texts."""
        found: list[Word | str] = []
        at = 0
        while at < len(units):
            end = at + 1
            while end < len(units) and is_one(old, taken[end - 1][0], taken[end][0]):
                end += 1
            # White space goes before a word where the file has it, and before the first as the master has it.
            spaced = units[at].spaced if at else self.spaced
            found += self._word(units[at:end], old, taken[at:end], spaced, at == 0)
            at = end
        return found

    def _word(
        self,
        units: Sequence[Unit],
        old: Sequence[Unit],
        taken: Sequence[tuple[int | None, int | None]],
        spaced: bool,
        is_first: bool,
    ) -> Iterator[Word | str]:
        """What units that belong together become: the words that they were, or new ones."""
        matched = [same for same, _ in taken if same is not None]
        text = units[0].text + "".join((" " if u.spaced else "") + u.text for u in units[1:])
        if len(matched) == len(units) and is_whole(old, matched[0], matched[-1]):
            segment = self.segments[old[matched[0]].segment]
            ids = sorted({i for at in matched for i in old[at].words})
            words = [segment.words[i] for i in ids]
            if words:
                before = "".join(w.text for w in words)
                lead = before[: len(before) - len(before.lstrip())]
                lead = lead if is_first else (lead or " ") if spaced else ""
                if len(words) > 1 and "".join(before.split()) == "".join(text.split()):
                    first = replace(words[0], text=lead + words[0].text.lstrip())
                    yield from (first, *words[1:])
                elif "".join(before.split()) == "".join(text.split()):
                    yield replace(words[0], text=lead + before.lstrip())
                else:
                    shares = [w.confidence for w in words if w.confidence is not None]
                    yield Word(
                        lead + text, words[0].start_ms, words[-1].end_ms, min(shares, default=None), words[0].speaker
                    )
                return
        for number, (unit, (same, instead)) in enumerate(zip(units, taken, strict=True)):
            lead = " " if (unit.spaced if number else spaced) else ""
            place = same if same is not None else instead
            times = self._place(old, place) if place is not None else None
            yield Word(lead + unit.text, *times) if times else lead + unit.text

    def _place(self, old: Sequence[Unit], at: int) -> tuple[int, int] | None:
        """The times of the word that a unit is, if it is one whole word."""
        unit = old[at]
        if len(unit.words) != 1 or not is_whole(old, at, at):
            return None
        word = self.segments[unit.segment].words[unit.words[0]]
        return word.start_ms, word.end_ms

    def _times(self, piece: _Piece, sources: Sequence[int], words: Sequence[Word | str]) -> tuple[int, int]:
        """The piece's times; the master's own where the file shows these, or has none."""
        timed = [w for w in words if isinstance(w, Word)]
        start_ms, end_ms = piece.start_ms, piece.end_ms
        if sources:
            first, last = self.segments[sources[0]], self.segments[sources[-1]]
            whole = timed and first.words and _is_at(timed[0], first.words[0])
            if not piece.stated[0]:
                start_ms = timed[0].start_ms if timed else start_ms
            elif start_ms in starts(self.transcript, first) and (whole or not first.words or piece.stated[1]):
                start_ms = first.start_ms
            if not piece.stated[1]:
                is_last = not last.words or (timed and _is_at(timed[-1], last.words[-1]))
                end_ms = last.end_ms if is_last else timed[-1].end_ms if timed else end_ms
            elif end_ms in ends(self.transcript, last):
                end_ms = last.end_ms
        elif not piece.stated[1]:
            # Nothing says how long it was: as long as it takes to say it.
            end_ms = min(end_ms, start_ms + 400 * max(1, len(words))) if end_ms > start_ms else end_ms
        return start_ms, max(start_ms, end_ms)

    def _id(self, label: str | None, source: Segment | None) -> str | None:
        """The speaker's id for a label; a new speaker where none has it."""
        if label is None:
            return source.speaker if source else None
        if not label:
            return None
        if source and source.speaker and self.label(source.speaker) == label:
            return source.speaker
        for speaker in (*self.transcript.speakers, *self.speakers):
            if one_line(speaker.label) == label:
                return speaker.id
        if label in self.ids and self.label(label) == label:
            return label
        number = 1
        while f"S{number}" in self.ids:
            number += 1
        self.ids.add(f"S{number}")
        self.speakers.append(Speaker(f"S{number}", label))
        self.changes.new_speakers.append(label)
        return f"S{number}"

    def _owned(self, word: Word, speaker: str | None) -> Word:
        """The word without a speaker of its own that is another than its segment's."""
        if word.speaker is None or word.speaker == speaker:
            return word
        return replace(word, speaker=None)


def _is_at(word: Word, other: Word) -> bool:
    return (word.start_ms, word.end_ms) == (other.start_ms, other.end_ms)


def _spread(words: Sequence[Word | str], start_ms: int, end_ms: int) -> Iterator[Word]:
    """The words, the texts among them as words that share the time between their neighbours."""
    at = 0
    before_ms = start_ms
    while at < len(words):
        word = words[at]
        if isinstance(word, Word):
            yield word
            before_ms, at = word.end_ms, at + 1
            continue
        end = next((i for i in range(at, len(words)) if isinstance(words[i], Word)), len(words))
        following = words[end] if end < len(words) else None
        until_ms = max(before_ms, following.start_ms if isinstance(following, Word) else end_ms)
        bounds = [before_ms + (until_ms - before_ms) * i // (end - at) for i in range(end - at + 1)]
        for index in range(at, end):
            text = words[index]
            yield Word(text if isinstance(text, str) else text.text, bounds[index - at], bounds[index - at + 1])
        at = end


def _in_order(kept: Sequence[Segment], new: Sequence[Segment]) -> Iterator[Segment]:
    """The new segments among the kept ones by their start; the kept ones stay in their order."""
    waiting = sorted(new, key=lambda s: s.start_ms)
    at = 0
    for segment in kept:
        while at < len(waiting) and waiting[at].start_ms < segment.start_ms:
            yield waiting[at]
            at += 1
        yield segment
    yield from waiting[at:]
