"""What became of each recording in a run: `report.json`, and the table at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DONE, SKIPPED, FAILED, STOPPED = "done", "skipped", "failed", "stopped"
MEMORY = "memory"


@dataclass
class Outcome:
    """One recording. `state`: done, skipped (was done already), failed, or stopped (not finished; kept as far as it
    went). `engine_ms` is the time inside the engine's calls; recordings that are decoded together each
    count the time that they share. `cause`: MEMORY, where it failed for lack of it."""

    source: str
    state: str = STOPPED
    outputs: list[str] = field(default_factory=list)
    audio_ms: int | None = None
    engine_ms: int | None = None
    language: str | None = None
    segments: int | None = None
    started: str | None = None
    resumed_at_ms: int | None = None
    why: str | None = None
    do: str | None = None
    warning: str | None = None
    cause: str | None = None

    def warn(self, text: str) -> None:
        """Add to what people should know although nothing failed."""
        self.warning = f"{self.warning}; {text}" if self.warning else text

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if v is not None}


@dataclass
class Report:
    """A whole run. Times in ms; `load_ms` is the longest that a worker took to load the model."""

    engine: str
    model: str | None
    why: str
    output: str
    started: str
    outcomes: list[Outcome] = field(default_factory=list)
    device: str | None = None
    compute_type: str | None = None
    workers: int = 1
    load_ms: int | None = None
    elapsed_ms: int = 0
    log: str | None = None

    def count(self, state: str) -> int:
        return sum(o.state == state for o in self.outcomes)

    @property
    def audio_ms(self) -> int:
        """Audio that was transcribed in this run."""
        return sum(o.audio_ms or 0 for o in self.outcomes if o.state == DONE)

    def to_json(self) -> Mapping[str, Any]:
        counts = {s: self.count(s) for s in (DONE, SKIPPED, FAILED, STOPPED)}
        fields = {k: v for k, v in vars(self).items() if v is not None and k != "outcomes"}
        return {"schema": 1, **fields, "counts": counts, "files": [o.to_json() for o in self.outcomes]}
