"""A worker with this interpreter, with caches of its own and nothing that could leave the machine."""

from __future__ import annotations

import site
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kuulo import caches
from kuulo.caches import OFFLINE

CACHES = caches.PRIVATE
"""Variables that decide where libraries write, and the folders in scratch that they get."""

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""glibc's malloc gives large blocks back at once and takes them anew, page by page, for each window and each step of
decoding: with CTranslate2 that was a sixth of the time. A worker keeps up to 256 MB instead. (mallopt(3))"""


class Here:
    """This interpreter, with all that is installed beside Kuulo."""

    def command(self, scratch: Path, reads: Sequence[Path]) -> list[str]:
        return self.python(scratch, ["-m", "kuulo.worker"])

    def python(self, scratch: Path, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, *arguments]

    def environment(self, scratch: Path, environ: Mapping[str, str]) -> dict[str, str]:
        return {**worker_environment(scratch, environ), "PYTHONUSERBASE": site.getuserbase()}

    def prepare(self, scratch: Path) -> None: ...


def for_program(scratch: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """For an engine's own program: offline, with caches in `scratch`, and nothing else changed. Home and temporary
    folder are the user's."""
    users = ("HOME", *caches.TEMPORARY)
    kept = {name: environ[name] for name in users if name in environ}
    private = {name: str(scratch / folder) for name, folder in CACHES.items() if name not in users}
    return {**caches.without(environ), **kept, **OFFLINE, **private}


def worker_environment(scratch: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What every worker has, wherever it runs."""
    private = {name: str(scratch / folder) for name, folder in CACHES.items()}
    return {
        **KEEP_MEMORY,
        **caches.without(environ),
        **OFFLINE,
        **private,
        # Not as many as the worker's threads: with one, some of OpenBLAS's kernels round differently than with more,
        # and the words of a recording would depend on how many others there are.
        "OPENBLAS_NUM_THREADS": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",  # a file random.py where the user stands is not Python's
        "PYTHONUTF8": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
