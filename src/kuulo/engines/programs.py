"""Engines that are programs alone: a recording becomes a WAV file, the program hears it, and what it wrote is read.

Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any, Collection, List, Mapping, Optional, Sequence, Tuple

from kuulo.engines.base import SAMPLE_RATE, Refused, Unusable

LAST_LINES = 8
"""How much of what a program said stands in the error when it fails; all of it is in the log."""

TEXT = {"encoding": "utf-8", "errors": "replace"}


class Failed(RuntimeError):
    """A program did not do what it was started for."""


def find(name: str) -> str:
    """The program beside this interpreter, or else on the PATH; raises Unusable."""
    beside = Path(sys.executable).parent / name
    if os.access(beside, os.X_OK):
        return str(beside)
    found = shutil.which(name)
    if found is None:
        raise Unusable(f"there is no program {name} beside {sys.executable} nor on the PATH", "install it anew")
    return found


def find_in(folders: Sequence[str], name: str) -> Optional[str]:
    """The program in the first of the folders that has it."""
    for folder in folders:
        path = Path(folder) / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def not_yours(name: str) -> Refused:
    """What is said of a raw option that is reserved."""
    return Refused(f"--engine-option {name} is not for you to set: Kuulo does, or it is not safe", "leave it out")


def flags(raw: Mapping[str, Any], reserved: Collection[str]) -> List[str]:
    """Raw options as a program's flags: `flash_attn=on` -> `--flash-attn on`; true is the flag alone, false its
    `--no-`. Raises Refused for those that are `reserved`: Kuulo sets them, or they would open a server or run code."""
    words: List[str] = []
    for name, value in raw.items():
        called = name.replace("_", "-").lstrip("-")
        if called in reserved:
            raise not_yours(name)
        if isinstance(value, bool):
            words.append(f"--{called}" if value else f"--no-{called}")
        else:
            words += [f"--{called}", value if isinstance(value, str) else json.dumps(value)]
    return words


def write_wav(samples: Any, path: Path) -> None:
    """16 bit, 16 kHz, mono, of samples from -1 to 1; what is beyond is cut."""
    import numpy as np

    pcm = np.clip(np.rint(np.asarray(samples, dtype=np.float32) * 32768.0), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(pcm.tobytes())


def run(arguments: List[str], folder: Path, extra: Optional[Mapping[str, str]] = None) -> str:
    """What the program said, on both streams, when it ended well; that goes to the log too. Raises Failed with its
    last lines. `folder` is where it stands; `extra` is added to the environment."""
    done = subprocess.run(
        arguments,
        cwd=str(folder),
        env={**os.environ, **(extra or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode(**TEXT)
    sys.stderr.write(said)
    if done.returncode != 0:
        ended = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        raise Failed(f"{Path(arguments[0]).name} {ended}: {last_lines(said)}")
    return said


def read(path: Path, said: str) -> str:
    """The text of a file that a program should have written; raises Failed, with its last lines, without one."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise Failed(f"the program ended well and wrote no {path.name}: {last_lines(said)}") from error
    except UnicodeDecodeError as error:
        raise Failed(f"{path.name}, which the program wrote, is not UTF-8") from error


def last_lines(said: str) -> str:
    """Those that say something: in a traceback, Python marks with lines of ^ and ~ what it means."""
    lines: Tuple[str, ...] = tuple(line.strip() for line in said.splitlines() if line.strip(" \t^~"))
    return " | ".join(lines[-LAST_LINES:]) or "it said nothing"
