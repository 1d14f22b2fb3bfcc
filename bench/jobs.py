"""Measures planning and jobs, on a Slurm of several nodes that is started for it on this machine.

    python bench/jobs.py [planning|balance|asked|nodes ...] [--quick]

planning   10,000 recordings by their headers: seconds, and how often sbatch is called
balance    the longest of a plan's tasks over their mean, for lengths that are skewed
asked      what tasks take of the time that they ask for, once `kuulo calibrate` has measured
nodes      the same recordings on one node and on four: wall time, and efficiency (their ratio over the number of
           nodes). Once with an engine that waits, which tells what jobs cost, and once with one that computes, for
           which this machine has fewer cores than four nodes would have

Needs root or an ordinary user, and Slurm's packages (tests/slurm_cluster.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from kuulo.jobs import packing
from kuulo.jobs.batch import Item, Pace
from kuulo.jobs.packing import Aim, Costs
from run import machine
from speech import ROOT

sys.path.insert(0, str(ROOT / "tests"))
import slurm_cluster  # type: ignore[import-not-found]

KUULO = (sys.executable, "-P", "-m", "kuulo")
PARTS = ("planning", "balance", "asked", "nodes")
NODES = 4
NULL = ("-e", "null")


@contextlib.contextmanager
def cluster() -> Iterator[Any]:
    """A Slurm of four nodes, and of nobody else."""
    slurm_cluster._have_an_address()
    base = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    base.chmod(0o755)
    made = slurm_cluster.Cluster(base, nodes=NODES)
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Home:
    """A folder of the cluster's user, and `kuulo` in it."""

    def __init__(self, made: Any) -> None:
        self.cluster, self.folder = made, made.folder()
        self.environ = {"KUULO_JOBS": str(self.folder / "jobs"), "HOME": str(self.folder)}
        (self.folder / "in").mkdir()

    def own(self) -> None:
        """What was made here as root is the cluster's user's."""
        facts = self.folder.stat()
        for path in (self.folder / "in", *(self.folder / "in").iterdir()):
            os.chown(path, facts.st_uid, facts.st_gid)

    def kuulo(self, *words: str, **environ: str) -> str:
        done = self.cluster.run([*KUULO, *words], cwd=self.folder, env={**self.environ, **environ}, timeout=3600)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return str(done.stdout)

    def submit(self, *words: str) -> tuple[str, float]:
        """Submit and wait: the job, and the seconds from its first task's start to its last one's end."""
        said = json.loads(self.kuulo("submit", "in", "--mem", "800M", "--json", *words))
        self.kuulo("jobs", "wait", said["job"], "-q")
        events = [
            json.loads(line)
            for path in Path(said["folder"], "tasks").glob("*.jsonl")
            for line in path.read_text().splitlines()
            if line
        ]
        return said["job"], max(e["at"] for e in events) - min(e["at"] for e in events)


def silence(path: Path, seconds: float) -> None:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(2 * round(8000 * seconds)))


def planning(home: Home, *, quick: bool) -> list[str]:
    number = 1000 if quick else 10_000
    silence(home.folder / "in" / "r0.wav", 2)
    for n in range(1, number):
        os.link(home.folder / "in" / "r0.wav", home.folder / "in" / f"r{n}.wav")
    home.own()
    counted = home.folder / "bin"
    counted.mkdir()
    (counted / "sbatch").write_text(f'#!/bin/sh\necho >>{home.folder}/calls\nexec /usr/bin/sbatch "$@"\n')
    (counted / "sbatch").chmod(0o755)
    began = time.monotonic()
    words = ("submit", "in", *NULL, "-o", "out", "--json", "--slurm", "begin=now+3600", "--cpus", "1")
    said = json.loads(home.kuulo(*words, PATH=f"{counted}:{home.cluster.environ['PATH']}"))
    seconds = time.monotonic() - began
    calls = len((home.folder / "calls").read_text().splitlines())
    home.kuulo("jobs", "cancel", said["job"])
    return [
        f"{number} recordings submitted in {seconds:.1f} s, as {said['tasks']} tasks",
        f"sbatch was called {calls} times: for the array, and for what comes after it",
    ]


def balance(home: Home, *, quick: bool) -> list[str]:
    drawn = random.Random(3)
    lengths = [drawn.lognormvariate(2.5, 1.2) for _ in range(500)] + [300, 480, 900]
    items = [Item(Path(f"{n}"), PurePath(f"{n}"), round(m * 60_000), 1, 0) for n, m in enumerate(lengths)]
    costs = Costs(Pace(12.4, 20.0, 0.3, 1, "published", ""))
    tasks = packing.pack(items, costs, Aim(3600, 1000))
    times = [packing.task_s(task, items, costs) for task in tasks]
    shortest, longest = min(lengths) * 60, max(lengths) / 60
    return [
        f"{len(lengths)} recordings of {shortest:.0f} s to {longest:.0f} h in {len(tasks)} tasks: "
        f"longest over mean {max(times) * len(times) / sum(times):.3f}"
    ]


def asked(home: Home, *, quick: bool) -> list[str]:
    wait = 500 if quick else 2000
    for n in range(64):
        silence(home.folder / "in" / f"r{n}.wav", 450)
    home.own()
    option = ("--engine-option", f"wait_ms={wait}")
    # What a window takes is known here: a measurement, for a work that waits.
    seconds = 15 * wait / 1000
    work = {"engine": "null", "model": "", "device": "cpu", "cpus": 1, "diarizer": "", "batch_size": 1}
    one = {"work": work, "speed": 450 / seconds, "load_s": 1.0, "memory_bytes": 10**8, "audio_s": 450.0}
    one |= {"place": "slurm", "node": "", "at": "2026-11-23", "by": "calibrate"}
    state = home.folder / ".local" / "state" / "kuulo"
    state.mkdir(parents=True)
    (state / "speeds.json").write_text(json.dumps({"schema": 1, "observations": [one]}))
    for path in (home.folder / ".local", state.parent, state, state / "speeds.json"):
        os.chown(path, home.folder.stat().st_uid, home.folder.stat().st_gid)
    task = "1" if quick else "8"
    job, _ = home.submit(*NULL, *option, "-o", "out", "--cpus", "1", "--task-time", task, "--no-cut")
    used = json.loads(home.kuulo("usage", "--json"))["jobs"][job]
    return [
        f"tasks of about {task} min used {100 * used['time_used_of_asked']:.0f}% of the time that they asked for "
        "(1.3 times the estimate and 2 min, so longer tasks use more of it)"
    ]


def nodes(home: Home, *, quick: bool) -> list[str]:
    lines = []
    for n in range(8):
        silence(home.folder / "in" / f"r{n}.wav", 300 if quick else 900)
    home.own()
    wait = ("--engine-option", "wait_ms=500")
    lines += _one_and_four(home, "an engine that waits", (*NULL, *wait))
    for path in (home.folder / "in").iterdir():
        path.unlink()
    _speech(home, 60 if quick else 240)
    lines += _one_and_four(home, "the miniature, which computes", ("-m", "miniature", "-l", "en"))
    return lines


def _one_and_four(home: Home, what: str, words: tuple[str, ...]) -> list[str]:
    same = (*words, "--cpus", "1", "--task-time", "0:20", "--no-cut", "--workers", "1", "--existing", "overwrite")
    # As many tasks of the same size in both: what differs is how many run at a time.
    took = [home.submit(*same, "-o", f"out{n}", "--array-limit", str(n))[1] for n in (1, NODES)]
    ratio = took[0] / took[1]
    return [
        f"{what}: one node {took[0]:.1f} s, {NODES} nodes {took[1]:.1f} s: {ratio:.2f} times as fast, "
        f"efficiency {100 * ratio / NODES:.0f}%; the machine has {os.cpu_count()} cores"
    ]


def _speech(home: Home, seconds: int) -> None:
    from kuulo.jobs.calibration import _sound

    class Folder:
        path = home.folder / "in"

    for n in range(8):
        _sound(Folder, [ROOT / "examples" / "synthetic.flac"], seconds / 60, n)  # type: ignore[arg-type]
    home.own()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without: all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter recordings")
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    with cluster() as made:
        for part in given.parts or PARTS:
            for line in globals()[part](Home(made), quick=given.quick):
                print(f"{part}: {line}", flush=True)
    print("\n".join(["", *(f"- {name}: {value}" for name, value in machine().items())]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
