"""Reads the headers inside a binary model file, and notices where the file stops too early."""

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Damaged(Exception):
    """A model file is not what its format says; the message is one clause for people."""


class Reader:
    """A file read in order, little-endian. Every step past the end raises Damaged: the file is truncated."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = path.open("rb")
        self.size = path.stat().st_size
        self.at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def take(self, layout: str) -> tuple[Any, ...]:
        """The values of a `struct` layout (without its byte order)."""
        return struct.unpack(f"<{layout}", self.raw(struct.calcsize(f"<{layout}")))

    def raw(self, count: int) -> bytes:
        self._need(count)
        self.at += count
        return self._file.read(count)

    def skip(self, count: int) -> None:
        """Passes over `count` bytes without reading them."""
        self._need(count)
        self.at += count
        self._file.seek(self.at)

    def _need(self, count: int) -> None:
        if count < 0 or self.at + count > self.size:
            raise Damaged(f"{self.name} is truncated: it has {self.size} bytes and its header asks for more")
