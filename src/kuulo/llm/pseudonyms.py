"""A project's key: which pseudonym stands for what. With it everything can be undone, so it is a file that its owner
alone may read, outside of the folders with results.

    {"schema": 1, "project": "...", "entries": [{"pseudonym": "Person 1", "kind": "person", "base": "Anna",
     "forms": ["Anna", "Annan"]}], "found": {SHA256 of a transcript: {"by": ..., "names": [...]}}}

`found` is what the model found in a transcript, so that a project that has grown is written anew without asking again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo import atomic, naming, site
from kuulo.errors import CannotRun, UsageError

SCHEMA = 1
KINDS: dict[str, str] = {
    "contact": "Contact",
    "date": "Date",
    "number": "Number",
    "organisation": "Organisation",
    "other": "Detail",
    "person": "Person",
    "place": "Place",
}
"""What is replaced, and what its pseudonyms are called."""


@dataclass
class Entry:
    """`base`: what the forms are forms of. A form is as it stands in a text."""

    pseudonym: str
    kind: str
    base: str
    forms: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """What stands in the text instead."""
        return f"[{self.pseudonym}]"


@dataclass
class Key:
    """A project's key. Changed in memory, written by `write`."""

    path: Path
    project: str
    entries: list[Entry] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    _known: dict[tuple[str, str], Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = {
            (entry.kind, _fold(text)): entry for entry in self.entries for text in [entry.base, *entry.forms]
        }

    def entry(self, kind: str, form: str, base: str = "") -> Entry:
        """The entry of a form, a new one when there is none; the form is in it then."""
        base = base or form
        entry = self._known.get((kind, _fold(form))) or self._known.get((kind, _fold(base)))
        if entry is None:
            number = 1 + sum(known.kind == kind for known in self.entries)
            entry = Entry(f"{KINDS[kind]} {number}", kind, base)
            self.entries.append(entry)
        for text in (base, form):
            self._known.setdefault((kind, _fold(text)), entry)
        if form not in entry.forms:
            entry.forms.append(form)
        return entry

    def write(self) -> None:
        """Raises CannotRun."""
        data = {
            "schema": SCHEMA,
            "project": self.project,
            "entries": [vars(entry) for entry in self.entries],
            "found": self.found,
        }
        try:
            atomic.write_bytes(self.path, atomic.encode_json(data), mode=0o600)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


def default_path(project: str) -> Path:
    """Where the key of a project is; raises UsageError for a name that is none."""
    if not re.fullmatch(r"[\w][\w .-]{0,80}", project):
        raise UsageError(
            f"{project!r} is no name for a project", do="letters, digits, spaces, - and .: -p project NAME"
        )
    return site.user_data_folder() / "pseudonyms" / f"{project}.json"


@contextmanager
def opened(path: Path, project: str) -> Iterator[Key]:
    """The key, for this process alone as long as the block lasts. Raises UsageError when others may read it or it is
    none, CannotRun when it cannot be used or another run is at it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotRun(
                "another run is at this project's key", looked_at=naming.shown(path), do="wait until it has ended"
            ) from error
        except OSError:  # a file system without locks: the last one wins, whole
            pass
        yield _read(path, project)
    finally:
        os.close(lock)


def _read(path: Path, project: str) -> Key:
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except FileNotFoundError:
        return Key(path, project)
    except OSError as error:
        raise _unwritable(path, error) from error
    if mode & 0o077:
        raise UsageError(
            f"others may read the key of the pseudonyms (its mode is {mode & 0o777:o})",
            looked_at=naming.shown(path),
            do=f"chmod 600 {naming.shown(path)}",
        )
    try:
        data = json.loads(content)
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise ValueError(f"it has no schema {SCHEMA}")
        entries = [Entry(e["pseudonym"], e["kind"], e["base"], [str(f) for f in e["forms"]]) for e in data["entries"]]
        if unknown := [entry.kind for entry in entries if entry.kind not in KINDS]:
            raise ValueError(f"it has a kind {unknown[0]!r}")
        return Key(path, str(data.get("project", project)), entries, dict(data.get("found", {})))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "a file is no key of pseudonyms", looked_at=f"{naming.shown(path)}: {error}", do="name another with -p key"
        ) from error


def _unwritable(path: Path, error: OSError) -> CannotRun:
    return CannotRun(
        f"the key of the pseudonyms cannot be used: {error.strerror or error}",
        looked_at=naming.shown(path),
        do="name another with -p key FILE",
    )
