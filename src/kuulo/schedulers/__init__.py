"""Who runs a job's tasks: the table of schedulers. To add one, write `schedulers/x.py` with what `base.Scheduler` asks
for, and its line here."""

from __future__ import annotations

import importlib
from typing import cast

from kuulo.errors import UsageError
from kuulo.schedulers.base import Scheduler

NAMES: tuple[str, ...] = ("local", "slurm")


def of(name: str) -> Scheduler:
    """The scheduler of that name; raises UsageError."""
    if name not in NAMES:
        raise UsageError(f"there is no scheduler {name!r}", looked_at=", ".join(NAMES))
    return cast(Scheduler, importlib.import_module(f"kuulo.schedulers.{name}"))


def usual() -> str:
    """The one to take when none is named: the first whose commands are here, and at last this machine."""
    for name in reversed(NAMES):
        if of(name).is_here():
            return name
    return NAMES[0]
