"""A project's roster: voices that have names, so that a speaker has the same name in every recording.

    enrolled    the roster with a clip of somebody's voice
    without     the roster without somebody
    identify    who a recording's speakers are, as far as that is sure

A voice is an embedding of one encoder (`Diarization.voices`); embeddings of different encoders cannot be compared.
Embeddings are personal data: they are in the roster's file alone, which nobody but its owner may read, and never in
a transcript, a journal or a log.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kuulo import atomic, naming
from kuulo.errors import CannotRun, UsageError

SCHEMA = 1
USUAL = Path("kuulo-roster.json")

SURE = 0.12
"""Cosine distance up to which two voices are one person's, of resemblyzer's embeddings. Measured on 11 people (voice
prompts and a game's actors, from Debian's packages; 45 s enrolled, 20 s heard four times, the same sound quality): to
one's own voice 0.02 to 0.09 for nine of ten, to other people's at least 0.19. Noise 15 dB below, a telephone's band or
a room moves a voice by 0.1 to 0.35 from itself and not nearer to others: then it stays unknown."""

MARGIN = 0.04
"""How much further away the next enrolled voice must be."""

MEASURED = ("resemblyzer",)
"""Engines for whose voices these two were measured. By others' nobody is named: how far apart their voices are is not
known."""

LEAST_SECONDS = 5.0
"""Of speech, to enrol a voice."""


@dataclass(frozen=True)
class Voice:
    """Somebody's voice: an embedding of length 1 over `seconds` of speech in `clips` clips."""

    name: str
    embedding: tuple[float, ...]
    seconds: float
    clips: int = 1


@dataclass(frozen=True)
class Roster:
    """`encoder`: what made the embeddings, ENGINE:DIGEST; empty as long as there are none."""

    encoder: str = ""
    voices: tuple[Voice, ...] = ()

    @property
    def engine(self) -> str:
        return self.encoder.partition(":")[0]


@dataclass(frozen=True)
class Match:
    """The enrolled voice that is nearest to a speaker's, and how far away it is; `sure`: it is that person."""

    name: str
    distance: float
    sure: bool


def enrolled(roster: Roster, name: str, embedding: Sequence[float], seconds: float, encoder: str) -> Roster:
    """The roster with one more clip of a voice; the clips of one person count by their length. Raises UsageError for
    another encoder's embedding, and for too little speech."""
    if seconds < LEAST_SECONDS:
        raise UsageError(
            f"{seconds:.1f} s of speech are too little to know a voice by",
            do=f"a clip in which this person alone speaks for {LEAST_SECONDS:g} s or more; half a minute is good",
        )
    check_encoder(roster, encoder)
    before = next((voice for voice in roster.voices if voice.name == name), None)
    made = Voice(name, _unit(embedding), seconds)
    if before:
        both = [a * before.seconds + b * seconds for a, b in zip(before.embedding, made.embedding, strict=True)]
        made = Voice(name, _unit(both), before.seconds + seconds, before.clips + 1)
    others = tuple(voice for voice in roster.voices if voice.name != name)
    return replace(roster, encoder=encoder, voices=(*others, made))


def without(roster: Roster, name: str) -> Roster:
    """Raises UsageError when nobody is called so."""
    if name not in {voice.name for voice in roster.voices}:
        known = ", ".join(naming.shown(voice.name) for voice in roster.voices)
        raise UsageError(f"nobody called {name!r} is enrolled", looked_at=known or "nobody is")
    kept = tuple(voice for voice in roster.voices if voice.name != name)
    return replace(roster, voices=kept) if kept else Roster()


def check_encoder(roster: Roster, encoder: str) -> None:
    """Raises UsageError when embeddings of this encoder cannot be compared with the roster's."""
    if roster.encoder and roster.encoder != encoder:
        raise UsageError(
            "the roster's voices are of another encoder, and cannot be compared",
            looked_at=f"roster: {roster.encoder}; now: {encoder or 'an engine that gives no voices'}",
            do=f"--speaker-engine {roster.engine} with its model of then, or enrol the voices into another --roster",
        )


def identify(roster: Roster, voices: Mapping[str, Sequence[float]]) -> dict[str, Match]:
    """For each speaker, by the names of `voices`, the enrolled voice that is nearest; nothing for an empty roster. No
    voice is surely two speakers': the nearer has it. Nobody is sure by voices for which no limits were MEASURED."""
    found = {}
    measured = roster.engine in MEASURED
    for speaker, embedding in voices.items():
        unit = _unit(embedding)
        ranked = sorted((_distance(unit, voice.embedding), voice.name) for voice in roster.voices)
        if ranked:
            apart = ranked[1][0] - ranked[0][0] if len(ranked) > 1 else math.inf
            found[speaker] = Match(ranked[0][1], ranked[0][0], measured and ranked[0][0] <= SURE and apart >= MARGIN)
    nearest: dict[str, float] = {}
    for match in found.values():
        if match.sure:
            nearest[match.name] = min(match.distance, nearest.get(match.name, math.inf))
    return {
        speaker: replace(match, sure=match.sure and match.distance == nearest[match.name])
        for speaker, match in found.items()
    }


def read(path: Path) -> Roster:
    """The roster in a file. Raises UsageError when it cannot be read, or is none."""
    shown = naming.shown(path)
    try:
        said = json.loads(path.read_bytes())
        if said["schema"] > SCHEMA:
            raise ValueError(f"it was written by a newer Kuulo (schema {said['schema']})")
        voices = tuple(
            Voice(str(v["name"]), tuple(float(x) for x in v["embedding"]), float(v["seconds"]), int(v["clips"]))
            for v in said["voices"]
        )
        return Roster(str(said["encoder"]), voices)
    except OSError as error:
        raise UsageError(
            f"the roster cannot be read: {error.strerror or error}",
            looked_at=shown,
            do="kuulo speakers enrol NAME CLIP makes one",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"this is no roster: {type(error).__name__}: {error}", looked_at=shown) from error


def write(path: Path, roster: Roster) -> None:
    """Writes the file, which its owner alone may read. Raises CannotRun."""
    voices = [asdict(voice) for voice in roster.voices]
    content = atomic.encode_json({"schema": SCHEMA, "encoder": roster.encoder, "voices": voices})
    try:
        atomic.write_bytes(path, content, mode=0o600)
    except OSError as error:
        raise CannotRun(
            f"the roster cannot be written: {error.strerror or error}", looked_at=naming.shown(path)
        ) from error


def _unit(vector: Sequence[float]) -> tuple[float, ...]:
    length = math.sqrt(sum(x * x for x in vector)) or 1.0
    return tuple(x / length for x in vector)


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Cosine distance of two vectors of length 1, from 0 to 2."""
    return max(0.0, 1.0 - sum(x * y for x, y in zip(a, b, strict=True)))
