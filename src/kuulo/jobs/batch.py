"""A job: a plan, its recordings, prompts or transcripts, and which task does what. It is written to `plan.json` before
anything is queued and never changed; what becomes of it is written beside it (folder.py)."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from kuulo.plan import Plan
from kuulo.schedulers.base import Queue, Resources

WHOLE, WORDS, TURNS = "whole", "words", "turns"
"""What a piece is for: a whole recording; the words of a part; who speaks when in all of a recording that is cut."""


FINISH_MB = 2048


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


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What is the same for every job, whatever its tasks do: how it is queued and counted, and whose results are whose.
    `tasks[n]` has the pieces of task n, at least one. `finish_queue`: where what comes after them waits, which needs no
    GPU; `then`: what follows that."""

    tasks: Sequence[Sequence[Any]]
    resources: Resources
    queue: Queue
    scheduler: str
    finish_queue: Queue = field(default_factory=Queue)
    at_once: int | None = None
    mail: str | None = None
    mailer: str = "scheduler"
    pace: Pace | None = None
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    then: Then | None = None

    @property
    @abstractmethod
    def output(self) -> Path:
        """The folder that results go to, or one above all of them."""

    @property
    @abstractmethod
    def makes(self) -> Mapping[Path, Sequence[str]]:
        """What the results are called, by their folders; no other job may make them at the same time."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Digest of how the results are made."""

    @property
    def finish_mb(self) -> int:
        """Memory that it takes to count its results and to put them together. A transcript of ten hours with words'
        times takes 100 MB."""
        return FINISH_MB


@dataclass(frozen=True, kw_only=True)
class OnTranscripts:
    """Tasks of a language model on transcripts, for another machine. `parameters` are the tasks', `asked` the options
    of the language model, both by name. `templates` has each task's template by its digest, `files` those that its
    parameters name, `model_sha256` is of the model: others are refused. `template`: another one than the first task's
    own. `concurrency`: transcripts that are worked on at a time. Paths among them are as they were typed in the folder
    `place`."""

    tasks: tuple[str, ...]
    parameters: Mapping[str, str]
    asked: Mapping[str, Any]
    templates: Mapping[str, str]
    model: str | None
    model_sha256: str | None
    place: str
    template: str | None = None
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    concurrency: int = 1


@dataclass(frozen=True, kw_only=True)
class Then(OnTranscripts):
    """What is done with a job's transcripts when these are all there: a submission of its own, which asks for what the
    model needs. `also`: transcripts that were there before, by their stems."""

    resources: Resources
    queue: Queue
    also: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batch(Job):
    """All that the tasks of a job need to know that hears recordings. A job that has no tasks is what follows
    transcripts that are there."""

    plan: Plan
    items: tuple[Item, ...]
    tasks: tuple[tuple[Piece, ...], ...]
    turns_pace: Pace | None = None

    @property
    def output(self) -> Path:
        return Path(self.plan.options["output"])

    @property
    def makes(self) -> dict[Path, list[str]]:
        return {self.output: [str(item.stem) for item in self.items]}

    @property
    def key(self) -> str:
        return self.plan.key


@dataclass(frozen=True)
class Share:
    """The piece of a task that asks a language model: the prompts or transcripts from `begin` to before `end`, counted
    from 0."""

    begin: int
    end: int

    def called(self, what: str) -> str:
        """For people, who count from one: prompts 1 to 5."""
        return f"{what} {self.begin + 1} to {self.end}"


@dataclass(frozen=True, kw_only=True)
class Prompts(Job):
    """All that the tasks of a job need to know that asks a language model.

    `source`: a file of prompts, or a folder that `template` (a name or a path) is asked about with its `variables`;
    `digest`, `number` and `bytes` are of the prompts in it when the job was submitted, `template_sha256` of the
    template. `target`: the file of the answers, which may be there if `overwrite`. `asked`: options of the language
    model, by name, as they were typed; `engine`, `model` and `model_sha256` are what was chosen. `concurrency`: prompts
    at a time in each task, None for as many as its model has slots. `any_model`: prompts that name another model are
    asked too."""

    source: Path
    target: Path
    digest: str
    number: int
    bytes: int
    asked: Mapping[str, Any]
    engine: str
    model: str | None
    model_sha256: str | None
    concurrency: int | None
    tasks: tuple[tuple[Share, ...], ...]
    template: str | None = None
    template_sha256: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    any_model: bool = False
    overwrite: bool = False

    @property
    def output(self) -> Path:
        return self.target.parent

    @property
    def makes(self) -> dict[Path, list[str]]:
        return {self.output: [self.target.name]}

    @property
    def key(self) -> str:
        return self.digest

    @property
    def finish_mb(self) -> int:
        """All prompts and all answers are in memory at the end: 850 MB were seen for 108 and 127 MB of them."""
        return FINISH_MB + 8 * (self.bytes >> 20)


@dataclass(frozen=True, kw_only=True)
class Transcripts(Job):
    """All that the tasks of a job need to know that works on transcripts which are there. A result is what comes of one
    of the language model's tasks on one transcript; `records` are the names of theirs, by their folders. Results that
    are there, and are others, are written over if `overwrite`."""

    what: OnTranscripts
    sources: tuple[Path, ...]
    records: Mapping[Path, Sequence[str]]
    tasks: tuple[tuple[Share, ...], ...]
    overwrite: bool = False

    @property
    def number(self) -> int:
        """Of results."""
        return len(self.sources) * len(self.what.tasks)

    @property
    def output(self) -> Path:
        return Path(os.path.commonpath(self.records))

    @property
    def makes(self) -> Mapping[Path, Sequence[str]]:
        return self.records

    @property
    def key(self) -> str:
        """Each record has its own, which says what it was made from, and how."""
        return ""
