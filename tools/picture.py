"""Writes docs/img/demo.svg: the terminal of a real run on the recording in examples/.

    python tools/picture.py

Runs `kuulo transcribe` in an empty folder with an empty home, so that the built-in engine serves, and draws what it
printed. Times in it are this machine's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "img" / "demo.svg"
ARGUMENTS = ["transcribe", "jfk.flac", "--print"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "jfk.flac").symlink_to(ROOT / "examples" / "jfk.flac")
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("KUULO_", "XDG_"))}
        environ |= {"HOME": folder, "COLUMNS": "92", "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "kuulo", *ARGUMENTS],
            cwd=folder, env=environ, text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=96, file=nowhere)
        console.print(Text("$ ", style="green") + Text(f"kuulo {' '.join(ARGUMENTS)}", style="bold"))
        console.print(Text(done.stdout.rstrip()))
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        console.save_svg(str(PICTURE), title="kuulo", unique_id="kuulo")


if __name__ == "__main__":
    main()
