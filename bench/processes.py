"""Runs programs and tells what they took."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Took:
    """`wall_s` and `cpu_s` (of the program and what it started) in seconds; `peak_bytes` as `peaks` counts it."""

    wall_s: float
    cpu_s: float
    peak_bytes: int = 0


def run(command: Sequence[str], environ: Mapping[str, str], log: Path, *, memory: bool = False) -> Took:
    """What `command` took. What it prints goes to `log`. Raises RuntimeError with the end of it when it fails.

    `memory`: look at its memory while it runs, which takes a little time from it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        peak = _watch(process) if memory else 0
        code = process.wait()
        wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code != 0:
        end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"exit code {code} from {' '.join(command)[:300]}\n{end}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, cpu, peak)


def _watch(process: subprocess.Popen[bytes]) -> int:
    highest: dict[int, int] = {}
    while process.poll() is None:
        highest |= peaks(process.pid)
        time.sleep(SAMPLE_SECONDS)
    return sum(highest.values())


def peaks(pid: int) -> dict[int, int]:
    """Bytes at the highest (VmHWM) of a process and of all that it started, by process id."""
    found: dict[int, int] = {}
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text(encoding="utf-8")
            tasks = os.listdir(f"/proc/{one}/task")  # noqa: PTH208
            for task in tasks:
                children = Path(f"/proc/{one}/task/{task}/children").read_text(encoding="ascii")
                waiting += [int(child) for child in children.split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                found[one] = int(line.split()[1]) * 1024
    return found


def rounds(times: int, *contestants: Callable[[], Took]) -> list[tuple[Took, ...]]:
    """`times` rounds in which each contestant has its turn. Every second round goes backwards, so that a machine that
    grows slower or quicker favours nobody."""
    results = []
    for number in range(times):
        order = list(range(len(contestants)))
        if number % 2:
            order.reverse()
        took = {index: contestants[index]() for index in order}
        results.append(tuple(took[index] for index in range(len(contestants))))
    return results
