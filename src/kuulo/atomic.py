"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes, mode: int = 0o666) -> None:
    """`path` holds `data` afterwards, on the disk, or is what it was before.

    Raises OSError when the folder is missing, not writable or full; nothing is left behind then. The data goes to a
    temporary file in the same folder, so that putting it in place is one step of the file system; there is no lock,
    since shared file systems may have none: of two writers the last one wins, whole."""
    temporary = path.with_name(_temporary_name())
    # The mode is narrowed by the umask: results in a shared folder are as readable as the user's other files.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # also when interrupted
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, obj: Any) -> None:
    """Like `write_bytes`, with `encode_json(obj)`."""
    write_bytes(path, encode_json(obj))


def encode_json(obj: Any) -> bytes:
    """`obj` as JSON for people and machines: UTF-8, indented, with a line end.

    A text with half a surrogate pair cannot be UTF-8: then everything beyond ASCII is written as `\\u` escapes, which
    reads back as the same. A number that is not finite becomes null, since JSON has no word for it."""
    try:
        text = json.dumps(obj, ensure_ascii=False, indent=1, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(obj), ensure_ascii=False, indent=1, allow_nan=False)
    try:
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), indent=1).encode("ascii") + b"\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _temporary_name() -> str:
    """A name that no other process here or on another machine uses. It is short and not made from the target's,
    which may be as long as the file system allows."""
    host = "".join(c for c in socket.gethostname()[:32] if c.isascii() and (c.isalnum() or c in "-."))
    return f".kuulo-{host}-{os.getpid()}-{secrets.token_hex(6)}.tmp"
