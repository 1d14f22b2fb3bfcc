"""Words to align, and which word of an edited text is which of the master's."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from kuulo.transcript import Segment

# A word of a script without spaces is a character here, so that editing one does not lose the times of its sentence.
_DENSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"(?:[^\w\s]*[{_DENSE}][^\w\s]*)|(?:[^\s{_DENSE}]+)")
_EDGE = re.compile(r"^[\W_]+|[\W_]+$")


@dataclass(frozen=True)
class Unit:
    """A word to align: its text, and in the master its segment and the indexes of its words there (several where the
    engine parted what has no space). `spaced`: white space goes before it."""

    text: str
    spaced: bool
    segment: int = -1
    words: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        return _EDGE.sub("", self.text).casefold() or self.text


def units_of(segment: Segment, index: int = -1) -> list[Unit]:
    """The segment's words to align."""
    if not segment.words:
        return split(segment.text, index)
    text = "".join(w.text for w in segment.words)
    ends, at = [], 0
    for word in segment.words:
        at += len(word.text)
        ends.append(at)
    found = []
    for match in _UNIT.finditer(text):
        first, last = (bisect_left(ends, at + 1) for at in (match.start(), match.end() - 1))
        inside = tuple(i for i in range(first, last + 1) if segment.words[i].text)
        found.append(Unit(match.group(), _is_spaced(text, match.start()), index, inside))
    return found


def split(text: str, index: int = -1) -> list[Unit]:
    return [Unit(m.group(), _is_spaced(text, m.start()), index) for m in _UNIT.finditer(text)]


def _is_spaced(text: str, at: int) -> bool:
    return at > 0 and text[at - 1].isspace()


def align(old: Sequence[str], new: Sequence[str]) -> tuple[dict[int, int], dict[int, int]]:
    """For indexes of `new`: the index in `old` of the same word, and of the word that it stands in the place of."""
    same: dict[int, int] = {}
    instead: dict[int, int] = {}
    at_old = at_new = 0
    for old_end, new_end, length in [*_anchors(old, new), (len(old), len(new), 0)]:
        matcher = difflib.SequenceMatcher(None, old[at_old:old_end], new[at_new:new_end], autojunk=False)
        for tag, a, a_end, b, b_end in matcher.get_opcodes():
            pairs = dict(zip(range(at_new + b, at_new + b_end), range(at_old + a, at_old + a_end), strict=False))
            if tag == "equal":
                same.update(pairs)
            elif tag == "replace" and a_end - a == b_end - b:
                instead.update(pairs)
        same.update({new_end + i: old_end + i for i in range(length)})
        at_old, at_new = old_end + length, new_end + length
    return same, instead


_RUN = 3
_SMALL = 200_000


def _anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int, int]]:
    """Runs of words that are once in each, in an order that both share: where they begin, and their length. They part
    long texts into short ones, which are compared quickly; short texts need none."""
    if len(old) * len(new) < _SMALL:
        return []
    places = [_once(old), _once(new)]
    common = sorted((places[0][run], places[1][run]) for run in places[0].keys() & places[1].keys())
    chosen: list[tuple[int, int, int]] = []
    for a, b in _rising(common):
        if not chosen or (a >= chosen[-1][0] + _RUN and b >= chosen[-1][1] + _RUN):
            chosen.append((a, b, _RUN))
    return chosen


def _once(words: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Where each run of words is that is there once."""
    seen: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index in range(len(words) - _RUN + 1):
        seen[tuple(words[index : index + _RUN])].append(index)
    return {run: found[0] for run, found in seen.items() if len(found) == 1}


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest part of `pairs`, which are sorted by the first, in which the second rises too."""
    ends: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for index, (_, b) in enumerate(pairs):
        at = bisect_left(ends, b)
        before.append(last[at - 1] if at else -1)
        if at == len(ends):
            ends.append(b)
            last.append(index)
        else:
            ends[at], last[at] = b, index
    chain = []
    index = last[-1] if last else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def is_one(old: Sequence[Unit], before: int | None, after: int | None) -> bool:
    """Whether two units are parts of one word of the master."""
    if before is None or after is None or after != before + 1 or old[before].segment != old[after].segment:
        return False
    return bool(set(old[before].words) & set(old[after].words))


def is_whole(old: Sequence[Unit], first: int, last: int) -> bool:
    """Whether no other unit has a part of these units' words."""
    is_cut_before = first > 0 and is_one(old, first - 1, first)
    return not is_cut_before and not (last + 1 < len(old) and is_one(old, last, last + 1))
