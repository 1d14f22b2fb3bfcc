"""What Slurm's commands print, read. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace

from kuulo.errors import CannotRun
from kuulo.schedulers.base import DONE, ENDED, FAILED, RUNNING, UNKNOWN, WAITING, State, Usage
from kuulo.schedulers.slurm_words import STATES, WHY, WHY_STATE

NOT_STARTED_SIGNAL = 53
"""The signal in the exit code of a job whose folder or log file could not be opened on its node (seen; "0:53")."""

QUEUE_FIELDS = (
    "ArrayJobID:20",
    "JobID:20",
    "ArrayTaskID:20",
    "State:20",
    "exit_code:12",
    "RestartCnt:12",
    "StartTime:24",
    "EndTime:24",
    "NodeList:120",
    "Reason:200",
)
ACCOUNT_FIELDS = ("JobID", "State", "ExitCode", "NodeList", "Start")
USAGE_FIELDS = (
    "JobID",
    "State",
    "ElapsedRaw",
    "Submit",
    "Eligible",
    "Start",
    "TimelimitRaw",
    "AllocCPUS",
    "MaxRSS",
    "ReqMem",
    "AllocTRES",
)


def queue(text: str, ids: Container[str]) -> dict[tuple[str, int | None], State]:
    """Lines of squeue with QUEUE_FIELDS, each ended by `|`: (number, task) -> state."""
    found: dict[tuple[str, int | None], State] = {}
    for array, job, tasks, word, code, restarts, start, end, node, why in _rows(text, len(QUEUE_FIELDS)):
        state = State(
            STATES.get(word, UNKNOWN),
            _why(word, why),
            word if why in ("", "None") else f"{word} ({why})",
            node,
            restarts=_whole(restarts) or 0,
        )
        state = _with_code(_with_times(state, start, end), _whole(code))
        found.update({(array if array in ids else job, task): state for task in expand(tasks)})
    return found


def accounts(text: str) -> dict[tuple[str, int | None], State]:
    """Lines of sacct with ACCOUNT_FIELDS: (number, task) -> state of what has ended. What they call running is left
    out: where squeue does not know it, the accounts have missed its end."""
    found: dict[tuple[str, int | None], State] = {}
    for job, said, code, node, start in _rows(text, len(ACCOUNT_FIELDS)):
        word = said.partition(" ")[0]  # "CANCELLED by 1000"
        state = State(STATES.get(word, UNKNOWN), _why(word, ""), said, "" if node == "None assigned" else node)
        if state.state in ENDED:
            number, _, tasks = job.partition("_")
            exit_code, _, signal = code.partition(":")
            raw = int(exit_code) << 8 | int(signal) if exit_code.isdigit() and signal.isdigit() else None
            state = _with_code(_with_times(state, start, ""), raw)
            found.update({(number, task): state for task in expand(tasks)})
    return found


def usage(text: str, ids: Mapping[str, str]) -> list[Usage]:
    """Lines of sacct with USAGE_FIELDS, a run's steps after it: the runs of the jobs in `ids` (number -> id) that have
    begun. A run's memory is that of its greatest step."""
    runs: list[Usage] = []
    wanted = False
    for job, said, elapsed, submitted, eligible, start, limit, cpus, used, asked, got in _rows(text, len(USAGE_FIELDS)):
        if "." in job:
            memory = _bytes(used)
            if wanted and memory is not None:
                runs[-1] = replace(runs[-1], memory_bytes=max(memory, runs[-1].memory_bytes or 0))
            continue
        number, _, task = job.partition("_")
        started, since, minutes = _whole(start), _whole(eligible) or _whole(submitted), _whole(limit)
        wanted = number in ids and started is not None
        if wanted and started is not None:
            run = Usage(
                ids[number],
                _whole(task),
                STATES.get(said.partition(" ")[0], UNKNOWN),
                elapsed_s=float(elapsed),
                waited_s=None if since is None else float(max(0, started - since)),
                limit_s=None if minutes is None else minutes * 60.0,
                cpus=_whole(cpus),
                gpus=_gpus(got),
                memory_asked_bytes=_asked(asked, _whole(cpus)),
            )
            runs.append(run)
    return runs


def partitions(text: str) -> dict[str, tuple[bool, int | None]]:
    """Lines of `scontrol -o show partition`: name -> whether it is the default, and its MaxTime in minutes."""
    found: dict[str, tuple[bool, int | None]] = {}
    for line in text.splitlines():
        facts = dict(pair.partition("=")[::2] for pair in line.split())
        if "PartitionName" in facts:
            most = seconds(facts.get("MaxTime", "UNLIMITED"))
            found[facts["PartitionName"]] = (facts.get("Default") == "YES", None if most is None else most // 60)
    return found


def array_size(text: str) -> int:
    """Tasks in one array, from `scontrol show config`: the greatest index is one less than MaxArraySize
    (slurm.conf(5)). Raises CannotRun when it is not there."""
    found = [re.search(rf"\b{name}\s*=\s*(\d+)", text) for name in ("MaxArraySize", "MaxJobCount", "max_array_tasks")]
    if found[0] is None:
        raise CannotRun("scontrol does not say how great an array may be", looked_at="scontrol show config")
    return min(int(one[1]) for one in found if one)


def expand(tasks: str) -> list[int | None]:
    """The numbers in what Slurm calls them: "3-8%2", "[0,4-10:2]"; None alone when there are none ("", "N/A")."""
    if tasks in ("", "N/A"):
        return [None]
    numbers: list[int | None] = []
    for part in tasks.strip("[]").partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match:
            numbers += range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
    return numbers


def seconds(text: str) -> int | None:
    """A time as Slurm writes it ("90", "90:00", "1:30:00", "1-6", "1-6:30:00"; minutes where there is one number) in
    seconds; None without one: UNLIMITED, INVALID, NOT_SET, Partition_Limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        return None
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1] or match[4]:
        return ((days * 24 + first) * 60 + second) * 60 + third
    return first * 60 + second


def _rows(text: str, count: int) -> Iterator[list[str]]:
    """The fields of each line; what is no such line (a cluster's heading, a site's greeting) is left out."""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) in (count, count + 1):
            yield fields[:count]


def _why(word: str, reason: str) -> str:
    """The sentence for a state or for a reason to wait."""
    if word in WHY_STATE or STATES.get(word) != WAITING or reason in ("", "None"):
        return WHY_STATE.get(word, "")
    reason = reason.replace(" ", "_")
    family = max((key for key in WHY if reason.startswith(key)), key=len, default=None)
    return WHY[family] if family else f"Slurm's reason: {reason}"


def _with_times(state: State, start: str, end: str) -> State:
    starts, ends = _whole(start), _whole(end)
    if state.state == WAITING:
        return replace(state, starts_at=starts)
    return replace(state, started_at=starts, ends_by=ends if state.state == RUNNING else None)


def _with_code(state: State, raw: int | None) -> State:
    """The exit code out of wait(2)'s status word, as a shell gives it: 128 and the signal's number for a signal."""
    if raw is None or state.state not in (DONE, FAILED):
        return state
    signal = raw & 0x7F
    if signal == NOT_STARTED_SIGNAL:
        return replace(state, reason="its folder or its log could not be opened on its node")
    return replace(state, exit_code=128 + signal if signal else raw >> 8)


def _whole(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _bytes(text: str) -> int | None:
    """Bytes of "4927488", "4812K", "1.50G"; None of nothing, and of sacct's word for it, 2^64."""
    match = re.fullmatch(r"([\d.]+)([KMGTP]?)", text)
    if not match:
        return None
    value = float(match[1]) * 1024 ** " KMGTP".index(match[2] or " ")
    return round(value) if value < 2**60 else None


def _asked(text: str, cpus: int | None) -> int | None:
    """ReqMem; before 21.08 it ended with n (a node) or c (a CPU)."""
    value = _bytes(text.rstrip("nc"))
    return value * cpus if value is not None and cpus and text.endswith("c") else value


def _gpus(tres: str) -> int:
    """GPUs in AllocTRES: "cpu=4,gres/gpu=2,gres/gpu:a100=2,mem=16G"."""
    match = re.search(r"gres/gpu=(\d+)", tres)
    return int(match[1]) if match else sum(int(n) for n in re.findall(r"gres/gpu:[^=,]+=(\d+)", tres))
