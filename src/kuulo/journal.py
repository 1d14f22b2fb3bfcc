"""What a run has heard of one recording so far, on disk, so that a killed run goes on inside the recording.

A journal is a file of JSON lines: the worker's events `language`, `segment` and `checkpoint` as they came, and `turns`,
who speaks when, with the `hello` of the worker that said so and without the voices. That of a part of a recording is
kept when the part has ended, with the event `end`, until all parts are joined. It lies in the output folder under
`.kuulo/partial/`, readable by its owner alone, and is removed when the results are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from kuulo.transcript import Segment, Turn

FOLDER = PurePath(".kuulo", "partial")


@dataclass(frozen=True)
class Heard:
    """What need not be done again: the segments up to the last checkpoint, and the state to go on from; `turns`, who
    speaks when in all of the recording, None while nobody knows, and `told_apart_by`, the `hello` of the worker that
    said so. `end`: how a part of a recording ended; all of its segments are here then."""

    segments: tuple[Segment, ...] = ()
    language: str | None = None
    confidence: float | None = None
    state: Mapping[str, Any] | None = None
    at_ms: int = 0
    turns: tuple[Turn, ...] | None = None
    told_apart_by: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] | None = None


class Journal:
    """The journal of one recording under one plan (`key`), or of a `part` of it."""

    def __init__(self, output: Path, stem: PurePath, key: str, part: str = "") -> None:
        name = hashlib.sha256(os.fsencode(str(stem))).hexdigest()[:24]
        self.path = output / FOLDER / f"{name}-{key[:24]}{part and f'-{part}'}.jsonl"
        self._file: Any = None
        self._is_of_use = False

    def read(self) -> Heard:
        """What is kept of an earlier run; nothing when there is no journal. Of the words what follows the last
        checkpoint, and a last line that was cut short, is dropped."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return Heard()
        segments: list[Segment] = []
        language: str | None = None
        confidence: float | None = None
        turns: tuple[Turn, ...] | None = None
        told_apart_by: Mapping[str, Any] = {}
        kept = Heard()
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                break
            if event["type"] == "segment":
                segments.append(Segment.from_json(event["segment"]))
            elif event["type"] == "language" and language is None:
                language, confidence = event["language"], event.get("confidence")
            elif event["type"] == "checkpoint":
                kept = Heard(tuple(segments), language, confidence, event["state"], event["at_ms"])
            elif event["type"] == "end":
                kept = replace(kept, segments=tuple(segments), language=language, confidence=confidence, end=event)
            elif event["type"] == "turns":
                turns, told_apart_by = tuple(Turn.from_json(turn) for turn in event["turns"]), event["hello"]
        return replace(kept, turns=turns, told_apart_by=told_apart_by)

    def start(self, heard: Heard) -> None:
        """Open for writing, beginning with what is kept. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._is_of_use = False
        if heard.state is not None:
            if heard.language:
                self.write({"type": "language", "language": heard.language, "confidence": heard.confidence})
            for segment in heard.segments:
                self.write({"type": "segment", "segment": segment.to_json()})
            self.write({"type": "checkpoint", "at_ms": heard.at_ms, "state": heard.state})
        if heard.turns is not None:
            self.write_turns(heard.turns, heard.told_apart_by)
        fresh.replace(self.path)

    def write(self, event: Mapping[str, Any]) -> None:
        """Add an event; it is with the operating system when this returns."""
        self._file.write(json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n")
        self._file.flush()
        self._is_of_use = self._is_of_use or event["type"] in ("checkpoint", "end", "turns")

    def write_turns(self, turns: Sequence[Turn], told_apart_by: Mapping[str, Any]) -> None:
        """Add who speaks when, and the `hello` of the worker that said so."""
        self.write({"type": "turns", "turns": [turn.to_json() for turn in turns], "hello": dict(told_apart_by)})

    def close(self) -> None:
        """Keep what was written, unless nobody could go on from it."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written was said when it was to be written
                self._file.close()
            self._file = None
            if not self._is_of_use:
                self.path.unlink(missing_ok=True)

    def remove(self) -> None:
        """The results are there: forget."""
        self.close()
        self.path.unlink(missing_ok=True)
