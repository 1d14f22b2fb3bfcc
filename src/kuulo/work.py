"""One recording on its way through a run, and what a worker is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from kuulo import wire
from kuulo.journal import Heard, Journal
from kuulo.parts import TURNS, Part
from kuulo.report import Outcome
from kuulo.roster import Match
from kuulo.transcript import Segment, Turn

CHANNELS = ".channels"
"""After the name of a decoded recording: all its channels."""


@dataclasses.dataclass
class Work:
    """One recording on its way. Times of `segments` are from the start of the decoded range, which begins `offset_ms`
    into the recording and is `length_ms` long. `heard_by`: the worker that heard all of it; `turns`: who spoke when,
    and `told_apart_by`: the worker that said so (their `hello`). `voices`: the turns' speakers' embeddings, of this
    `encoder`, and `known`: whom the roster has near to the results' speakers; `called`: what the
    turns call them. `channels`: how many are decoded for who tells them apart by these. `part`: this is no more than
    a part of the recording; `begun`: in an earlier life of the same run. `batch_size`: what it was heard with, where
    that is less than was asked for."""

    id: str
    path: Path
    stem: PurePath
    outcome: Outcome
    length_ms: int = 0
    done_ms: int = 0
    offset_ms: int = 0
    pcm: Path | None = None
    samples: int = 0
    channels: int = 1
    sha256: str = ""
    bytes: int = 0
    modified_ns: int = 0
    key: str = ""
    tries: int = 0
    began: float = 0.0
    language: str | None = None
    confidence: float | None = None
    segments: list[Segment] = dataclasses.field(default_factory=list)
    journal: Journal | None = None
    heard: Heard = dataclasses.field(default_factory=Heard)
    heard_by: dict[str, Any] | None = None
    turns: list[Turn] | None = None
    voices: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    encoder: str = ""
    known: dict[str, Match] = dataclasses.field(default_factory=dict)
    called: dict[str, str] = dataclasses.field(default_factory=dict)
    part: Part | None = None
    begun: bool = False
    batch_size: int | None = None
    told_apart_by: dict[str, Any] = dataclasses.field(default_factory=dict)

    def resume(self) -> None:
        """Take up what the journal has of an earlier try, and go on writing it. Raises OSError."""
        assert self.journal is not None
        self.segments = list(self.heard.segments)
        self.language, self.confidence = self.heard.language, self.heard.confidence
        self.done_ms = self.heard.at_ms
        if self.heard.turns is not None:
            self.turns, self.told_apart_by = list(self.heard.turns), dict(self.heard.told_apart_by)
        if self.heard.state is not None and self.heard.at_ms:
            self.outcome.resumed_at_ms = self.heard.at_ms + self.offset_ms
        self.journal.start(self.heard)

    @property
    def is_turns(self) -> bool:
        """Whether it is about who speaks when, and not about the words."""
        return self.part is not None and self.part.kind == TURNS

    @property
    def channels_pcm(self) -> Path:
        """Where the decoded channels are."""
        assert self.pcm is not None
        return self.pcm.with_name(self.pcm.name + CHANNELS)

    def take_turns(self, event: Mapping[str, Any]) -> None:
        """A worker's word about who speaks when: into memory."""
        self.turns = [Turn.from_json(turn) for turn in event["turns"]]
        self.voices, self.encoder = dict(event.get("voices") or {}), str(event.get("encoder") or "")

    def keep_turns(self) -> None:
        """Write who speaks when into the journal, without the voices, which are nobody's business. Raises OSError."""
        assert self.journal is not None and self.turns is not None
        self.journal.write_turns(self.turns, self.told_apart_by)

    def take(self, kind: str, event: dict[str, object]) -> None:
        """A worker's word about this recording: into memory and into the journal."""
        assert self.journal is not None
        if kind == "language":
            if self.language is not None:
                return
            self.language = str(event["language"])
            confidence = event.get("confidence")
            self.confidence = float(confidence) if isinstance(confidence, (int, float)) else None
        elif kind == "segment":
            said = event["segment"]
            assert isinstance(said, dict)
            segment = Segment.from_json(said)
            self.segments.append(segment)
            self.done_ms = max(self.done_ms, segment.end_ms)
        else:
            at = event["done_ms" if kind == "progress" else "at_ms"]
            assert isinstance(at, int)
            self.done_ms = max(self.done_ms, at)
        if kind != "progress":
            self.journal.write({k: v for k, v in event.items() if k != "id"})


@dataclasses.dataclass
class Given:
    """What a worker is given: one recording, or several packed into one clip."""

    clip: wire.Clip
    works: list[Work]


def alone(work: Work) -> Given:
    """The clip of one recording, from its last checkpoint on."""
    state = dict(work.heard.state) if work.heard.state is not None else None
    return Given(wire.Clip(work.id, str(work.pcm), work.samples, state=state), [work])


def by_channel(work: Work) -> Given:
    """The clip of one recording with all its channels."""
    return Given(wire.Clip(work.id, str(work.channels_pcm), work.samples, channels=work.channels), [work])


def packed(name: str, works: list[Work], scratch: Path, gap_ms: int, sample_rate: int) -> Given:
    """One clip of several recordings, with `gap_ms` of silence after each. Raises OSError."""
    path = scratch / f"{name}.f32"
    parts, at = [], 0
    gap = gap_ms * sample_rate // 1000
    with path.open("wb") as out:
        for work in works:
            assert work.pcm is not None
            out.write(work.pcm.read_bytes())
            out.write(bytes(4 * gap))
            end = at + work.samples
            parts.append((work.id, at * 1000 // sample_rate, end * 1000 // sample_rate))
            at = end + gap
    return Given(wire.Clip(name, str(path), at, parts=tuple(parts)), works)
