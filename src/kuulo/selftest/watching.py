"""Whether a GPU did the work, and for us: what NVIDIA's driver says while a run goes (kuulo.nvml).

A run has used a GPU when a process of it had memory on one, and that GPU was busy meanwhile. Processes are told by
their numbers: ours are the descendants of this process. In a container with process numbers of its own the driver may
give other numbers, or none: then a process counts that came after the run began, or, where none are shown, memory that
was taken since then; which of these it was is said.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from kuulo import nvml
from kuulo.doctor.finding import amount
from kuulo.nvml import Gpu
from kuulo.selftest.outcome import Stage

EVERY_S = 0.05
PROC = Path("/proc")

FIRST_NAMESPACE = "pid:[4026531836]"
"""The system's own namespace of process numbers: PROC_PID_INIT_INO in linux/proc_ns.h."""

LEAST_BYTES = 50_000_000
"""More than others' small changes: CUDA alone takes some hundred MB of a GPU for a process."""

CPU_DID_IT = "the CPU did the work"


@dataclass
class Seen:
    """What was seen of one GPU. Process -> the most bytes that it had, the most per cent that it kept it busy."""

    gpu: Gpu
    before: frozenset[int] = frozenset()
    used_before: int = 0
    used: int = 0
    had: dict[int, int] = field(default_factory=dict)
    ours: set[int] = field(default_factory=set)
    busy: int | None = None
    busy_by: dict[int, int] = field(default_factory=dict)

    @property
    def taken(self) -> int:
        return max(0, self.used - self.used_before)


class Watch:
    """Looks at the GPUs from `start` to `stop`, in a thread of its own."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.trouble = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._began = threading.Event()
        self._since_us = 0

    def start(self) -> None:
        """Returns when the state before the run is known."""
        self._since_us = int(time.time() * 1_000_000)
        self._thread.start()
        self._began.wait()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        try:
            with nvml.Nvml() as library:
                self._before(library)
                self._began.set()
                while not self._over.wait(EVERY_S):
                    self._sample(library)
        except nvml.Missing as error:
            self.trouble = str(error)
        finally:
            self._began.set()

    def _before(self, library: nvml.Nvml) -> None:
        processes = library.processes()
        for gpu in library.gpus():
            self.seen[gpu.uuid] = Seen(gpu, frozenset(processes.get(gpu.uuid, {})), gpu.used, gpu.used)

    def _sample(self, library: nvml.Nvml) -> None:
        busy, processes = library.busy(), library.processes()
        by_process = library.busy_by_process(self._since_us)
        for gpu in library.gpus():
            if gpu.uuid not in self.seen:
                continue
            seen = self.seen[gpu.uuid]
            seen.used = max(seen.used, gpu.used)
            now = busy.get(gpu.uuid)
            if now is not None:
                seen.busy = max(now, seen.busy or 0)
            for pid, size in processes.get(gpu.uuid, {}).items():
                seen.had[pid] = max(size or 0, seen.had.get(pid, 0))
                if pid not in seen.ours and is_descendant(pid, os.getpid()):
                    seen.ours.add(pid)
            for pid, per_cent in (by_process.get(gpu.uuid) or {}).items():
                seen.busy_by[pid] = max(per_cent, seen.busy_by.get(pid, 0))


def is_descendant(pid: int, of: int) -> bool:
    """Whether a process is a child of `of`, or a child's child, ..., or of such a one's session."""
    for _ in range(64):
        facts = _stat(pid)
        if facts is None:
            return False
        parent, session = facts
        if parent == of or (session != pid and _parent(session) == of):
            return True
        if parent <= 1:
            return False
        pid = parent
    return False


def _parent(pid: int) -> int | None:
    facts = _stat(pid)
    return facts[0] if facts else None


def _stat(pid: int) -> tuple[int, int] | None:
    """A process's parent and session (proc(5)); None when there is no such process."""
    try:
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[3])


def in_container() -> bool:
    """Whether our process numbers may not be those of the driver."""
    try:
        return os.readlink("/proc/self/ns/pid") != FIRST_NAMESPACE  # noqa: PTH115
    except OSError:
        return True


def judge(watch: Watch, device: str, *, hidden: bool) -> Stage:
    """Whether a GPU did the work. `device`: as the engine calls the one that it used. `hidden`: the driver's process
    numbers may be others than ours. Pure."""
    if watch.trouble:
        do = "run it where a GPU is: on a GPU node, in a container with --nv"
        return Stage("GPU", False, f"{CPU_DID_IT}: {watch.trouble}", "NVML", do)
    if not watch.seen:
        do = "ask for a GPU: in Slurm --gres=gpu:1"
        return Stage("GPU", False, f"{CPU_DID_IT}: the driver shows no GPU", "NVML", do)
    if device.partition(":")[0] == "cpu":
        do = "is it installed for CUDA? `kuulo doctor` compares its packages with the driver"
        return Stage("GPU", False, f"{CPU_DID_IT}: the engine says that its device was the CPU", _others(watch), do)
    told = [(seen, *_memory(seen, hidden=hidden)) for seen in watch.seen.values()]
    ours = [(seen, size, how) for seen, size, how in told if size is not None]
    if not ours:
        found = f"{CPU_DID_IT}: no process of this run had memory on a GPU"
        return Stage("GPU", False, found, _others(watch), "is it installed for CUDA? `kuulo doctor` tells")
    worked = [(seen, size, how, _busy(seen, hidden=hidden)) for seen, size, how in ours]
    for seen, size, how, (state, busy) in worked:
        if state is not False:
            return Stage("GPU", True, f"GPU {seen.gpu} {seen.gpu.name}: {how}{amount(size)}, {busy}", seen.gpu.uuid)
    seen, size, how, (_, busy) = worked[0]
    found = f"{CPU_DID_IT}: {how}{amount(size)} on GPU {seen.gpu}, and it was idle ({busy})"
    return Stage("GPU", False, found, seen.gpu.uuid, "the model may be on the GPU, and the computing is not")


def _memory(seen: Seen, *, hidden: bool) -> tuple[int | None, str]:
    """How much memory the run had on a GPU, None for none, and by what that is known."""
    if seen.ours:
        return max(seen.had[pid] for pid in seen.ours) or seen.taken, "our process had "
    if not hidden:
        return None, ""
    came = set(seen.had) - seen.before
    if came:
        return max(seen.had[pid] for pid in came) or seen.taken, "a process that came with this run had "
    if not seen.had and seen.taken >= LEAST_BYTES:
        return seen.taken, "while it ran (processes are not shown here) there was taken "
    return None, ""


def _busy(seen: Seen, *, hidden: bool) -> tuple[bool | None, str]:
    """Whether the GPU was busy with it, None where the driver does not tell, and in words."""
    if seen.busy_by:
        mine = seen.ours or (set(seen.busy_by) - seen.before if hidden else set())
        most = max((seen.busy_by.get(pid, 0) for pid in mine), default=0)
        if most:
            return True, f"busy with it up to {most}%"
    if seen.busy is None:
        return None, "how busy it was the driver does not tell"
    others = sorted(set(seen.had) - seen.ours) if not hidden else []
    if seen.busy and others and seen.busy_by:
        return False, f"busy up to {seen.busy}%, with others' processes"
    shared = ", with others' processes too" if others else ""
    return seen.busy > 0, f"busy up to {seen.busy}%{shared}"


def _others(watch: Watch) -> str:
    """Who had memory there instead."""
    told = []
    for seen in watch.seen.values():
        others = sorted(set(seen.had) - seen.ours)
        whose = f"processes {', '.join(map(str, others))} of others" if others else "nobody's memory"
        told.append(f"GPU {seen.gpu}: {whose}")
    return "; ".join(told)
