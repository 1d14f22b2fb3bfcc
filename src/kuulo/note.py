"""What an output folder notes about a recording's results: where the recording is, and what Kuulo wrote.

A result whose digest is not noted was not written by Kuulo, or was changed since. Digests stay when a result is
written anew, so that whatever a killed run leaves is known.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

from kuulo import atomic


@dataclasses.dataclass(frozen=True)
class Note:
    """`place`: the recording's absolute path, None when it is not known. `written`: lines `FORMAT SHA256`.

    In its file the place comes first, then NUL, which no path has, then the lines."""

    place: bytes | None = None
    written: frozenset[bytes] = frozenset()

    @classmethod
    def read(cls, path: Path) -> Note:
        """The note in a file; an empty one when there is none. Raises OSError."""
        try:
            place, _, lines = path.read_bytes().partition(b"\0")
        except FileNotFoundError:
            return cls()
        return cls(place, frozenset(lines.splitlines()))

    def extended(self, place: bytes, contents: Mapping[str, bytes]) -> Note:
        """With the recording's place now, and the formats that are about to be written."""
        return Note(place, self.written | {_line(name, content) for name, content in contents.items()})

    def wrote(self, format_: str, content: bytes) -> bool:
        """Whether Kuulo wrote this as a file of the format."""
        return _line(format_, content) in self.written

    def write(self, path: Path) -> None:
        """Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, (self.place or b"") + b"\0" + b"\n".join(sorted(self.written)))


def _line(format_: str, content: bytes) -> bytes:
    return f"{format_} {hashlib.sha256(content).hexdigest()}".encode()
