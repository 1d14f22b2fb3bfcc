"""Becomes the llama-server of the environment that this Python is of: `python -m kuulo.engines.llama_cpp_program ...`.

Where the environment is in a container image, nobody outside knows the program's path. Standard library alone; parses
on Python 3.9.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from kuulo.engines.programs import find_in

PROGRAM = "llama-server"


def main() -> int:
    """127 where there is none."""
    folders = [str(Path(sys.executable).parent), str(Path(sysconfig.get_path("platlib")) / "bin")]
    found = find_in([*folders, *os.environ.get("PATH", "").split(os.pathsep)], PROGRAM)
    if found is None:
        sys.stderr.write(f"there is no {PROGRAM} beside {sys.executable}\n")
        return 127
    return os.execv(found, [found, *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
