"""What an answer must keep to, as people give it (`--schema`): a JSON schema, or fields in simonw/llm's short form.

    name, age int, bio: in a sentence       by commas; or, when there are several lines, one field in each

A field is its name, then its type if it is no text (int, float, bool, str), then a colon and what is meant by it. All
fields must be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kuulo.errors import UsageError

TYPES = {"bool": "boolean", "float": "number", "int": "integer", "str": "string"}
"""Types of the short form -> those of JSON schema."""

FIELD = re.compile(r"(?P<name>[\w-]+)(?:\s+(?P<type>\S+))?\s*(?::\s*(?P<meaning>.*))?")
WAYS = "a file with a JSON schema, the JSON itself, or fields: 'name, age int, bio: in a sentence'"


def read(text: str) -> dict[str, Any]:
    """The JSON schema that a text stands for. Raises UsageError.

    It is JSON when it begins with a bracket, else a file when there is one of that name. What has a blank, a comma or
    a line's end in it, and does not end in .json, is fields; all else is the name of a file that is not there."""
    said = text.strip()
    if said.startswith(("{", "[")):
        return _of_json(said, "--schema")
    if not _is_there(text) and re.search(r"[\s,]", said) and not said.endswith(".json"):
        return short(said)
    try:
        return _of_json(Path(text).expanduser().read_text(encoding="utf-8"), text)
    except (OSError, ValueError) as error:
        raise UsageError(f"the schema cannot be read: {error}", looked_at=text, do=_ways(said)) from error


def short(text: str) -> dict[str, Any]:
    """The JSON schema of fields in the short form: an object that has them all, and nothing else. Raises UsageError."""
    fields: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split("\n" if "\n" in text else ","))):
        found = FIELD.fullmatch(part)
        if not found:
            raise _unclear(text, f"{part!r} is no field")
        name, kind, meaning = found["name"], found["type"] or "str", found["meaning"]
        if kind not in TYPES:
            raise _unclear(text, f"the field {name} has the type {kind!r}, which is none of {', '.join(TYPES)}")
        if name in fields:
            raise _unclear(text, f"the field {name} is there twice")
        fields[name] = {"type": TYPES[kind], **({"description": meaning} if meaning else {})}
    if not fields:
        raise _unclear(text, "it has no field")
    return _whole(fields)


def several(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of any number of such answers, as `{"items": [...]}`."""
    return _whole({"items": {"type": "array", "items": dict(schema)}})


def _whole(fields: Mapping[str, Any]) -> dict[str, Any]:
    # OpenAI's servers take no other objects than such that are closed, where a schema is to be kept to strictly.
    return {"type": "object", "properties": dict(fields), "required": [*fields], "additionalProperties": False}


def _of_json(text: str, where: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the schema is not JSON: {error}", looked_at=where, do=WAYS) from error
    if not isinstance(schema, dict):
        raise UsageError("the schema is JSON of another kind than an object", looked_at=where, do=WAYS)
    return schema


def _is_there(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a name; a byte that none has; nobody's home
        return False


def _ways(said: str) -> str:
    return f"{WAYS}; one field alone is written '{said} str'" if re.fullmatch(r"[\w-]+", said) else WAYS


def _unclear(text: str, why: str) -> UsageError:
    return UsageError(
        f"the schema is neither a file that is there nor fields: {why}",
        looked_at=text,
        do=f"{WAYS}; where what is meant by a field has commas, one field in each line",
    )
