"""What this process may use of the machine: cores, memory, GPUs. Limits given by Slurm and cgroups count, not what
the machine has.

Slurm's variables are those of sbatch(1) and srun(1), "OUTPUT ENVIRONMENT VARIABLES". They count also where cgroups
enforce nothing: who takes more than was asked for takes it from others, or is killed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
DEVICES = Path("/dev")
NO_LIMIT = 1 << 60
"""From here on a limit is none: version 1 writes 2^63, rounded down to a page."""


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
    """CPU cores that we may use: affinity, the cgroup's quota and Slurm's share for a task, whichever is least."""
    limits = [len(os.sched_getaffinity(0)), _slurm_cores(), _cgroup_quota()]
    return max(1, min(limit for limit in limits if limit))


def _slurm_cores() -> int | None:
    """What Slurm gives a task: the CPUs that were asked for, or its share of the job's on this node."""
    asked = _number("SLURM_CPUS_PER_TASK")
    on_node = _number("SLURM_CPUS_ON_NODE") or _on_this_node("SLURM_JOB_CPUS_PER_NODE")
    return asked or (max(1, on_node // _slurm_tasks()) if on_node else None)


def _slurm_tasks() -> int:
    """With how many we share the node's part of the job: the tasks of an srun step, or those that a batch script asked
    for by node."""
    return _on_this_node("SLURM_STEP_TASKS_PER_NODE") or _number("SLURM_NTASKS_PER_NODE") or 1


def _number(name: str) -> int:
    """A variable that is a number; 0 without it."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0


def _on_this_node(name: str) -> int:
    """This node's part of a variable with one for each ("2(x3),4"); 0 without it."""
    numbers: list[int] = []
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get(name, "")):
        numbers += [int(number)] * int(times or 1)
    node = _number("SLURM_NODEID")
    return numbers[node] if node < len(numbers) else 0


def _cgroup_quota() -> int | None:
    """Whole cores that the cgroup's quota gives, rounded down but at least 1; None without one."""
    pairs = [_read(folder / "cpu.max").split() for folder in _cgroup_folders("")]
    pairs += [
        [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")] for folder in _cgroup_folders("cpu")
    ]
    quotas = [int(pair[0]) // int(pair[1]) for pair in pairs if len(pair) == 2 and all(n.isdigit() for n in pair)]
    return max(1, min(quotas)) if quotas else None


def memory_bytes() -> int:
    """Memory that is free for us: what the kernel calls available, what the cgroup leaves, or Slurm's share for a
    task, whichever is least."""
    limits = [_available(), _slurm_memory()]
    for folder in _cgroup_folders(""):
        limits.append(_left(folder, "memory.max", "memory.current", ""))
    for folder in _cgroup_folders("memory"):
        limits.append(_left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))
    return min(limit for limit in limits if limit is not None)


def _available() -> int:
    for line in _read(MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _slurm_memory() -> int | None:
    """What Slurm gives a task; None where nothing was asked for, or all of the node (0)."""
    megabytes = (
        _number("SLURM_MEM_PER_NODE")
        or _number("SLURM_MEM_PER_CPU") * _number("SLURM_CPUS_ON_NODE")
        or _number("SLURM_MEM_PER_GPU") * _number("SLURM_GPUS_ON_NODE")
    )
    return megabytes * 2**20 // _slurm_tasks() or None


def _left(folder: Path, limit: str, used: str, prefix: str) -> int | None:
    """What a cgroup leaves; files that the kernel keeps in memory count as free, since it drops them when need be."""
    most, now = _read(folder / limit), _read(folder / used)
    if not (most.isdigit() and now.isdigit()) or int(most) >= NO_LIMIT:
        return None
    facts = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines())
    cached = sum(int(facts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return max(0, int(most) - max(0, int(now) - cached))


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """This process's cgroup of a controller and those above it; "" for version 2. In a container its path may be that
    outside, and only the topmost is there."""
    for line in _read(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            base = CGROUP / controllers
            base = base if base.is_dir() else CGROUP / controller
            folder = base / path.lstrip("/")
            yield from [f for f in (folder, *folder.parents) if f == base or base in f.parents]


def _read(path: Path) -> str:
    """A file's text without its last line break; nothing where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def gpus() -> int:
    """NVIDIA devices that are ours (nothing of CUDA is loaded): those that CUDA_VISIBLE_DEVICES names; where a site
    does not set it, as many of the devices that are here as Slurm gives us."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([v for v in visible.split(",") if v.strip() not in ("", "-1", "NoDevFiles")])
    here = len([d for d in DEVICES.glob("nvidia*") if d.name[6:].isdigit()])
    given = os.environ.get("SLURM_STEP_GPUS", os.environ.get("SLURM_JOB_GPUS"))
    return here if given is None else min(here, len([g for g in given.split(",") if g]))
