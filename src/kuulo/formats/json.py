"""The master copy, `NAME.json`: everything that is known. `schemas/transcript.schema.json` describes it.

A number that is not finite, which JSON cannot hold, is written as null.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from kuulo import atomic, naming
from kuulo.errors import UsageError
from kuulo.formats import Layout
from kuulo.transcript import SCHEMA, Transcript

OTHERS: dict[str, str] = {
    "chunks": "transformers or insanely-fast-whisper",
    "counts": "Kuulo's report of a run",
    "segments": "openai/whisper or a program that writes the same",
    "transcription": "whisper.cpp",
}
"""A key at the top of another program's JSON -> the program."""


def render(transcript: Transcript, layout: Layout) -> bytes:
    """The file's content."""
    return atomic.encode_json(transcript.to_json())


def read_master(path: Path) -> Transcript:
    """The transcript in a master copy; raises UsageError when the file cannot be read or is none."""
    shown = naming.shown(path)
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"a transcript cannot be read: {error.strerror or error}",
            looked_at=shown,
            do="name the NAME.json that `kuulo transcribe` wrote",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _not_a_master(shown, f"it is not JSON ({str(error) or type(error).__name__})") from error
    _check_head(data, shown)
    try:
        transcript = Transcript.from_json(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _not_a_master(shown, f"its parts are not as they should be ({error})") from error
    if wrong := _misfit(transcript, "transcript"):
        raise _not_a_master(shown, wrong)
    return transcript


def _check_head(data: Any, shown: str) -> None:
    """Raises UsageError unless `data` begins as a master copy of a schema that we know."""
    if not isinstance(data, dict):
        raise _not_a_master(shown, f"it holds a {_KINDS.get(type(data), 'value')} and not an object")
    number: Any = data.get("schema")
    if not (_is_int(number) and "audio" in data and isinstance(data.get("segments"), list)):
        raise _not_a_master(shown, _guess(data))
    if number > SCHEMA:
        raise UsageError(
            f"this transcript was written by a newer Kuulo (schema {number})",
            looked_at=f"{shown}; this version knows schema {SCHEMA} and older",
            do="read it with the Kuulo that wrote it, or a newer one",
        )
    if number < 1:
        raise _not_a_master(shown, f"there is no schema {number}")


_KINDS: dict[type, str] = {list: "list", str: "text", int: "number", float: "number", bool: "truth value"}


def _guess(data: Mapping[str, Any]) -> str:
    """What a JSON object without our marks seems to be."""
    for key, program in OTHERS.items():
        if key in data:
            return f"it has `{key}` and no `schema` with `audio`: it is probably from {program}"
    keys = ", ".join(naming.shown(k) for k in list(data)[:5]) or "nothing"
    return f"it has {keys}, and not all of `schema`, `audio` and `segments`"


def _not_a_master(shown: str, why: str) -> UsageError:
    return UsageError(
        "this file is not a master copy of Kuulo",
        looked_at=f"{shown}: {why}",
        do="name the NAME.json that `kuulo transcribe` wrote; other formats cannot be read back",
    )


def _misfit(item: Any, where: str) -> str:
    """Which field of a dataclass does not hold what its type says; empty when all do.

    JSON from elsewhere may have a text where a time should be; better said here than as a crash in a format."""
    kind: Any = type(item)
    for name, fits in _fields(kind):
        value = getattr(item, name)
        if not fits(value):
            return f"{where}.{name} is {_short(value)}"
        parts = value if isinstance(value, tuple) else (value,)
        for index, part in enumerate(parts):
            if dataclasses.is_dataclass(part):
                inside = f"{where}.{name}" + (f"[{index}]" if parts is value else "")
                if wrong := _misfit(part, inside):
                    return wrong
    return ""


def _short(value: Any) -> str:
    text = naming.shown(repr(value))
    return text if len(text) <= 40 else text[:39] + "…"


@functools.cache
def _fields(kind: Hashable) -> list[tuple[str, Any]]:
    """Each field's name and a test of its value."""
    hints = typing.get_type_hints(kind)
    return [(name, _test(hint)) for name, hint in hints.items()]


def _test(hint: Any) -> Any:
    """A function that says whether a value is of the type in `hint`, as far as it is JSON."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        tests = [_test(h) for h in inner]
        return lambda value: any(test(value) for test in tests)
    if origin is tuple:
        element = _test(inner[0])
        return lambda value: isinstance(value, tuple) and all(map(element, value))
    if origin is dict:
        element = _test(inner[1])
        return lambda value: isinstance(value, dict) and all(map(element, value.values()))
    if hint is Any:
        return lambda value: True
    if hint is int:
        return _is_int
    if hint is float:
        # null stands for a number that was not finite (Decoding's alone are not optional).
        return lambda value: value is None or isinstance(value, float) or _is_int(value)
    return lambda value: isinstance(value, hint)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
