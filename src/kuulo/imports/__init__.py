"""Edited transcripts read back: a table of what can be read, and what a reader gives.

A reader is a module with

    def read(content: bytes) -> list[Stretch]      # raises ValueError, saying what is wrong

`merge` lays the stretches over the master copy.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from kuulo import naming
from kuulo.errors import UsageError


@dataclass(frozen=True)
class Stretch:
    """A cue, an interval, an annotation or a paragraph of an edited file.

    `start_ms` is None in a paragraph that somebody parted from the one before, `end_ms` where the format has no ends.
    `speaker` is a label or a tier's name, empty for nobody; None when the format has no place for one: then it may be
    in front of the text. `raw` is the text before tags were told from words, where words may look like them."""

    start_ms: int | None
    end_ms: int | None
    text: str
    speaker: str | None = None
    raw: str | None = None


READERS: dict[str, str] = {
    ".docx": "kuulo.imports.docx",
    ".eaf": "kuulo.imports.eaf",
    ".srt": "kuulo.imports.subtitles",
    ".textgrid": "kuulo.imports.textgrid",
    ".vtt": "kuulo.imports.subtitles",
}
"""Extension in small letters -> the module that reads it."""


def read(path: Path) -> list[Stretch]:
    """What an edited file says, in its order. Raises UsageError when it is of another kind or cannot be read."""
    shown = naming.shown(path)
    module = READERS.get(path.suffix.lower())
    if module is None:
        raise UsageError(
            "this kind of file cannot be read back",
            looked_at=shown,
            do="import one of " + ", ".join(sorted(e.lstrip(".") for e in READERS)) + ", told by the file's extension",
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the edited file cannot be read: {error.strerror or error}", looked_at=shown) from error
    try:
        stretches: list[Stretch] = importlib.import_module(module).read(content)
    except ValueError as error:
        raise UsageError(
            f"the edited file is not what its extension {path.suffix} says",
            looked_at=f"{shown}: {error}",
            do="save it again from the program that you edited it with",
        ) from error
    return stretches
