"""What was said: Word, Segment, Turn, Speaker, Transcript, and where it came from.

Times are integer milliseconds from the start of the recording. This file uses the standard library alone and
parses on Python 3.9, since it also runs inside the engines' environments.

JSON: every type has `to_json()` and `from_json()`. Keys whose value is None or empty are left out; keys that this
version does not know are ignored when reading, so that it can read what newer versions wrote.
`schemas/transcript.schema.json` describes the master copy.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

SCHEMA = 1

Json = Dict[str, Any]


def _compact(pairs: Mapping[str, Any]) -> Json:
    """`pairs` without what is None, an empty tuple or an empty dict."""
    return {k: v for k, v in pairs.items() if v is not None and v != () and v != [] and v != {}}


def _known(cls: type, data: Mapping[str, Any]) -> Json:
    names = {f.name for f in dataclasses.fields(cls)}
    return {k: v for k, v in data.items() if k in names}


@dataclass(frozen=True)
class Word:
    """One word. `text` is as the engine wrote it: in most languages it begins with a space, and the texts of a
    segment's words joined give the segment's text. `confidence` is a probability from 0 to 1."""

    text: str
    start_ms: int
    end_ms: int
    confidence: Optional[float] = None
    speaker: Optional[str] = None

    def to_json(self) -> Json:
        return _compact(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Word:
        return cls(**_known(cls, data))


@dataclass(frozen=True)
class Decoding:
    """What a Whisper decoder says about a segment (openai/whisper's names and meanings).

    `seek` is in frames of 10 ms; `avg_logprob` and `no_speech_prob` are of the 30 s window the segment came from."""

    seek: int = 0
    tokens: Tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0

    def to_json(self) -> Json:
        return {**dataclasses.asdict(self), "tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Decoding:
        known = _known(cls, data)
        return cls(**{**known, "tokens": tuple(known.get("tokens", ()))})


@dataclass(frozen=True)
class Segment:
    """A stretch of speech, mostly a sentence. `text` is as the engine wrote it, with its leading space.

    `confidence` is from 0 to 1 (Whisper engines: exp(avg_logprob) of the window). `flags` say what an audit found."""

    start_ms: int
    end_ms: int
    text: str
    words: Tuple[Word, ...] = ()
    speaker: Optional[str] = None
    language: Optional[str] = None
    confidence: Optional[float] = None
    flags: Tuple[str, ...] = ()
    decoding: Optional[Decoding] = None

    def to_json(self) -> Json:
        return _compact(
            {
                "start_ms": self.start_ms,
                "end_ms": self.end_ms,
                "text": self.text,
                "words": [w.to_json() for w in self.words],
                "speaker": self.speaker,
                "language": self.language,
                "confidence": self.confidence,
                "flags": list(self.flags),
                "decoding": self.decoding.to_json() if self.decoding else None,
            }
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Segment:
        known = _known(cls, data)
        known["words"] = tuple(Word.from_json(w) for w in known.get("words", ()))
        known["flags"] = tuple(known.get("flags", ()))
        if known.get("decoding") is not None:
            known["decoding"] = Decoding.from_json(known["decoding"])
        return cls(**known)

    def piece(self, words: Sequence[Word]) -> Segment:
        """Some of its words, at least one, as a segment from the first's start to the last's end."""
        # Tokens cannot be told apart by word, so a piece keeps the numbers of its window and no tokens.
        decoding = dataclasses.replace(self.decoding, tokens=()) if self.decoding else None
        return dataclasses.replace(
            self,
            start_ms=words[0].start_ms,
            end_ms=words[-1].end_ms,
            text="".join(word.text for word in words),
            words=tuple(words),
            decoding=decoding,
        )

    def shifted(self, by_ms: int) -> Segment:
        """The same segment `by_ms` later."""
        return self.retimed(lambda ms: ms + by_ms)

    def retimed(self, clock: Any) -> Segment:
        """The same segment with every time passed through `clock(ms) -> ms`."""
        words = tuple(dataclasses.replace(w, start_ms=clock(w.start_ms), end_ms=clock(w.end_ms)) for w in self.words)
        return dataclasses.replace(self, start_ms=clock(self.start_ms), end_ms=clock(self.end_ms), words=words)


@dataclass(frozen=True)
class Turn:
    """One speaker speaks from `start_ms` to `end_ms`. As an answer of speech detection, `speaker` is empty."""

    start_ms: int
    end_ms: int
    speaker: str = ""

    def to_json(self) -> Json:
        return dataclasses.asdict(self)

    def shifted(self, by_ms: int) -> Turn:
        """The same turn `by_ms` later."""
        return dataclasses.replace(self, start_ms=self.start_ms + by_ms, end_ms=self.end_ms + by_ms)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Turn:
        return cls(**_known(cls, data))


@dataclass(frozen=True)
class Speaker:
    """`id` is stable (`S1` speaks first); `label` is what people read and edit. `distance`: how far the voice is from
    the nearest one that is enrolled (cosine distance, 0 to 2)."""

    id: str
    label: str
    distance: Optional[float] = None

    def to_json(self) -> Json:
        return _compact(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Speaker:
        return cls(**_known(cls, data))


@dataclass(frozen=True)
class Audio:
    """The recording. `duration_ms` is what was decoded, not what a header promised."""

    name: str
    sha256: str
    duration_ms: int
    bytes: Optional[int] = None
    modified_ns: Optional[int] = None

    def to_json(self) -> Json:
        return _compact(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Audio:
        return cls(**_known(cls, data))


@dataclass(frozen=True)
class Step:
    """One engine's part in a transcript: everything needed to run it again."""

    task: str
    engine: str
    engine_version: str
    model: Optional[str] = None
    model_revision: Optional[str] = None
    model_sha256: Optional[str] = None
    device: Optional[str] = None
    compute_type: Optional[str] = None
    environment: Optional[str] = None
    why: Optional[str] = None
    options: Json = field(default_factory=dict)
    packages: Dict[str, str] = field(default_factory=dict)
    elapsed_ms: Optional[int] = None

    def to_json(self) -> Json:
        return _compact(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Step:
        return cls(**_known(cls, data))


@dataclass(frozen=True)
class Provenance:
    """Who made a transcript, when, with what. `key` is the digest of the plan for this recording: a run with the
    same key need not be done again."""

    kuulo: str
    key: str
    steps: Tuple[Step, ...] = ()
    host: Optional[str] = None
    started: Optional[str] = None
    elapsed_ms: Optional[int] = None
    resumed: Optional[int] = None

    def to_json(self) -> Json:
        return _compact({**dataclasses.asdict(self), "steps": [s.to_json() for s in self.steps]})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Provenance:
        known = _known(cls, data)
        known["steps"] = tuple(Step.from_json(s) for s in known.get("steps", ()))
        return cls(**known)


@dataclass(frozen=True)
class Transcript:
    """The master copy (`NAME.json`); every other format is rendered from it. `turns` are there where no words were
    recognised (`kuulo diarize`); else the segments have the speakers."""

    audio: Audio
    segments: Tuple[Segment, ...]
    language: Optional[str] = None
    language_confidence: Optional[float] = None
    speakers: Tuple[Speaker, ...] = ()
    provenance: Optional[Provenance] = None
    schema: int = SCHEMA
    turns: Tuple[Turn, ...] = ()

    @property
    def text(self) -> str:
        """All words, as the engine wrote them."""
        return "".join(s.text for s in self.segments)

    def to_json(self) -> Json:
        return {
            "schema": self.schema,
            "audio": self.audio.to_json(),
            **_compact(
                {
                    "language": self.language,
                    "language_confidence": self.language_confidence,
                    "speakers": [s.to_json() for s in self.speakers],
                }
            ),
            "segments": [s.to_json() for s in self.segments],
            **_compact(
                {
                    "turns": [t.to_json() for t in self.turns],
                    "provenance": self.provenance.to_json() if self.provenance else None,
                }
            ),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Transcript:
        """Raises KeyError or TypeError when `data` is not a transcript."""
        known = _known(cls, data)
        known["audio"] = Audio.from_json(data["audio"])
        known["segments"] = tuple(Segment.from_json(s) for s in data["segments"])
        known["speakers"] = tuple(Speaker.from_json(s) for s in data.get("speakers", ()))
        known["turns"] = tuple(Turn.from_json(t) for t in data.get("turns", ()))
        if data.get("provenance") is not None:
            known["provenance"] = Provenance.from_json(data["provenance"])
        return cls(**known)
