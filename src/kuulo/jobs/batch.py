"""A job: a plan, its recordings, and which task does what. It is written to `plan.json` before anything is queued and
never changed; what becomes of it is written beside it (folder.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath

from kuulo.plan import Plan
from kuulo.schedulers.base import Queue, Resources

WHOLE, WORDS, TURNS = "whole", "words", "turns"
"""What a piece is for: a whole recording; the words of a part; who speaks when in all of a recording that is cut."""


@dataclass(frozen=True)
class Item:
    """A recording of a job. `stem`: what its results are called, under the output folder. `length_ms` is what its
    header says, 0 when it does not; `bytes` and `modified_ns` are what it was when the job was submitted."""

    path: Path
    stem: PurePath
    length_ms: int
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Piece:
    """What a task does with an item. `from_ms` and `to_ms` are the nominal ends of a part, in the recording's time: the
    quiet places near them are found on the node. `part` counts from 0 within the recording, of `parts` with words."""

    item: int
    kind: str = WHOLE
    from_ms: int = 0
    to_ms: int = 0
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Pace:
    """How fast something is on a kind of node: seconds of audio in a second, with all of a task's workers; seconds that
    loading takes, and each file beside its audio; bytes of memory at the peak. `source`: measured, published or guess;
    `why` says from what, for people."""

    speed: float
    load_s: float
    file_s: float
    memory_bytes: int
    source: str
    why: str


@dataclass(frozen=True)
class Refused:
    """What was named and gave no recording, or one that cannot be read: it counts as failed."""

    source: str
    why: str
    do: str | None = None


@dataclass(frozen=True)
class Batch:
    """All that a job's tasks need to know. `tasks[n]` has the pieces of task n. `finish_queue`: where what comes after
    them waits, which needs no GPU."""

    plan: Plan
    items: tuple[Item, ...]
    tasks: tuple[tuple[Piece, ...], ...]
    resources: Resources
    queue: Queue
    scheduler: str
    finish_queue: Queue = field(default_factory=Queue)
    at_once: int | None = None
    mail: str | None = None
    mailer: str = "scheduler"
    pace: Pace | None = None
    turns_pace: Pace | None = None
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = field(default=())
