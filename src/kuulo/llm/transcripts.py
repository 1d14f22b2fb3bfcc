"""Transcripts as a language model reads them: lines with a time and a speaker, in parts that fit its context.

    [00:01:02] Anna: Hyvää päivää, kiitos.          as it is asked about
    12 [00:01:02] Anna: Hyvää päivää, kiitos.       where an answer has to say which line

A master copy gives a line for each segment, a subtitle file one for each cue, a document one for each paragraph. A text
gives one for each line that is not empty; a time and a speaker in front of it, as `kuulo export -f timestamps` writes
them, are understood.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kuulo import imports, naming
from kuulo.errors import UsageError
from kuulo.formats.json import read_master
from kuulo.formats.labels import labels, one_line
from kuulo.formats.spoken import clock
from kuulo.transcript import Audio, Segment, Speaker, Transcript

BYTES_PER_TOKEN = 2
"""Where nobody can count: tokens of known tokenizers are 2 to 5 bytes of UTF-8, so this counts rather too many."""

_STAMPED = re.compile(r"^\[(?:(\d+):)?(\d{1,2}):(\d{2})(?:[.,]\d+)?\]\s*(.*)$")
_NAMED = re.compile(r"^([^\s:][^:]{0,40}):\s+(.*)$")


@dataclass(frozen=True)
class Line:
    """What one speaker says. `number` counts from 1; the times are None where the file has none."""

    number: int
    text: str
    speaker: str = ""
    start_ms: int | None = None
    end_ms: int | None = None

    @property
    def clock(self) -> str:
        """Its start as `00:01:02`, empty when it has none."""
        return "" if self.start_ms is None else clock(max(0, self.start_ms))

    def shown(self, *, numbered: bool = False) -> str:
        """The line for a model."""
        front = [str(self.number)] if numbered else []
        front += [f"[{self.clock}]"] if self.clock else []
        front += [f"{self.speaker}:"] if self.speaker else []
        return " ".join([*front, self.text])


@dataclass(frozen=True)
class Material:
    """A transcript to work on. `transcript` is there when the file is a master copy; line number N is then the segment
    at `segments[N - 1]`."""

    path: Path
    sha256: str
    lines: tuple[Line, ...]
    transcript: Transcript | None = None
    segments: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its last extension."""
        return self.path.stem

    @property
    def language(self) -> str:
        """The code of its language, empty when nobody knows."""
        return (self.transcript.language or "") if self.transcript else ""

    @property
    def text(self) -> str:
        return shown(self.lines)

    def as_transcript(self) -> Transcript | None:
        """The master copy, or one made of a subtitle file's or a document's lines; None where they have no times."""
        if self.transcript is not None:
            return self.transcript
        if not self.lines or any(line.start_ms is None for line in self.lines):
            return None
        starts = [line.start_ms or 0 for line in self.lines]
        ends = [
            max(a, line.end_ms or b) for line, a, b in zip(self.lines, starts, [*starts[1:], starts[-1]], strict=True)
        ]
        ids = {
            name: f"S{n}"
            for n, name in enumerate(dict.fromkeys(line.speaker for line in self.lines if line.speaker), 1)
        }
        return Transcript(
            audio=Audio(naming.shown(self.path.name), self.sha256, max(ends)),
            segments=tuple(
                Segment(start, end, f" {line.text}", speaker=ids.get(line.speaker))
                for line, start, end in zip(self.lines, starts, ends, strict=True)
            ),
            speakers=tuple(Speaker(id_, name) for name, id_ in ids.items()),
        )

    def segment_of(self, line: Line) -> int:
        """The index in `as_transcript()` of the segment of a line."""
        return self.segments[line.number - 1] if self.segments else line.number - 1


def shown(lines: Sequence[Line], *, numbered: bool = False) -> str:
    """Lines for a model, one below the other."""
    return "\n".join(line.shown(numbered=numbered) for line in lines)


# ------------------------------------------------------------------ files


def read(path: Path) -> Material:
    """A master copy, or an srt, vtt, TextGrid, eaf or docx file, or a text. Raises UsageError."""
    content = _bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    if path.suffix.lower() == ".json":
        return of_transcript(path, digest, read_master(path))
    if path.suffix.lower() in imports.READERS:
        stretches = imports.read(path)
        lines = [
            Line(number, one_line(s.text), one_line(s.speaker or ""), s.start_ms, s.end_ms)
            for number, s in enumerate((s for s in stretches if s.text.strip()), start=1)
        ]
        return Material(path, digest, tuple(lines))
    return Material(path, digest, tuple(_text_lines(decoded(content, path))))


def is_transcript(path: Path) -> bool:
    """Whether a file is one whose lines have times: a master copy, or of a kind that `kuulo import` reads."""
    if path.suffix.lower() != ".json":
        return path.suffix.lower() in imports.READERS
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"schema", "audio", "segments"} <= set(data)


def of_transcript(path: Path, digest: str, transcript: Transcript) -> Material:
    """The material in a transcript: a line for each segment that has text."""
    label = labels(transcript)
    lines: list[Line] = []
    segments: list[int] = []
    for index, segment in enumerate(transcript.segments):
        if text := one_line(segment.text):
            lines.append(Line(len(lines) + 1, text, label(segment.speaker), segment.start_ms, segment.end_ms))
            segments.append(index)
    return Material(path, digest, tuple(lines), transcript, tuple(segments))


def decoded(content: bytes, path: Path) -> str:
    """The text of a file; raises UsageError when it is none."""
    from kuulo.imports.subtitles import decoded as text_of

    try:
        text = text_of(content)
    except UnicodeDecodeError as error:
        raise UsageError(
            "a file is not text",
            looked_at=f"{naming.shown(path)}: {error.reason} at byte {error.start}",
            do="name a transcript, or save it as UTF-8",
        ) from error
    if "\0" in text:
        raise UsageError("a file is not text", looked_at=f"{naming.shown(path)}: it has a NUL in it")
    return text


def text_of(path: Path) -> str:
    """The text of a file as it is; raises UsageError."""
    return decoded(_bytes(path), path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"a file cannot be read: {error.strerror or error}", looked_at=naming.shown(path)) from error


def _text_lines(text: str) -> Iterator[Line]:
    number = 0
    for row in text.split("\n"):
        said = one_line(row)
        if not said:
            continue
        number += 1
        stamped = _STAMPED.match(said)
        if not stamped:
            yield Line(number, said)
            continue
        hours, minutes, seconds = (int(part or 0) for part in stamped.groups()[:3])
        named = _NAMED.match(stamped[4])
        speaker, words = (named[1], named[2]) if named else ("", stamped[4])
        yield Line(number, words, speaker, ((hours * 60 + minutes) * 60 + seconds) * 1000)


# ------------------------------------------------------------------ parts


@dataclass
class Counter:
    """Counts tokens: by the server's tokenizer where it has one to ask, else by a careful estimate. `exact` says
    which it was."""

    ask: Callable[[str], int | None] = field(default=lambda text: None)
    exact: bool = True

    def __call__(self, text: str) -> int:
        number = self.ask(text) if self.exact else None
        if number is None:
            self.exact = False
            return estimate(text)
        return number


def estimate(text: str) -> int:
    """Tokens of a text, rather too many than too few."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


@dataclass(frozen=True)
class Part:
    """Some lines of a transcript. Its first `overlap` lines were the last ones of the part before: context, which
    that part has dealt with."""

    lines: tuple[Line, ...]
    overlap: int = 0

    @property
    def new(self) -> tuple[Line, ...]:
        """The lines that no part before had."""
        return self.lines[self.overlap :]

    @property
    def span(self) -> str:
        """From when to when, for people: `00:01:02 to 00:09:59`, or line numbers where there are no times."""
        first, last = self.new[0], self.new[-1]
        if first.clock and last.clock:
            return f"{first.clock} to {clock(max(0, last.end_ms or last.start_ms or 0))}"
        return f"lines {first.number} to {last.number}"


def split(
    lines: Sequence[Line], room: int, count: Callable[[str], int], *, overlap: int = 0, numbered: bool = False
) -> list[Part]:
    """Parts of at most `room` tokens each, of whole lines, in order; each begins with the last `overlap` lines of the
    one before, where they fit. A line that is too long alone is cut between words. Raises UsageError when not even one
    word fits."""
    if not lines:
        return []
    if count(shown(lines, numbered=numbered)) <= room:
        return [Part(tuple(lines))]
    short = [piece for line in lines for piece in _fitting(line, room, count, numbered)]
    sizes = [count(line.shown(numbered=numbered)) + 1 for line in short]  # and the line's end
    parts: list[Part] = []
    at = 0
    while at < len(short):
        begin = _begin(sizes, at, overlap if parts else 0, room)
        end = at + 1
        while end < len(short) and sum(sizes[begin : end + 1]) <= room:
            end += 1
        parts.append(Part(tuple(short[begin:end]), at - begin))
        at = end
    return parts


def _begin(sizes: Sequence[int], at: int, overlap: int, room: int) -> int:
    """Where a part begins whose first new line is at `at`: with so many lines before as leave half of the room."""
    begin = at
    while (
        begin > max(0, at - overlap)
        and sum(sizes[begin - 1 : at + 1]) <= room
        and sum(sizes[begin - 1 : at]) <= (room // 2)
    ):
        begin -= 1
    return begin


def _fitting(line: Line, room: int, count: Callable[[str], int], numbered: bool) -> Iterator[Line]:
    """The line, or pieces of it that fit; all have its number, times and speaker."""
    if count(line.shown(numbered=numbered)) + 1 <= room:
        yield line
        return
    words = line.text.split()
    if len(words) < 2:
        words = [line.text[: len(line.text) // 2], line.text[len(line.text) // 2 :]]
        if not all(words):
            raise UsageError(
                "the model's context is too small for even one word of the transcript beside the instructions",
                looked_at=f"{room} tokens are left for it",
                do="give more with --context, shorten the template, or take another model",
            )
        joiner = ""
    else:
        joiner = " "
    middle = len(words) // 2
    for half in (words[:middle], words[middle:]):
        yield from _fitting(replace(line, text=joiner.join(half)), room, count, numbered)
