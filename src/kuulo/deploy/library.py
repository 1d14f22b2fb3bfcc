"""Kuulo itself in a version: a copy of this one's files, and a Python that has them and nothing of the user's.

What Kuulo needs beside itself is not copied: it stays in the environment from which it is deployed, which is told in
`python/pyvenv.cfg` and must be where the nodes see it. Another environment for a newer Kuulo leaves the deployed
versions as they are.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import kuulo
from kuulo.deploy.tree import Entry
from kuulo.environments import recipe

PYTHON = "python/bin/python"
LEFT_OUT = ("__pycache__", ".mypy_cache", ".ruff_cache")


def tree(folder: Path) -> dict[str, Entry]:
    """Kuulo and its Python, for a version that lies in `folder`. Raises OSError."""
    return {**_package(), **_python(folder), **_programs()}


@functools.cache
def _package() -> Mapping[str, Entry]:
    """Kuulo's own files, wherever the version lies: read once, also where two versions are compared."""
    source = Path(kuulo.__file__).parent
    found = {}
    for root, folders, files in os.walk(source):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in files:
            path = Path(root, name)
            if path.suffix != ".pyc":
                mode = 0o755 if os.access(path, os.X_OK) else 0o644
                found[f"lib/kuulo/{path.relative_to(source).as_posix()}"] = Entry(path.read_bytes(), mode)
    distribution = importlib.metadata.distribution("kuulo")
    said = distribution.read_text("METADATA")
    if said:  # so that the version is told of these files and not of what is installed later
        found[f"lib/kuulo-{distribution.version}.dist-info/METADATA"] = Entry(said.encode())
    return found


def _python(folder: Path) -> dict[str, Entry]:
    """A virtual environment (PEP 405) whose packages are, in this order, Kuulo's copy and those of this interpreter."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [str(folder / "lib"), *map(str, packages())]
    said = [
        f"home = {base.parent}",
        "include-system-site-packages = false",
        f"version = {sys.version.split()[0]}",
        f"executable = {base}",
        f"deployed-from = {sys.prefix}",
    ]
    return {
        PYTHON: Entry(target=str(base)),
        "python/pyvenv.cfg": Entry("".join(f"{line}\n" for line in said).encode()),
        f"python/lib/python{version}/site-packages/kuulo.pth": Entry("".join(f"{line}\n" for line in lines).encode()),
    }


def packages() -> list[Path]:
    """Where what Kuulo needs beside itself is."""
    return [Path(path) for path in dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib"))]


def _programs() -> dict[str, Entry]:
    """The engines' own programs that are installed beside Kuulo, for `kuulo run`."""
    here = Path(sys.executable).parent
    programs = {name for name in (recipe.read(engine).program for engine in recipe.names()) if name}
    return {f"python/bin/{name}": Entry(target=str(here / name)) for name in sorted(programs)
            if os.access(here / name, os.X_OK)}  # fmt: skip
