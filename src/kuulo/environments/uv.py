"""uv, which makes virtual environments and installs into them. Its PyPI package brings the program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kuulo.errors import CannotRun

LAST_LINES = 12


def program() -> str:
    """The program uv: that of its Python package, else the one on the PATH. Raises CannotRun."""
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        found = shutil.which("uv")
        if found is None:
            raise CannotRun("uv, which makes environments, is not installed", do="pip install uv") from error
        return found


def make(folder: Path, python: str) -> Path:
    """An empty virtual environment; gives its interpreter. `python`: a specifier as >=3.9,<3.14 (then this very Python,
    if it is one of those), a version or a path. No Python is fetched. Raises CannotRun."""
    try:
        fits = "{}.{}.{}".format(*sys.version_info[:3]) in SpecifierSet(python)
    except InvalidSpecifier:
        fits = False
    flags = ["--no-python-downloads", "--no-project", "--relocatable", "--allow-existing", "--quiet"]
    run(["venv", *flags, "--python", sys.executable if fits else python, str(folder)])
    return folder / "bin" / "python"


def packages(interpreter: Path) -> dict[str, str]:
    """Distribution -> version of all that is installed in a virtual environment."""
    said = run(["pip", "list", "--python", str(interpreter), "--format", "json", "--quiet"])
    return {item["name"]: item["version"] for item in json.loads(said)}


def version(interpreter: Path) -> str:
    """Of a Python, as 3.11.7."""
    asked = [str(interpreter), "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def run(arguments: Sequence[str], *, shown: bool = False, environ: Mapping[str, str] | None = None) -> str:
    """What uv writes to standard output. `shown`: its progress is copied to standard error as it comes; `environ`: its
    variables, instead of ours. Raises CannotRun with its last words."""
    process = subprocess.Popen([program(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[bytes] = []
    with process:
        try:
            for line in process.stderr:  # its output proper is short: it fits into the pipe meanwhile
                lines.append(line)
                if shown:
                    os.write(2, line)
            out = process.stdout.read()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise CannotRun(
            f"uv {' '.join(word for word in arguments[:2] if word.isalpha())} failed (exit code {process.returncode})",
            looked_at=None if shown else b"".join(lines[-LAST_LINES:]).decode("utf-8", "replace").strip() or None,
            do="read what it says above" if shown else None,
        )
    return out.decode()
