"""Measures Kuulo beside others, in one run on one machine, and prints ratios: below 1 is better than theirs.

    python bench/run.py [NAME...] [--quick] [--record]

Writes bench/out/results.json, and with --record bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
import time
from pathlib import Path

from measures import MEASURES, Bench, Result, Settings

BENCH = Path(__file__).resolve().parent
PACKAGES = ("ctranslate2", "faster-whisper", "kuulo", "numpy", "whisper-ctranslate2")
TITLE = "# Measured"
HEAD = ("measure", "against", "ours", "theirs", "ratio", "reach", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}; without: all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter recordings: a few minutes in all")
    parser.add_argument("--record", action="store_true", help="write RESULTS.md too")
    parser.add_argument("--size", default="tiny", help="shapes of the model: tiny, base, small, ... (default: tiny)")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--rounds", type=int, help="rounds in which each has its turn (default: 3, quick: 2)")
    parser.add_argument("--folder", type=Path, default=BENCH / "out", help="for models, recordings and results")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in MEASURES]:
        parser.error(f"no measure {unknown[0]!r}: there are {', '.join(MEASURES)}")
    settings = Settings(
        folder=given.folder,
        quick=given.quick,
        size=given.size,
        beam_size=given.beam_size,
        rounds=given.rounds or (2 if given.quick else 3),
    )
    bench, results = Bench(settings), []
    for name in given.names or MEASURES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        results += MEASURES[name](bench)
        write_json(given.folder / "results.json", results)
    print(table(results))
    for result in results:
        print(f"  {result.measure}: {'; '.join(result.notes)}")
    if given.record:
        rewritten(TITLE, report(results))
    return 0


def rows(results: list[Result]) -> list[tuple[str, ...]]:
    """The table's cells."""
    return [
        (
            r.measure,
            r.against,
            figure(r.ours, r.unit),
            figure(r.theirs, r.unit),
            f"{r.ratio:.3f}",
            f"≤ {r.reach:g}",
            "reached" if r.reached else "not reached",
        )
        for r in results
    ]


def figure(value: float, unit: str) -> str:
    """3.14 s, 92.9 MB, 9 clips"""
    if isinstance(value, int):
        return f"{value} {unit}"
    return f"{value:.{2 if value < 10 else 1}f} {unit}"


def table(results: list[Result]) -> str:
    """For a terminal."""
    lines = [HEAD, *rows(results)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def report(results: list[Result]) -> str:
    """RESULTS.md: the machine, the command, the table, the notes."""
    cells = ["| " + " | ".join(line) + " |" for line in (HEAD, ("---",) * len(HEAD), *rows(results))]
    notes = [f"- {r.measure}: {'; '.join(r.notes)}" for r in results]
    facts = [f"- {name}: {value}" for name, value in machine().items()]
    return "\n".join(
        [
            TITLE,
            "",
            "Written by `make bench BENCH=--record`. All was measured in one run, by turns. A ratio",
            "below 1 means that Kuulo took less.",
            "",
            *cells,
            "",
            *notes,
            "",
            "## Where and how",
            "",
            *facts,
            f"- command: `python bench/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}`",
            "",
        ]
    )


def rewritten(title: str, section: str) -> None:
    """Puts a section that begins with this title into RESULTS.md, in the place of the one that was there; those of
    other programs stay."""
    path = BENCH / "RESULTS.md"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    there = [one for one in re.split(r"^(?=# )", before, flags=re.MULTILINE) if one.strip()]
    mine = [number for number, one in enumerate(there) if one.partition("\n")[0] == title]
    there[mine[0] if mine else len(there) : mine[0] + 1 if mine else len(there)] = [section]
    path.write_text("\n".join(one.strip() + "\n" for one in there), encoding="utf-8")


def machine() -> dict[str, str]:
    """What a reader needs to know of this machine."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = {d.name: d.version for d in importlib.metadata.distributions() if d.name in PACKAGES}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": f"{cpu[0].partition(':')[2].strip() if cpu else platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory / 1e9:.0f} GB",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        "load at the end": " ".join(f"{load:.1f}" for load in os.getloadavg()) + " (1, 5, 15 min)",
    }


def write_json(path: Path, results: list[Result]) -> None:
    staging = path.with_name(path.name + ".new")
    content = {"machine": machine(), "results": [dataclasses.asdict(r) | {"reached": r.reached} for r in results]}
    staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    staging.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
