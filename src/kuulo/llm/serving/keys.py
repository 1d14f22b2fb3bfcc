"""A server's secret key: 256 bits in a file that its owner alone can read."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from kuulo import atomic
from kuulo.errors import CannotRun

PREFIX = "sk-"
"""What clients of OpenAI's API expect keys to begin with."""


def new(path: Path) -> str:
    """A fresh key, which is in the file `path` (0600) afterwards. Raises OSError."""
    key = PREFIX + secrets.token_urlsafe(32)
    atomic.write_bytes(path, key.encode("ascii") + b"\n", mode=0o600)
    return key


def read(path: Path) -> str:
    """The key in a file. Raises CannotRun."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise CannotRun(f"the server's key cannot be read: {error}", looked_at=str(path)) from error
    if len(key) < len(PREFIX) + 43:  # 256 bits in base64
        raise CannotRun("this is no server's key: it is too short", looked_at=str(path))
    return key


def opens(key: str, header: str) -> bool:
    """Whether an `Authorization` header has the key. Takes equally long for any wrong one."""
    scheme, _, given = header.partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), key.encode("ascii"))
    return scheme.lower() == "bearer" and same
