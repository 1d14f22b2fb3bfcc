"""Compares the Whisper engines on the same clips with the same model, the miniature, and writes the table.

    python bench/engines.py [--page]

Every engine that is installed hears the clips in `tests/audio/miniature/`, greedy, with two threads, once with word
times and once without: words, languages, times, speed and memory. `--page` writes docs/engines/comparison.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import engines
from kuulo.engines.base import EngineSpec
from kuulo.formats.json import read_master
from kuulo.miniature.writers import WRITERS
from processes import run
from run import machine

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "miniature"))
from scores import Score, heard_parts, said_parts  # noqa: E402

CLIPS = ROOT / "tests" / "audio" / "miniature"
PAGE = ROOT / "docs" / "engines" / "comparison.md"
COPIES = 5
"""Each clip is heard so often, for the speed."""

HEAD = (
    "engine", "words wrong", "language right", "sentence ends, s", "words' times, s", "times real time",
    "with word times", "memory",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What one engine did. `speeds`: seconds of audio in a second of the run without loading the model, without word
    times and with (None: it has none)."""

    engine: str
    version: str
    figures: dict[str, Any]
    speeds: tuple[float, float | None]
    peak_bytes: int

    def cells(self) -> tuple[str, ...]:
        """As in HEAD."""
        wrong = round(self.figures["word_error_rate"] * self.figures["words"])
        plain, timed = self.speeds
        return (
            f"{self.engine} {self.version}",
            f"{wrong} of {self.figures['words']}",
            f"{self.figures['language_right'] * 100:.0f} %",
            pair(self.figures["end_error_s"]),
            pair(self.figures["word_time_error_s"]),
            f"{plain:.0f}",
            "-" if timed is None else f"{timed:.0f}",
            f"{self.peak_bytes / 1e6:.0f} MB",
        )


def pair(values: list[float] | None) -> str:
    return "-" if values is None else f"{values[0]:.2f} / {values[1]:.2f}"


def whispers() -> list[EngineSpec]:
    """Engines that are installed and have a format that the miniature can be written in."""
    return [s for s in engines.specs() if set(s.model_formats) & set(WRITERS) and engines.installed(s)]


def measure(spec: EngineSpec, store: Path, scratch: Path) -> Row:
    """Lets the engine hear all clips. Raises RuntimeError with what it printed when it fails."""
    environ = {**os.environ, "KUULO_STORE": str(store), "PYTHONPATH": str(ROOT / "src")}
    said = json.loads((CLIPS / "texts.json").read_text(encoding="utf-8"))
    folder = scratch / "clips"
    if not folder.exists():
        folder.mkdir()
        for name in said:
            for copy in range(COPIES):
                shutil.copy(CLIPS / f"{name}.flac", folder / f"{name}-{copy}.flac")
    speeds: list[float | None] = []
    peaks = []
    figures: dict[str, Any] = {}
    for timed in (False, True):
        if timed and "word_times" not in spec.options:
            speeds.append(None)
            continue
        out = scratch / f"{spec.name} {timed}"
        command = [sys.executable, "-m", "kuulo.cli", "transcribe", str(folder), "-m", "miniature", "-e", spec.name]
        wanted = {
            "beam_size": ["--beam-size", "1"],
            "temperature": ["--temperature", "0"],
            "threads": ["--threads", "2"],
        }
        for option, flags in wanted.items():
            command += flags if option in spec.options else []
        command += ["--workers", "1", "-o", str(out), "-f", "json", *(["--word-times"] if timed else [])]
        took = run(command, environ, scratch / "log", memory=True)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        heard_ms = sum(f["audio_ms"] for f in report["files"])
        speeds.append(heard_ms / (report["elapsed_ms"] - report["load_ms"]))
        peaks.append(took.peak_bytes)
        figures = score(out, said)
    version = importlib.metadata.version(spec.package)
    plain, with_words = speeds
    assert plain is not None
    return Row(spec.name, version, figures, (plain, with_words), max(peaks))


def score(out: Path, said: dict[str, Any]) -> dict[str, Any]:
    """The figures of what was written into `out`."""
    score_ = Score()
    for name, clip in said.items():
        found = read_master(out / f"{name}-0.json")
        right = not clip["language"] or found.language == clip["language"]
        score_.add(said_parts(clip), heard_parts(found.segments), right)
    return score_.figures()


def page(rows: list[Row], command: str) -> str:
    """The page, in Markdown."""
    lines = [" | ".join(line) for line in (HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows))]
    about = machine()
    return f"""# The engines compared

Written by `{command}`. Every Whisper engine that is installed heard the same clips
(`tests/audio/miniature/`: English, Finnish, Swedish, silence, music; some of them sentences and voices that were not
trained on) with the same model, the built-in [miniature](../models.md#the-miniature), greedy, one worker with two
threads, the language detected.

{chr(10).join(f"| {line} |" for line in lines)}

Times: median / 90th percentile of how far they are from the truth, of sentence ends, and of words' starts and ends in
clips without a wrong word. Speed: seconds of audio in a second of the run, decoding and writing included, loading the
model not; every clip five times; without and with word times. Memory: Kuulo and its worker at the highest.

The miniature is far smaller than any model for real use: its speeds compare what surrounds a model, not what a large
model costs, and its words say that an engine is right, not how good Whisper is.

- date: {about["date"]}
- processor: {about["processor"]}
- Python: {about["Python"]}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write docs/engines/comparison.md")
    parser.add_argument("--engine", action="append", help="only this one; may be repeated")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [s for s in whispers() if not given.engine or s.name in given.engine]
        rows = []
        for spec in chosen:
            print(f"{spec.name} ...", file=sys.stderr, flush=True)
            rows.append(measure(spec, Path(scratch, "store"), Path(scratch)))
    text = page(rows, "python bench/engines.py --page")
    print(text)
    if given.page:
        PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
