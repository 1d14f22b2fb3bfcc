"""How near a transcript is to what was said: words, sentence times, word times. Used by evaluation and comparison."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kuulo.transcript import Segment


@dataclass(frozen=True)
class Part:
    """A sentence, said or heard. Times in seconds; `words`: (start, end, word), empty where they are not known."""

    start: float
    end: float
    text: str
    words: Sequence[tuple[float, float, str]] = ()


def said_parts(clip: Mapping[str, Any]) -> list[Part]:
    """What a clip of `tests/audio/miniature/texts.json` says; its words have their places there, not their letters."""
    return [
        Part(
            segment["start_ms"] / 1000,
            segment["end_ms"] / 1000,
            segment["text"],
            [(a / 1000, b / 1000, w) for (a, b), w in zip(segment["words"], segment["text"].split(), strict=True)],
        )
        for segment in clip["segments"]
    ]


def heard_parts(segments: Iterable[Segment]) -> list[Part]:
    """Segments of a transcript."""
    return [
        Part(
            segment.start_ms / 1000,
            segment.end_ms / 1000,
            segment.text,
            [(word.start_ms / 1000, word.end_ms / 1000, word.text) for word in segment.words],
        )
        for segment in segments
    ]


def bare(text: str) -> list[str]:
    """The words in lower case, without punctuation."""
    return re.sub(r"[.,!?]", "", text).lower().split()


def errors(said: list[str], heard: list[str]) -> int:
    """Words substituted, deleted and inserted, at least (Levenshtein's distance)."""
    row = list(range(len(heard) + 1))
    for number, expected in enumerate(said, 1):
        before, row[0] = row[0], number
        for at, word in enumerate(heard, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (expected != word))
    return row[-1]


@dataclass
class Score:
    """Sums over recordings; `figures` makes rates of them."""

    wrong: int = 0
    said: int = 0
    recordings: int = 0
    languages: int = 0
    sentences: int = 0
    alike: int = 0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    words: list[float] = field(default_factory=list)

    def add(self, said: Sequence[Part], heard: Sequence[Part], language_right: bool = True) -> None:
        """A recording. Sentence times count where as many sentences were heard as said; word times where every word
        is right. What Whisper cannot know counts for nothing: the start of a recording's first sentence after its
        first second (`max_initial_timestamp`), and of a sentence's first word, which aligns with the pause before."""
        expected = [word for part in said for word in bare(part.text)]
        self.wrong += errors(expected, [word for part in heard for word in bare(part.text)])
        self.said += len(expected)
        self.recordings += 1
        self.languages += language_right
        self.sentences += len(said)
        if len(heard) == len(said):
            self.alike += len(said)
            for number, (one, other) in enumerate(zip(said, heard, strict=True)):
                self.ends.append(abs(one.end - other.end))
                if number or one.start <= 1.0:
                    self.starts.append(abs(one.start - other.start))
        true_words = [word for part in said for word in part.words]
        heard_words = [word for part in heard for word in part.words]
        firsts = {part.words[0][0] for part in said if part.words}
        if [bare(w) for _, _, w in true_words] == [bare(w) for _, _, w in heard_words]:
            for (start, end, _), (begin, finish, _) in zip(true_words, heard_words, strict=True):
                self.words += [abs(end - finish)] if start in firsts else [abs(start - begin), abs(end - finish)]

    def figures(self) -> dict[str, Any]:
        """Rates, and errors in seconds as [median, 90th percentile] or None."""
        return {
            "recordings": self.recordings,
            "words": self.said,
            "word_error_rate": round(self.wrong / max(1, self.said), 4),
            "language_right": round(self.languages / max(1, self.recordings), 4),
            "sentences_as_said": round(self.alike / max(1, self.sentences), 4),
            "start_error_s": spread(self.starts),
            "end_error_s": spread(self.ends),
            "word_time_error_s": spread(self.words),
        }


def spread(values: Sequence[float]) -> list[float] | None:
    """[median, 90th percentile], None of nothing."""
    return [round(float(np.percentile(values, share)), 3) for share in (50, 90)] if values else None


def lost_and_repeated(said: Sequence[Part], heard: Sequence[Part]) -> dict[str, int]:
    """Sentences of which less than a third of the words was written in their place, and runs of at least three words
    that were written but not said there."""
    expected = [word for part in said for word in bare(part.text)]
    written = [word for part in heard for word in bare(part.text)]
    matcher = difflib.SequenceMatcher(a=expected, b=written, autojunk=False)
    found = {at for start, _, size in matcher.get_matching_blocks() for at in range(start, start + size)}
    lost = at = 0
    for part in said:
        count = len(bare(part.text))
        lost += 3 * sum(place in found for place in range(at, at + count)) < count
        at += count
    repeated = sum(kind == "insert" and end - start >= 3 for kind, _, _, start, end in matcher.get_opcodes())
    return {"sentences_lost": lost, "runs_repeated": repeated}
