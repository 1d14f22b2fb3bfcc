"""What the site's file and the user's say of jobs: the table `[jobs]`. The user's word counts.

[jobs]
scheduler = "slurm"            # else: Slurm where its commands are, and this machine where they are not
folder = "/scratch/$USER/kuulo"   # where the jobs' folders are; compute nodes must see it
task_minutes = 60              # how long a task should be
at_once = 20                   # tasks of a job that run at the same time
mail = "sendmail"              # who sends mail: the node's sendmail, or the scheduler

[jobs.cpu]                     # where work without a GPU goes
partition = "batch"
cpus = 8
[jobs.gpu]                     # where work that can use a GPU goes; without this table it goes to [jobs.cpu]
partition = "gpu"
gres = "gpu:a100"
cpus = 6
extra = { exclude = "node17" } # the scheduler's own options
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo.errors import UsageError
from kuulo.schedulers.base import Queue

MAILERS = ("scheduler", "sendmail")
USUAL_CPUS = 4


@dataclass(frozen=True)
class Place:
    """Where tasks go: the queue, and the CPUs that each gets there."""

    queue: Queue = field(default_factory=Queue)
    cpus: int = USUAL_CPUS


@dataclass(frozen=True)
class JobSettings:
    """The table, checked. `gpu` is None where the site has no such place."""

    scheduler: str | None = None
    folder: Path | None = None
    task_minutes: int = 60
    at_once: int | None = None
    mail: str = "scheduler"
    cpu: Place = field(default_factory=Place)
    gpu: Place | None = None


KEYS: Mapping[str, type] = {
    "at_once": int, "cpu": dict, "folder": str, "gpu": dict, "mail": str, "scheduler": str, "task_minutes": int,
}  # fmt: skip
PLACE_KEYS: Mapping[str, type] = {
    "account": str, "constraint": str, "cpus": int, "extra": dict, "gres": str, "partition": str, "qos": str,
}  # fmt: skip


def settings(site: Mapping[str, Any], user: Mapping[str, Any], where: str) -> JobSettings:
    """The two files' tables as one. `where` names the files, for errors. Raises UsageError."""
    merged = {**site, **user}
    for name in ("cpu", "gpu"):
        if isinstance(site.get(name), dict) and isinstance(user.get(name), dict):
            merged[name] = {**site[name], **user[name]}
    _check(merged, KEYS, "jobs", where)
    if merged.get("mail", "scheduler") not in MAILERS:
        raise UsageError(f"[jobs] mail: {merged['mail']!r} is none of {', '.join(MAILERS)}", looked_at=where)
    folder = merged.get("folder")
    return JobSettings(
        scheduler=merged.get("scheduler"),
        folder=Path(os.path.expandvars(folder)).expanduser() if folder else None,
        task_minutes=merged.get("task_minutes", 60),
        at_once=merged.get("at_once"),
        mail=merged.get("mail", "scheduler"),
        cpu=_place(merged.get("cpu", {}), "jobs.cpu", where),
        gpu=_place(merged["gpu"], "jobs.gpu", where) if "gpu" in merged else None,
    )


def jobs_folder(chosen: JobSettings, environ: Mapping[str, str], state: Path) -> Path:
    """Where the jobs' folders are: $KUULO_JOBS, else what the settings say, else below the user's state folder."""
    named = environ.get("KUULO_JOBS")
    return Path(named) if named else chosen.folder or state / "jobs"


def _place(said: Mapping[str, Any], table: str, where: str) -> Place:
    _check(said, PLACE_KEYS, table, where)
    queue = Queue(
        partition=said.get("partition"),
        account=said.get("account"),
        qos=said.get("qos"),
        constraint=said.get("constraint"),
        gres=said.get("gres"),
        extra=tuple((str(k), str(v)) for k, v in sorted(said.get("extra", {}).items())),
    )
    return Place(queue, said.get("cpus", USUAL_CPUS))


def _check(said: Mapping[str, Any], keys: Mapping[str, type], table: str, where: str) -> None:
    for name, value in said.items():
        if name not in keys:
            raise UsageError(f"[{table}] has no key {name!r}", looked_at=where, do=f"its keys are {', '.join(keys)}")
        if not isinstance(value, keys[name]) or isinstance(value, bool):
            raise UsageError(f"[{table}] {name}: {value!r} is not {_CALLED[keys[name]]}", looked_at=where)
        if isinstance(value, int) and value < 1:
            raise UsageError(f"[{table}] {name}: {value} is less than 1", looked_at=where)


_CALLED = {int: "a whole number", str: "a text", dict: "a table"}
