"""Tries what is installed (`kuulo selftest`): every engine, with a recording whose words are known and the models that
it would take, or with questions whose answers are known; through every stage, offline and with caches that are empty
and its own.

| file | what is in it |
|---|---|
| `outcome.py` | what became of it: Stage, Outcome, Node, and what is written as JSON |
| `pipelines.py` | what is tried: engines, models, who tells speakers apart |
| `trial.py` | carries out one of them |
| `answering.py` | the same of a language model |
| `watching.py` | whether a GPU did the work, and whether for us |
| `nodes.py` | the same as jobs, on each kind of node |

`run` is for whoever has just installed or deployed something.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kuulo.selftest.outcome import Node, Outcome
    from kuulo.site import Site

Told = Callable[["Outcome"], None]


def run(
    site: Site, *, engines: Sequence[str] = (), model: str | None = None, gpu: bool = False,
    told: Told = lambda outcome: None,
) -> Node:  # fmt: skip
    """Tries every pipeline on this machine, one after the other; `told` hears of each as it ends.

    `engines`: these alone. `model`: this one alone, by name or path, instead of the miniature and the best of the
    store. `gpu`: a GPU has to do the work, and engines that cannot use one are left out. Of the settings those of the
    machine (device, scratch, ...) count. Raises UsageError for an unknown engine, and CannotRun when there is nothing
    to try."""
    from kuulo.selftest import pipelines, trial
    from kuulo.selftest.outcome import Node

    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(
        prefix="kuulo-selftest-", dir=trial.scratch(site), ignore_cleanup_errors=True
    ) as folder:
        for pipeline in pipelines.every(site, Path(folder), engines, model, gpu=gpu):
            outcome = trial.carry_out(pipeline, site, Path(folder), gpu=gpu)
            outcomes.append(outcome)
            told(outcome)
    return Node(host=socket.gethostname(), outcomes=tuple(outcomes))
