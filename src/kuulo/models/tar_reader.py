"""Reads the tar of a bundle once, from its beginning to its end, as it comes out of a pipe, and believes nothing of it.

Each member must be the one that is asked for: of that name, an ordinary file, and of the size that the model's manifest
says. So paths that lead elsewhere, links, devices, duplicates and what is too large have no way in.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, Any, cast

from kuulo.errors import ModelMissing
from kuulo.models.bundle import MOST, TOP
from kuulo.models.files import CHUNK


def not_whole(why: str, looked_at: str) -> ModelMissing:
    """What to tell people of a bundle that is not believed."""
    return ModelMissing(
        f"this bundle is not what it should be: {why}",
        looked_at=looked_at,
        do="copy it again, or make it again with kuulo models bundle; models that are in the store already are skipped",
    )


class _Forward:
    """A stream that is read once, for tarfile, which wants to seek: forward by reading. It takes no large reads, which
    tarfile would do for a header that says it is large."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._at = 0

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        if not 0 <= count <= CHUNK:
            raise tarfile.ReadError(f"a header of {count} bytes")
        try:
            data = self._stream.read(count)
        except OSError as error:
            raise tarfile.ReadError(error.strerror or str(error)) from error
        self._at += len(data)
        return data

    def seek(self, position: int) -> int:
        if position < self._at:
            raise tarfile.ReadError("a header that leads back")
        while self._at < position and self.read(min(CHUNK, position - self._at)):
            pass
        return self._at


class TarReader:
    """A bundle's tar. Each file is asked for by its name, and must be the next."""

    def __init__(self, stream: IO[bytes], looked_at: str) -> None:
        self._looked_at = looked_at
        self._stream = _Forward(stream)
        self._tar = tarfile.TarFile(fileobj=cast(Any, self._stream), mode="r")

    def small(self, name: str) -> bytes:
        """A list or manifest, whole."""
        size = self._next(name)
        if size > MOST:
            raise not_whole(f"{name} is of {size} bytes", self._looked_at)
        return b"".join(self._content(size, name))

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """A file of this size, in pieces."""
        said = self._next(name)
        if said != size:
            raise not_whole(f"{name} is of {said} bytes, and should have {size}", self._looked_at)
        yield from self._content(size, name)

    def end(self) -> None:
        """Nothing more may come. What fills the last block is read too: who sends it is not cut off."""
        if self._tar.next() is not None:
            raise not_whole("more is in it than its list says", self._looked_at)
        while self._stream.read(CHUNK):
            pass

    def _next(self, name: str) -> int:
        member = self._tar.next()
        if member is None:
            raise not_whole(f"it ends before {name}", self._looked_at)
        if member.name != f"{TOP}/{name}":
            raise not_whole(f"{member.name!r} is where {name} should be", self._looked_at)
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise not_whole(f"{name} is no ordinary file in it", self._looked_at)
        self._stream.seek(member.offset_data)
        return member.size

    def _content(self, size: int, name: str) -> Iterator[bytes]:
        left = size
        while left:
            chunk = self._stream.read(min(CHUNK, left))
            if not chunk:
                raise not_whole(f"it ends within {name}", self._looked_at)
            left -= len(chunk)
            yield chunk
