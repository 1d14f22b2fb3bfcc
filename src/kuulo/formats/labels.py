"""Speakers' names as people read them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from kuulo.transcript import Transcript


def labels(transcript: Transcript) -> Callable[[str | None], str]:
    """A function from a speaker's id to the label, on one line; empty when no speaker is set.

    An id without a label, or with a blank one, stands for itself."""
    known = {speaker.id: one_line(speaker.label) for speaker in transcript.speakers}

    def label(speaker: str | None) -> str:
        return known.get(speaker) or one_line(speaker) if speaker else ""

    return label


def one_line(text: str) -> str:
    """The text on one line: control characters, line breaks and runs of white space become a space. What joins or
    turns letters (in emoji, Persian, Hebrew) stays."""
    return " ".join("".join(" " if unicodedata.category(c) in _BREAKING else c for c in text).split())


_BREAKING = ("Cc", "Zl", "Zp")
