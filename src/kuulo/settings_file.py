"""A settings file: TOML, whose values read exactly as on the command line.

    beam_size = 3                      --beam-size 3
    from = 90                          --from 90              (seconds)
    from = 00:01:30                    --from 00:01:30
    word_times = true                  --word-times
    temperature = [0, 0.2]             --temperature 0,0.2
    format = ["txt", "docx"]           --format txt --format docx
    engine_option = { patience = 2 }   --engine-option patience=2

A value that cannot be is a UsageError that names the file and the key.
"""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kuulo import options
from kuulo.errors import UsageError
from kuulo.options import Option

FITS: Mapping[str, tuple[type, ...]] = {
    "bool": (bool, int, str),
    "choice": (str,),
    "float": (int, float, str),
    "int": (int, str),
    "language": (str,),
    "list": (str,),
    "pairs": (str,),
    "speakers": (int, str),
    "str": (str,),
    "texts": (str,),
    "temperatures": (int, float, str),
    "time": (int, float, str, datetime.time),
}
"""The types in TOML of what is one word on the command line, by the option's kind."""

LISTS = ("list", "pairs", "temperatures", "texts")
"""Kinds that may have a list of such values."""

EXAMPLES: Mapping[str, str] = {
    "bool": "true",
    "float": "0.5",
    "int": "5",
    "language": '"fi"',
    "list": '["txt", "srt"]',
    "pairs": "{ patience = 2 }",
    "speakers": '"auto"',
    "str": '"..."',
    "temperatures": "[0, 0.2]",
    "texts": '["...", "..."]',
    "time": '"00:01:30"',
}
"""How a value is written, by the option's kind."""

CALLED: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number with a point",
    str: "a text",
    list: "a list",
    dict: "a table",
    datetime.time: "a time",
    datetime.date: "a date",
    datetime.datetime: "a date",
}
"""What TOML's types are called."""


def read(path: Path, keys: Collection[str], *, required: bool) -> dict[str, Any] | None:
    """What a file says, None when it is not there and need not be; raises UsageError, also for other keys than these
    on top."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if not required:
            return None
        raise UsageError(
            "the site file is not there", looked_at=f"$KUULO_SITE: {path}", do="correct or unset KUULO_SITE"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"a settings file cannot be read: {error}", looked_at=str(path)) from error
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and lists beyond what Python reads
        raise UsageError(f"a settings file is not TOML: {error}", looked_at=str(path)) from error
    unknown = set(data) - set(keys)
    if unknown:
        raise UsageError(
            f"a settings file has an unknown key: {sorted(unknown)[0]}",
            looked_at=str(path),
            do=f"known: {', '.join(sorted(keys))}",
        )
    return data


def table(data: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """The table under a key, as it is; raises UsageError."""
    entries = data.get(key, {})
    if not isinstance(entries, dict):
        raise UsageError(
            f"{key} in a settings file is not a table", looked_at=str(path), do=f"write [{key}] on a line of its own"
        )
    return entries


def llm_values(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The options of language models in the table `llm`, parsed; raises UsageError."""
    if "llm" not in data:
        return {}
    from kuulo.llm import options as of_chat

    return values(data, "llm", path, of_chat.BY_NAME)


def values(
    data: Mapping[str, Any], where: str, path: Path, by_name: Mapping[str, Option] = options.BY_NAME
) -> dict[str, Any]:
    """The options in the table `where`, parsed, by option name; raises UsageError."""
    parsed: dict[str, Any] = {}
    for key, value in table(data, where, path).items():
        name = key.replace("-", "_")
        if name not in by_name:
            raise UsageError(
                f"a settings file has an unknown option: {key} in [{where}]",
                looked_at=str(path),
                do="known options: " + ", ".join(sorted(by_name)),
            )
        if name in parsed:
            raise UsageError(f"{name} is twice in [{where}]", looked_at=str(path), do="leave one out")
        parsed[name] = _parsed(by_name[name], value, f"{key} in [{where}]", path)
    return parsed


def _parsed(option: Option, value: Any, called: str, path: Path) -> Any:
    try:
        return options.value_of(option, typed(option, value))
    except UsageError as error:
        example = EXAMPLES.get(option.kind) or json.dumps(option.choices[0])
        do = error.do or f"for example {option.name} = {example}"
        raise UsageError(f"{called}: {error.what}", looked_at=str(path), do=do) from error


def typed(option: Option, value: Any) -> str | tuple[str, ...]:
    """What would be typed on the command line for a value in TOML; raises UsageError."""
    if option.kind == "pairs" and isinstance(value, dict):
        return tuple(f"{key}={_json(key, v)}" for key, v in value.items())
    if option.kind in LISTS and isinstance(value, list):
        words = tuple(_word(option, v) for v in value)
        return ",".join(words) if option.kind == "temperatures" else words
    return _word(option, value)


def _word(option: Option, value: Any) -> str:
    if type(value) not in FITS[option.kind]:  # not isinstance: true is no number
        raise UsageError(f"{CALLED[type(value)]} does not fit")
    try:
        text = str(value)
    except ValueError as error:  # thousands of digits
        raise UsageError("the number is too long") from error
    if "\0" in text:
        raise UsageError("the text has a NUL in it")
    return text


def _json(key: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the value of {key} cannot be told an engine: {error}") from error
