"""References and transcripts of any kind as lines: who said what and when, as far as the file says it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo.errors import InputFailed, UsageError
from kuulo.formats import json as master


@dataclass(frozen=True)
class Line:
    """`speaker` empty: not known. Times None: not known. `text` None: the file has none (RTTM)."""

    text: str | None
    speaker: str = ""
    start_ms: int | None = None
    end_ms: int | None = None


def read(path: Path) -> list[Line]:
    """The file's lines. Raises UsageError for a kind that is not known, InputFailed for a file that is not of it."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"{path.name}: this kind of file cannot be compared", looked_at=f"kinds: {', '.join(sorted(READERS))}"
        )
    try:
        return reader(path)
    except OSError as error:
        raise InputFailed(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputFailed(
            f"{path} is not what its name says: {error}", do="correct it, or name another file"
        ) from error


def _json(path: Path) -> list[Line]:
    """Kuulo's master copy; or what whisper and its relatives write, with times in seconds."""
    said = json.loads(_text(path))
    if isinstance(said, dict) and "schema" not in said and isinstance(said.get("segments"), list):
        return [
            Line(str(item["text"]).strip(), str(item.get("speaker") or ""), _ms(item["start"]), _ms(item["end"]))
            for item in said["segments"]
        ]
    transcript = master.read_master(path)
    names = {speaker.id: speaker.label for speaker in transcript.speakers}
    if transcript.turns:
        return [Line(None, names.get(t.speaker, t.speaker), t.start_ms, t.end_ms) for t in transcript.turns]
    return [
        Line(s.text.strip(), names.get(s.speaker or "", s.speaker or ""), s.start_ms, s.end_ms)
        for s in transcript.segments
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _txt(path: Path) -> list[Line]:
    """A line of text for each line; nobody speaks."""
    return [Line(line.strip()) for line in _text(path).splitlines() if line.strip()]


def _stm(path: Path) -> list[Line]:
    """NIST's segment time marks: file, channel, speaker, start, end, <labels>, words. Comments begin with ;;."""
    lines = []
    for fields in _rows(path, 5):
        rest = fields[5:]
        if rest and rest[0].startswith("<") and rest[0].endswith(">"):
            rest = rest[1:]
        if fields[2].lower() == "inter_segment_gap" or rest[:1] == ["ignore_time_segment_in_scoring"]:
            continue
        lines.append(Line(" ".join(rest), fields[2], _ms(fields[3]), _ms(fields[4])))
    return lines


def _ctm(path: Path) -> list[Line]:
    """NIST's conversation time marks, a word to a line: file, channel, start, duration, word, confidence."""
    return [Line(fields[4], "", _ms(fields[2]), _ms(fields[2]) + _ms(fields[3])) for fields in _rows(path, 5)]


def _rttm(path: Path) -> list[Line]:
    """Rich transcription time marks: SPEAKER file channel start duration <NA> <NA> name <NA> <NA>."""
    return [
        Line(None, fields[7], _ms(fields[3]), _ms(fields[3]) + _ms(fields[4]))
        for fields in _rows(path, 8)
        if fields[0] == "SPEAKER"
    ]


def _tiers(path: Path) -> list[Line]:
    """ELAN's or Praat's tiers, each a speaker's; the tier that Kuulo writes for nobody is nobody's."""
    from kuulo import imports
    from kuulo.formats.spoken import NOBODY

    return [
        Line(" ".join(found.text.split()), "" if found.speaker == NOBODY else found.speaker or "",
             found.start_ms, found.end_ms)
        for found in imports.read(path)
    ]  # fmt: skip


def _rows(path: Path, least: int) -> list[list[str]]:
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        fields = line.split()
        if not fields or line.lstrip().startswith((";;", "#")):
            continue
        if len(fields) < least:
            raise ValueError(f"line {number} has {len(fields)} fields, and not at least {least}")
        rows.append(fields)
    return rows


def _ms(seconds: object) -> int:
    if not re.fullmatch(r"\d+(\.\d*)?", str(seconds)):
        raise ValueError(f"{seconds!r} is no time in seconds")
    return round(float(str(seconds)) * 1000)


READERS: Mapping[str, Callable[[Path], list[Line]]] = {
    ".ctm": _ctm,
    ".eaf": _tiers,
    ".json": _json,
    ".rttm": _rttm,
    ".stm": _stm,
    ".textgrid": _tiers,
    ".txt": _txt,
}


def have_text(lines: Sequence[Line]) -> bool:
    """Whether every line has text; no lines are a text without words."""
    return all(line.text is not None for line in lines)


def have_turns(lines: Sequence[Line]) -> bool:
    """Whether every line says who speaks and when."""
    return all(line.speaker and line.start_ms is not None and line.end_ms is not None for line in lines)
