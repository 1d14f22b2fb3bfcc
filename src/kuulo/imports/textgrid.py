"""Praat's TextGrid: the interval tiers of its long and short text forms, a speaker to each tier.

Point tiers are passed over. https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kuulo.imports import Stretch
from kuulo.imports.subtitles import decoded

# Praat reads texts in quotes, flags and numbers that stand free, and takes all else for a comment.
_TOKEN = re.compile(
    r'"((?:[^"]|"")*)"|(?<!\S)(<\w+>)(?!\S)|(?<!\S)([+-]?\d[\d.]*(?:[eE][+-]?\d+)?)(?!\S)|(?<!\S)![^\n]*|\S+'
)


def read(content: bytes) -> list[Stretch]:
    """The intervals with text, in the order of time. Raises ValueError."""
    if content.startswith(b"ooBinaryFile"):
        raise ValueError("it is in Praat's binary form: save it as a text file")
    tokens = _tokens(decoded(content))
    if [next(tokens, None), next(tokens, None)] != ["ooTextFile", "TextGrid"]:
        raise ValueError("it does not begin as a TextGrid")
    try:
        tiers = list(_tiers(tokens))
    except (StopIteration, TypeError, RuntimeError) as error:
        raise ValueError("it ends too soon, or its parts are not in order") from error
    found = [Stretch(a, b, text, name) for name, intervals in tiers for a, b, text in intervals if text.strip()]
    return sorted(found, key=lambda stretch: stretch.start_ms or 0)


def _tokens(text: str) -> Iterator[str | float]:
    for match in _TOKEN.finditer(text):
        if match[1] is not None:
            yield match[1].replace('""', '"')
        elif match[2]:
            yield match[2]
        elif match[3]:
            yield float(match[3])


def _tiers(tokens: Iterator[str | float]) -> Iterator[tuple[str, list[tuple[int, int, str]]]]:
    """Name and intervals (start and end in ms, text) of each interval tier."""
    _number(tokens), _number(tokens)
    if next(tokens) != "<exists>":
        return
    for _ in range(int(_number(tokens))):
        kind, name = next(tokens), str(next(tokens))
        _number(tokens), _number(tokens)
        intervals = []
        for _ in range(int(_number(tokens))):
            start = _number(tokens)
            end = _number(tokens) if kind == "IntervalTier" else start
            text = next(tokens)
            if not isinstance(text, str):
                raise TypeError(text)
            intervals.append((round(start * 1000), round(end * 1000), text))
        if kind == "IntervalTier":
            yield name, intervals


def _number(tokens: Iterator[str | float]) -> float:
    token = next(tokens)
    if not isinstance(token, float):
        raise TypeError(token)
    return token
