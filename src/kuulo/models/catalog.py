"""The models that can be pulled: catalog.toml as types.

entry, source = catalog.find("turbo", "ct2")
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo.errors import UsageError

FILE = Path(__file__).with_name("catalog.toml")
FORMATS = ("ct2", "ggml", "gguf", "hf", "hf-text", "nemo", "onnx", "pt", "pyannote", "speakers-onnx")
LAST_RANK = 1000
"""Of a model that is not in the catalogue."""


@dataclass(frozen=True)
class Taken:
    """A file of a repository: its name there, and its digest where that was seen."""

    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """Where a model comes from in one format.

    `repo`, `revision`: a Hugging Face repository and commit; revision "" when none was seen. `path`: instead, the
    end of an address on OpenAI's server. `file`: the one file of a ggml, gguf or nemo model. `sha1`, `sha256`: of it.
    `take`: by their names in the model's folder, the files to take; empty for those that the format wants. `parts`:
    more repositories, whose files come into the same folder. `licence`: of this repository, where it is not the
    model's."""

    format: str
    repo: str | None = None
    revision: str = ""
    path: str | None = None
    file: str | None = None
    sha1: str | None = None
    sha256: str | None = None
    size: str | None = None
    licence: str | None = None
    take: Mapping[str, Taken] = field(default_factory=dict)
    parts: tuple[Source, ...] = ()

    @property
    def all(self) -> tuple[Source, ...]:
        """This one and its parts."""
        return (self, *self.parts)


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue; `sources` by format. `gated`: whether terms must be accepted first, as it was when the
    catalogue was written; the hub says how it is."""

    name: str
    rank: int
    licence: str
    aliases: tuple[str, ...] = ()
    gated: bool = False
    sources: Mapping[str, Source] = field(default_factory=dict)


@functools.cache
def load(file: Path = FILE) -> Mapping[str, Entry]:
    """The entries by name, in the order of their rank."""
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    entries = sorted((_entry(row) for row in data["model"]), key=lambda entry: entry.rank)
    return {entry.name: entry for entry in entries}


def canonical(name: str) -> str:
    """The catalogue's name for an alias (turbo -> large-v3-turbo); any other name as it is."""
    return next((entry.name for entry in load().values() if name in entry.aliases), name)


def rank(name: str) -> int:
    """Which is taken first when nobody names a model: the lowest. LAST_RANK for one that is not known."""
    entry = load().get(canonical(name))
    return entry.rank if entry else LAST_RANK


def find(name: str, format_: str | None = None) -> tuple[Entry, Source]:
    """The entry and where it comes from, in the first format that it has when none is given; raises UsageError."""
    entry = load().get(canonical(name))
    if entry is None:
        close = near(name, load())
        raise UsageError(
            f"the catalogue has no model {name!r}",
            do=f"did you mean {close}?" if close else "`kuulo models list --catalog` shows what there is",
        )
    format_ = format_ or next(iter(entry.sources))
    if format_ not in entry.sources:
        raise UsageError(
            f"the catalogue has {entry.name} not as {format_}",
            looked_at=f"it has it as {', '.join(entry.sources)}",
            do=f"kuulo models pull {entry.name} --format {next(iter(entry.sources))}",
        )
    return entry, entry.sources[format_]


def near(name: str, names: Iterable[str]) -> str | None:
    """The name that is most like this one."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1)
    return close[0] if close else None


def _entry(row: dict[str, Any]) -> Entry:
    sources = {format_: _source(format_, row[format_]) for format_ in FORMATS if format_ in row}
    return Entry(
        name=row["name"],
        rank=row["rank"],
        licence=row["licence"],
        aliases=tuple(row.get("aliases", ())),
        gated=row.get("gated", False),
        sources=sources,
    )


def _source(format_: str, row: dict[str, Any]) -> Source:
    assert bool(row.get("revision")) or row.get("seen") is False or "path" in row, row
    taken = {name: Taken(file["from"], file.get("sha256")) for name, file in row.get("take", {}).items()}
    parts = tuple(_source(format_, part) for part in row.get("parts", ()))
    plain = {key: value for key, value in row.items() if key not in ("seen", "take", "parts")}
    return Source(format=format_, take=taken, parts=parts, **plain)
