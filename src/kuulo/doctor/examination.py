"""The tables of checks, and how they are carried out: all at once, each in a thread of its own, and one that does not
come back (a file system that hangs) holds up nobody."""

from __future__ import annotations

import dataclasses
import importlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from kuulo.doctor.finding import UNKNOWN, Check, Finding, Looking

SECONDS = 60.0
"""How long a check may be silent."""

DEEP_SECONDS = 3600.0
"""The same where engines transcribe, and stores are read."""


@dataclass(frozen=True)
class Area:
    """A heading, and the function that looks: "module:function"."""

    title: str
    check: str

    def load(self) -> Check:
        module, _, function = self.check.partition(":")
        found: Check = getattr(importlib.import_module(f"kuulo.doctor.{module}"), function)
        return found


USER = (
    Area("Kuulo", "program:check"),
    Area("Engines", "engines:check"),
    Area("Models", "models:check"),
    Area("What is used without options", "models:choice"),
    Area("GPU", "gpu:check"),
    Area("Containers", "containers:check"),
    Area("Places to write", "space:check"),
    Area("Left in your home", "caches:check"),
)
SITE = (
    Area("Kuulo", "program:check"),
    Area("Site file", "site_file:check"),
    Area("Folders", "folders:check"),
    Area("Engines", "engines:check"),
    Area("Model stores", "stores:check"),
    Area("What users get without options", "models:choice"),
    Area("Slurm", "slurm:check"),
    Area("GPU on this machine", "gpu:check"),
    Area("Containers", "containers:check"),
    Area("Deployed", "deployed:check"),
    Area("Modules", "modules:check"),
    Area("Portal", "portal:check"),
    Area("Mail", "mail:check"),
    Area("Left behind", "leftovers:check"),
)
"""In the order in which people read them."""


def examine(looking: Looking) -> Iterator[Finding]:
    """Every finding, area by area, as they come. Never raises KuuloError."""
    areas = SITE if looking.for_site else USER
    patience = DEEP_SECONDS if looking.deep else SECONDS
    checks = [(area, area.load()) for area in areas]  # all imports first: threads must not meet half of a module
    running = [(area, _start(check, looking)) for area, check in checks]
    for area, said in running:
        yield from (dataclasses.replace(finding, area=area.title) for finding in _said(said, patience))


Said = queue.SimpleQueue["Finding | None"]


def _start(check: Check, looking: Looking) -> Said:
    """A check on its way: findings, and None at its end."""
    said: Said = queue.SimpleQueue()

    def run() -> None:
        try:
            for finding in check(looking):
                said.put(finding)
        except Exception as error:  # a check that fails says nothing of what it looks at, and the others go on
            said.put(_broken(error))
        said.put(None)

    threading.Thread(target=run, daemon=True).start()
    return said


def _said(said: Said, patience: float) -> Iterator[Finding]:
    deadline = time.monotonic() + patience
    while True:
        try:
            finding = said.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            yield Finding(
                "the rest",
                UNKNOWN,
                f"no answer within {patience:.0f} seconds",
                do="a file system that hangs? `df` and `mount` tell",
            )
            return
        if finding is None:
            return
        yield finding
        deadline = max(deadline, time.monotonic() + patience)


def _broken(error: Exception) -> Finding:
    return Finding(
        "the rest",
        UNKNOWN,
        f"the check itself failed: {type(error).__name__}: {error}",
        do="please report this; the other lines hold",
    )
