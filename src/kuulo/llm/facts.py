"""What `plan.resolve` needs to know, looked up: beside what recognition needs, what models take, GPUs, a key."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kuulo import survey
from kuulo.errors import UsageError
from kuulo.llm import options
from kuulo.llm.memory import Shape
from kuulo.llm.plan import ChatFacts
from kuulo.plan import Model
from kuulo.site import Settings, Site


def look(site: Site, settings: Settings, environ: Mapping[str, str] = os.environ) -> ChatFacts:
    """The ChatFacts of this machine under these settings."""
    return ChatFacts(
        facts=survey.facts(site),
        shape_of=shape_of,
        gpu_bytes=gpu_bytes(),
        key=read_key(settings.values, environ) if settings.values["endpoint"] else None,
    )


def shape_of(model: Model) -> Shape:
    """What a model's files tell, as far as they do."""
    from kuulo.models import check

    found: Any = check.text_shape(model.format, model.path)
    return found if isinstance(found, Shape) else Shape(model.bytes)


def read_key(values: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """An endpoint's key: of --key-file, else of a variable. Raises UsageError, also for a file that others may read."""
    named = values["key_file"]
    if named:
        return read_key_file(Path(str(named)).expanduser())
    if environ.get(options.KEY_VARIABLE):
        return environ[options.KEY_VARIABLE]
    if str(values["endpoint"]).startswith("https://api.openai.com/"):
        return environ.get("OPENAI_API_KEY") or None
    return None


def read_key_file(path: Path) -> str:
    """The key in a file that is its owner's alone. Raises UsageError."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError("the file with the key cannot be read", looked_at=str(path)) from error
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError("others may read the file with the key", looked_at=str(path), do="chmod 600 on it")
    if not text or any(c.isspace() for c in text) or not text.isascii():
        raise UsageError("the file with the key has none, or more than one word", looked_at=str(path))
    return text


def gpu_bytes() -> int | None:
    """Memory that is free on our GPUs together, by nvidia-smi; None where it cannot be told."""
    from kuulo import machine

    if not machine.gpus():
        return None
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return sum(int(line) for line in done.stdout.split()) * 2**20 or None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
