"""A project's roster: voices that have names, so that a speaker has the same name in every recording.

    enrolled    the roster with a clip of somebody's voice
    without     the roster without somebody
    identify    who a recording's speakers are, as far as that is sure

A voice is an embedding of one encoder (`Diarization.voices`); embeddings of different encoders cannot be compared. It
is kept as it was recorded and as it would sound elsewhere (conditions.py): with noise, in a room, by telephone.
Embeddings are personal data: they are in the roster's file alone, which nobody but its owner may read, and never in
a transcript, a journal or a log.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from kuulo import atomic, naming
from kuulo.errors import CannotRun, UsageError

SCHEMA = 1
USUAL = Path("kuulo-roster.json")

RECORDED = "as recorded"
SURE: Mapping[str, float] = {
    RECORDED: 0.115,
    "white noise 20 dB below": 0.096,
    "white noise 12 dB below": 0.038,
    "pink noise 15 dB below": 0.096,
    "pink noise 8 dB below": 0.05,
    "room of 0.3 s": 0.072,
    "room of 0.6 s": 0.062,
    "room of 0.4 s with noise": 0.079,
    "telephone": 0.068,
}
"""Cosine distance up to which two voices are one person's, of resemblyzer's embeddings, by the condition under which
the enrolled one is heard: four fifths of the least distance between different people, nine tenths as recorded. Measured
on 9 voices enrolled with 45 s and 66 that were heard, in 19 conditions (1767 clips; voice prompts, children's programs
and games in Debian's packages)."""

MARGIN = 1 / 3
"""How much further away the next enrolled voice must be, in parts of what is sure."""

MEASURED = ("resemblyzer",)
"""Engines for whose voices these two were measured. By others' nobody is named: how far apart their voices are is not
known."""

LEAST_SECONDS = 5.0
"""Of speech, to enrol a voice."""


@dataclass(frozen=True)
class Voice:
    """Somebody's voice: an embedding of length 1 over `seconds` of speech in `clips` clips, and what it would be under
    some of CONDITIONS."""

    name: str
    embedding: tuple[float, ...]
    seconds: float
    clips: int = 1
    elsewhere: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def heard(self) -> dict[str, tuple[float, ...]]:
        """The embeddings for which there is a limit, by condition."""
        return {RECORDED: self.embedding, **{c: e for c, e in self.elsewhere.items() if c in SURE}}


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


def enrolled(
    roster: Roster,
    name: str,
    embedding: Sequence[float],
    seconds: float,
    encoder: str,
    elsewhere: Mapping[str, Sequence[float]] | None = None,
) -> Roster:
    """The roster with one more clip of a voice; the clips of one person count by their length. `elsewhere`: the clip's
    embedding under CONDITIONS. Raises UsageError for another encoder's embedding, and for too little speech."""
    if seconds < LEAST_SECONDS:
        raise UsageError(
            f"{seconds:.1f} s of speech are too little to know a voice by",
            do=f"a clip in which this person alone speaks for {LEAST_SECONDS:g} s or more; half a minute is good",
        )
    check_encoder(roster, encoder)
    before = next((voice for voice in roster.voices if voice.name == name), None)
    made = Voice(name, _unit(embedding), seconds, elsewhere={c: _unit(e) for c, e in (elsewhere or {}).items()})
    if before:

        def mean(old: Sequence[float], new: Sequence[float]) -> tuple[float, ...]:
            return _unit([a * before.seconds + b * seconds for a, b in zip(old, new, strict=True)])

        joined = {c: mean(before.elsewhere.get(c, e), e) for c, e in made.elsewhere.items()}
        made = Voice(
            name,
            mean(before.embedding, made.embedding),
            before.seconds + seconds,
            before.clips + 1,
            {**before.elsewhere, **joined},
        )
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
    """For each speaker, by the names of `voices`, the enrolled voice that is nearest under one condition or another, by
    what is SURE there; nothing for an empty roster. No voice is surely two speakers': the nearer has it. Nobody is sure
    by voices for which no limits were MEASURED."""
    found: dict[str, tuple[float, Match]] = {}
    measured = roster.engine in MEASURED
    for speaker, embedding in voices.items():
        unit = _unit(embedding)
        ranked = sorted((*_nearest(voice, unit), voice.name) for voice in roster.voices)
        if ranked:
            share, distance, name = ranked[0]
            apart = ranked[1][0] - share if len(ranked) > 1 else math.inf
            found[speaker] = share, Match(name, distance, measured and share <= 1 and apart >= MARGIN)
    nearest: dict[str, float] = {}
    for share, match in found.values():
        if match.sure:
            nearest[match.name] = min(share, nearest.get(match.name, math.inf))
    return {
        speaker: replace(match, sure=match.sure and share == nearest[match.name])
        for speaker, (share, match) in found.items()
    }


def _nearest(voice: Voice, embedding: tuple[float, ...]) -> tuple[float, float]:
    """How far a voice is from an embedding where it is nearest: in parts of what is SURE there, and as it is."""
    distances = {condition: _distance(embedding, one) for condition, one in voice.heard.items()}
    return min((distance / SURE[condition], distance) for condition, distance in distances.items())


def read(path: Path) -> Roster:
    """The roster in a file. Raises UsageError when it cannot be read, or is none."""
    shown = naming.shown(path)
    try:
        said = json.loads(path.read_bytes())
        if said["schema"] > SCHEMA:
            raise ValueError(f"it was written by a newer Kuulo (schema {said['schema']})")
        voices = tuple(
            Voice(
                str(v["name"]),
                tuple(float(x) for x in v["embedding"]),
                float(v["seconds"]),
                int(v["clips"]),
                {str(c): tuple(float(x) for x in e) for c, e in v.get("elsewhere", {}).items()},
            )
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
