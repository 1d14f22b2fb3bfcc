"""Other programs' command lines: one file for each program, with its options as a table.

A program's file says what the program understands, what Kuulo makes of each option, and what the program writes. The
names of engines stand in `base.py`: a program is a command line over one of them, and its rarer options are known to
some engines under names of their own.
"""

from __future__ import annotations

import difflib
import importlib

from kuulo.commands.base import Program
from kuulo.errors import UsageError

PROGRAMS: dict[str, str] = {
    "insanely-fast-whisper": "kuulo.commands.insanely_fast_whisper",
    "whisper": "kuulo.commands.whisper",
    "whisper-cli": "kuulo.commands.whisper_cli",
    "whisper-ctranslate2": "kuulo.commands.whisper_ctranslate2",
    "whisper-diarization": "kuulo.commands.whisper_diarization",
    "whisperx": "kuulo.commands.whisperx",
}
"""Name -> module, which has a PROGRAM."""

OTHER_NAMES: dict[str, str] = {
    "diarize.py": "whisper-diarization",
    "diarize_parallel.py": "whisper-diarization",
    "main": "whisper-cli",
    "whisper.cpp": "whisper-cli",
}
"""What people type or call them by -> the name above."""


def program(name: str) -> Program:
    """The program of that name; raises UsageError for one that is not known."""
    known = OTHER_NAMES.get(name, name)
    if known not in PROGRAMS:
        near = difflib.get_close_matches(name, [*PROGRAMS, *OTHER_NAMES], n=1)
        raise UsageError(
            f"Kuulo does not know the command line of {name!r}",
            looked_at="programs: " + ", ".join(PROGRAMS),
            do=f"did you mean {near[0]}?" if near else None,
        )
    found: Program = importlib.import_module(PROGRAMS[known]).PROGRAM
    return found


def programs() -> list[Program]:
    """Every program, by name."""
    return [program(name) for name in PROGRAMS]
