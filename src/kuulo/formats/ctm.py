"""CTM: each word with its time, as NIST's sclite and many aligners read and write it.

    interview 1 12.340 0.420 kiitos 0.97

Recording, channel, start, length, word, confidence (left out when it is not known). The words of a segment that has no
words' times share its time evenly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from kuulo.formats import Layout
from kuulo.formats.labels import one_line
from kuulo.formats.spoken import Line, lines, no_space, seconds
from kuulo.transcript import Transcript


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text, in the order of time."""
    name = no_space(PurePosixPath(transcript.audio.name).stem)
    words = sorted((w for line in lines(transcript) for w in _words(line)), key=lambda w: w[0])
    return "".join(
        f"{name} 1 {seconds(start_ms)} {seconds(length_ms)} {text}{confidence}\n"
        for start_ms, length_ms, text, confidence in words
    )


def _words(line: Line) -> Iterator[tuple[int, int, str, str]]:
    """Start, length, text and the last column of each word."""
    if line.words:
        for word in line.words:
            if one_line(word.text):
                begin = max(0, word.start_ms)
                share = "" if word.confidence is None else f" {word.confidence:.2f}"
                yield begin, max(0, word.end_ms - begin), no_space(word.text), share
        return
    texts, length = line.text.split(), line.end_ms - line.start_ms
    for index, text in enumerate(texts):
        begin, end = (line.start_ms + length * i // len(texts) for i in (index, index + 1))
        yield begin, end - begin, text, ""
