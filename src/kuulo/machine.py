"""What this process may use of the machine: cores, memory, GPUs. Limits given by Slurm and cgroups count, not what
the machine has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """`cores` and `memory_bytes` are what we may use; `gpus` counts NVIDIA devices that are visible to us."""

    cores: int
    memory_bytes: int
    gpus: int


def has_process(pid: int) -> bool:
    """Whether a process of this number runs here, also one of somebody else's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def this() -> Machine:
    """The machine that we are on."""
    return Machine(cores(), memory_bytes(), gpus())


def cores() -> int:
    """CPU cores that we may use: affinity, the cgroup's quota and SLURM_CPUS_PER_TASK, whichever is least."""
    limits = [len(os.sched_getaffinity(0))]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm) > 0:
        limits.append(int(slurm))
    quota = _cgroup_quota()
    if quota:
        limits.append(quota)
    return max(1, min(limits))


def _cgroup_quota() -> int | None:
    """Whole cores in this cgroup's (version 2) cpu.max, rounded down but at least 1; None without a limit."""
    limits = []
    for folder in _cgroup_folders():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            limits.append(max(1, int(quota) // int(period)))
    return min(limits, default=None)


def memory_bytes() -> int:
    """Memory that is free for us: what the kernel calls available, or what the cgroup leaves, if less."""
    limits = [_available()]
    for folder in _cgroup_folders():
        try:
            most = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
        except (OSError, ValueError):
            continue
        if most != "max":
            limits.append(max(0, int(most) - used))
    return min(limits)


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_folders() -> list[Path]:
    """This process's cgroup (version 2) and those above it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        if line.startswith("0::"):
            folder = CGROUP / line[3:].lstrip("/")
            return [f for f in (folder, *folder.parents) if f == CGROUP or CGROUP in f.parents]
    return []


def gpus() -> int:
    """NVIDIA devices visible to us (nothing of CUDA is loaded)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([v for v in visible.split(",") if v.strip() not in ("", "-1", "NoDevFiles")])
    return len([d for d in Path("/dev").glob("nvidia*") if d.name[6:].isdigit()])
