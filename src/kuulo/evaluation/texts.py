"""Words as they are compared, and how many are wrong."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NORMALISATIONS = ("basic", "none")


def words(text: str, normalisation: str = "basic") -> list[str]:
    """The text's words. `basic`: NFKC, without case and punctuation, as most published word error rates; an apostrophe
    within a word stays. Numbers, brackets' contents and diacritics stay too. `none`: as they are written."""
    if normalisation == "none":
        return text.split()
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    kept = []
    for at, letter in enumerate(folded):
        if unicodedata.category(letter)[0] in "PSC":
            within = letter == "'" and folded[at - 1 : at].isalnum() and folded[at + 1 : at + 2].isalnum()
            kept.append(letter if within else " ")
        else:
            kept.append(letter)
    return "".join(kept).split()


@dataclass(frozen=True)
class Errors:
    """How one text becomes another: `count` is what the reference has (words or characters)."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    count: int = 0

    @property
    def wrong(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """None where the reference is empty: nothing can be divided by it."""
        return self.wrong / self.count if self.count else None

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.count + other.count,
        )


@dataclass(frozen=True)
class Piece:
    """A piece of an alignment: equal, substitute, delete (only `reference`) or insert (only `heard`)."""

    kind: str
    reference: tuple[str, ...]
    heard: tuple[str, ...]


def align(reference: Sequence[str], heard: Sequence[str]) -> list[Piece]:
    """The cheapest way from one to the other (Levenshtein distance, by jiwer). Either may be empty."""
    if not reference or not heard:
        pieces = [Piece("delete", tuple(reference), ()), Piece("insert", (), tuple(heard))]
        return [piece for piece in pieces if piece.reference or piece.heard]
    from jiwer import process_words

    # A word with a space would be two; there is none. jiwer wants texts.
    found = process_words(" ".join(reference), " ".join(heard)).alignments[0]
    return [
        Piece(
            chunk.type,
            tuple(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
            tuple(heard[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in found
    ]


def errors_of(pieces: Sequence[Piece]) -> Errors:
    """Errors in units of the alignment's words."""
    count = dict.fromkeys(("substitute", "delete", "insert"), 0)
    length = 0
    for piece in pieces:
        length += len(piece.reference)
        if piece.kind != "equal":
            count[piece.kind] += max(len(piece.reference), len(piece.heard))
    return Errors(count["substitute"], count["delete"], count["insert"], length)


def character_errors(reference: Sequence[str], heard: Sequence[str]) -> Errors:
    """Of the words joined by one space each, which counts as a character, as in jiwer's CER."""
    ours, theirs = " ".join(reference), " ".join(heard)
    if not ours or not theirs:
        return Errors(deletions=len(ours), insertions=len(theirs), count=len(ours))
    from jiwer import process_characters

    found = process_characters(ours, theirs)
    return Errors(found.substitutions, found.deletions, found.insertions, len(ours))


def cp_errors(reference: Mapping[str, Sequence[str]], heard: Mapping[str, Sequence[str]]) -> Errors:
    """Errors of the concatenated minimum-permutation word error rate (cpWER; Watanabe et al. 2020, CHiME-6): all words
    of a speaker joined, and speakers paired so that the fewest words are wrong. One without a partner is wrong whole.

    As meeteval's `cp_word_error_rate`, which the tests hold it against: finding the pairs is an assignment problem."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    ours, theirs = [list(w) for w in reference.values()], [list(w) for w in heard.values()]
    size = max(len(ours), len(theirs))
    ours += [[] for _ in range(size - len(ours))]
    theirs += [[] for _ in range(size - len(theirs))]
    pairs = [[errors_of(align(a, b)) for b in theirs] for a in ours]
    costs = np.array([[pair.wrong for pair in row] for row in pairs]).reshape(size, size)
    rows, columns = linear_sum_assignment(costs)
    return sum((pairs[row][column] for row, column in zip(rows, columns, strict=True)), Errors())
