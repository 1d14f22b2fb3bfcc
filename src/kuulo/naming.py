"""What the results of each recording are called, so that no two recordings overwrite each other's.

    interview.m4a                       -> interview
    interviews/day 1/anna.wav (a folder was given: interviews/)  -> day 1/anna
    a.wav and a.mp3                     -> a.wav and a.mp3
    d1/x.wav and d2/x.wav (both named)  -> d1/x and d2/x
    report.wav            -> report.wav, since report.json is the run's own

Names are compared as file systems of other machines would: without regard to case or to how an umlaut is written.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

STDIN_NAME = "stdin"


def stems(recordings: Sequence[tuple[Path, Path | None]], taken: Callable[[PurePath, Path], bool]) -> list[PurePath]:
    """The relative path, without extension, of each recording's results.

    `recordings` are (path, folder argument it was found under or None). `taken(stem, path)` says whether results of
    that stem are there already and belong to another recording than `path`: then the recording keeps its extension."""
    names = [_relative(path, base) for path, base in recordings]
    short = [name.with_suffix("") if not _reserved(name.with_suffix("")) else name for name in names]
    chosen = list(short)
    for group in _collisions(short):
        for index in group:
            chosen[index] = names[index]
    for index, (path, _) in enumerate(recordings):
        number = 1
        while taken(chosen[index], path):
            chosen[index] = names[index].with_name(names[index].name + (f" ({number})" if number > 1 else ""))
            number += 1
    for group in _collisions(chosen):
        paths = [Path(os.path.normpath(Path.cwd() / recordings[i][0])) for i in group]
        common = Path(os.path.commonpath([p.parent for p in paths]))
        full = [p.relative_to(common) for p in paths]
        shorter = [f.with_suffix("") for f in full]
        for index, name in zip(group, full if _collisions(shorter) else shorter, strict=True):
            chosen[index] = name
    chosen = [name.with_name(f"{name.name} (recording)") if _reserved(name) else name for name in chosen]
    for group in _collisions(chosen):  # names that differ in case alone, or in the spelling of an umlaut
        for number, index in enumerate(group[1:], start=2):
            chosen[index] = chosen[index].with_name(f"{chosen[index].name} ({number})")
    return chosen


def _relative(path: Path, base: Path | None) -> PurePath:
    if str(path) == "-":
        return PurePath(STDIN_NAME)
    return PurePath(path.relative_to(base)) if base else PurePath(path.name)


SPEAKERS = ".speakers"
"""After the name of a recording whose speakers were told apart and whose words were not recognised."""

INNER = (".audacity", ".f4", ".nvivo", SPEAKERS, ".timestamps", ".whisper")
"""What some results have before their last extension: NAME.whisper.json, NAME.f4.txt."""


def _reserved(name: PurePath) -> bool:
    """Whether results of this name would be taken for others: the run's report.json, or another's NAME.whisper.json."""
    folded = str(name).casefold()
    return folded == "report" or folded.endswith(INNER)


def _collisions(names: Sequence[PurePath]) -> list[list[int]]:
    """Groups of indexes whose names are the same on some file system."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(unicodedata.normalize("NFC", str(name)).casefold(), []).append(index)
    return [g for g in groups.values() if len(g) > 1]


def shown(path: str | PurePath) -> str:
    """A path for people and for JSON: on one line, whatever its bytes."""
    text = os.fsencode(str(path)).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
