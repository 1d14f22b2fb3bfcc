"""Entries for the program `llm` (simonw/llm): a model in its `extra-openai-models.yaml`, and a key in its `keys.json`.

What people wrote in these files stays, letter by letter: the entry is put at the end, between two lines of comment by
which it is found again, and what comes of it is read before it is written. Before a file of theirs is changed it is
copied to NAME.before-kuulo.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml  # type: ignore[import-untyped]

from kuulo import atomic
from kuulo.errors import CannotRun, UsageError

MODELS, KEYS = "extra-openai-models.yaml", "keys.json"
VARIABLE = "LLM_USER_PATH"
NOTE = "This file stores secret API credentials. Do not share!"
"""What `llm keys set` writes into a new file, under the key `// Note`."""

BEFORE = ".before-kuulo"


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `llm` has its files: as itself, $LLM_USER_PATH or click's folder of an app."""
    named = environ.get(VARIABLE)
    return Path(named) if named else Path(click.get_app_dir("io.datasette.llm"))


def publish(place: Path, name: str, entry: Mapping[str, object], key: str) -> Path:
    """Write an entry and its key, anew where they are there; the file of the entry. Raises KuuloError."""
    models, secrets = place / MODELS, place / KEYS
    before = _read(models)
    text = with_entry(without_entry(before, name), name, entry, str(models))
    known = _keys(secrets)
    try:
        place.mkdir(parents=True, exist_ok=True)
        _write(secrets, json.dumps({**({"// Note": NOTE} | known), name: key}, indent=2) + "\n", 0o600)
        _write(models, text, _mode(models))
    except OSError as error:
        raise CannotRun(f"the files of llm cannot be written: {error}", looked_at=str(place)) from error
    return models


def remove(place: Path, name: str) -> Path:
    """Take an entry and its key out. Raises KuuloError; UsageError when there is none of ours."""
    models, secrets = place / MODELS, place / KEYS
    before, known = _read(models), _keys(secrets)
    after = without_entry(before, name)
    if after == before:
        raise UsageError(f"kuulo llm publish has no entry {name} there", looked_at=str(models))
    try:
        _write(models, after, _mode(models))
        if known.pop(name, None) is not None:
            _write(secrets, json.dumps(known, indent=2) + "\n", 0o600)
    except OSError as error:
        raise CannotRun(f"the files of llm cannot be written: {error}", looked_at=str(place)) from error
    return models


def with_entry(text: str, name: str, entry: Mapping[str, object], where: str) -> str:
    """The text with the entry at its end. Raises UsageError where it would not be what it says, as where the file has
    a form of its own, or a model of that name."""
    known = _parsed(text, where)
    if any(isinstance(one, dict) and one.get("model_id") == name for one in known):
        raise UsageError(f"there is a model {name} that Kuulo did not write", looked_at=where, do="--as ANOTHER-NAME")
    indent = (re.findall(r"^( *)- ", text, re.M) or [""])[0]
    lines = yaml.safe_dump([dict(entry)], sort_keys=False, allow_unicode=True, width=1000).splitlines()
    gap = "" if not text or text.endswith("\n") else "\n"
    block = "".join(f"{indent}{line}\n" for line in (_begin(name), *lines, _end(name)))
    made = f"{text}{gap}{block}"
    if _parsed(made, where) != [*known, dict(entry)]:
        raise UsageError("the file cannot take an entry at its end", looked_at=where, do=f"add it by hand:\n{block}")
    return made


def without_entry(text: str, name: str) -> str:
    """The text without our entry of that name, else as it is."""
    return re.sub(rf"^ *{re.escape(_begin(name))}\n.*?^ *{re.escape(_end(name))}\n?", "", text, flags=re.M | re.S)


def _begin(name: str) -> str:
    return f"# {name}: written by `kuulo llm publish`"


def _end(name: str) -> str:
    return f"# {name}: end"


def _parsed(text: str, where: str) -> list[Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"the file of llm's models is not YAML: {reason}", looked_at=where) from error
    if found is None:
        return []
    if not isinstance(found, list):
        raise UsageError("the file of llm's models is no list", looked_at=where)
    return found


def _keys(path: Path) -> dict[str, Any]:
    text = _read(path)
    try:
        known = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise UsageError("the file of llm's keys is not JSON", looked_at=str(path)) from error
    if not isinstance(known, dict):
        raise UsageError("the file of llm's keys is JSON of another kind", looked_at=str(path))
    return known


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise CannotRun(f"a file of llm cannot be read: {error}", looked_at=str(path)) from error


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777 if path.exists() else 0o666


def _write(path: Path, text: str, mode: int) -> None:
    """A file that is a link stays one."""
    target = path.resolve() if path.is_symlink() else path
    if target.exists():
        atomic.write_bytes(target.with_name(target.name + BEFORE), target.read_bytes(), mode=0o600)
    atomic.write_bytes(target, text.encode("utf-8"), mode=mode)
