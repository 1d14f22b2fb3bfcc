"""The files that the programs write, byte for byte, from what was heard."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kuulo import formats
from kuulo.commands.base import Heard
from kuulo.formats import Layout
from kuulo.formats.cues import cues, timestamp
from kuulo.transcript import Audio, Segment, Transcript

FIRST_TIMESTAMP = 50_363
"""The lowest number that <|0.00|> has in a Whisper vocabulary."""

Offset = Callable[[int], float]
"""Frames of 10 ms -> seconds, with the program's own rounding."""


def of_openai(seek: int) -> float:
    """openai/whisper: time_offset in transcribe.py."""
    return float(seek * 160 / 16_000)


def of_faster_whisper(seek: int) -> float:
    """faster-whisper: time_offset in transcribe.py."""
    return seek * (160 / 16_000)


def seconds(segment: Segment, offset: Offset | None) -> tuple[float, float]:
    """Start and end as the program computes them: a window's start plus steps of 0.02 s, in floating point.

    Our times are those in whole milliseconds. With words' times, and where there is no `offset` since speech detection
    moved the times, the program rounds to 0.01 s, and so they stay."""
    start, end = segment.start_ms / 1000, segment.end_ms / 1000
    if segment.decoding is None or segment.words or offset is None:
        return start, end
    window, seek = offset(segment.decoding.seek), segment.decoding.seek
    closed = bool(segment.decoding.tokens) and segment.decoding.tokens[-1] >= FIRST_TIMESTAMP
    return (
        _computed(segment.start_ms, window + (segment.start_ms - seek * 10) // 20 * 0.02),
        _computed(
            segment.end_ms,
            window + (segment.end_ms - seek * 10) // 20 * 0.02
            if closed
            else window + (segment.end_ms - seek * 10) // 10 * 160 / 16_000,
        ),
    )


def _computed(ms: int, value: float) -> float:
    """The value that the program computes, where it is the time in milliseconds."""
    return value if round(value * 1000) == ms else ms / 1000


def to_its_end(segment: Segment, length_ms: int) -> Segment:
    """The segment with the end that the engine gave. Kuulo ends it with the recording; the programs do not, and a
    last timestamp among the tokens says where they do."""
    tokens = segment.decoding.tokens if segment.decoding else ()
    if segment.words or segment.end_ms < length_ms or len(tokens) < 2 or tokens[0] < FIRST_TIMESTAMP:
        return segment
    end_ms = segment.start_ms + (tokens[-1] - tokens[0]) * 20
    if tokens[-1] < FIRST_TIMESTAMP or end_ms <= length_ms:
        return segment
    return dataclasses.replace(segment, end_ms=end_ms)


def transcript(heard: Heard) -> Transcript:
    """For Kuulo's own formats, which write these as openai/whisper does where nobody is named."""
    nobody = tuple(without_speaker(segment) for segment in heard.segments)
    return Transcript(Audio(heard.path, "", heard.length_ms), nobody, heard.language)


def without_speaker(segment: Segment) -> Segment:
    words = tuple(dataclasses.replace(word, speaker=None) for word in segment.words)
    return dataclasses.replace(segment, speaker=None, words=words)


def before_segments(heard: Heard, before: Callable[[Segment], str]) -> Heard:
    """With words before what each segment says, as a part of it: they count for the width of a line."""
    segments = []
    for segment in heard.segments:
        if said := before(segment):
            words = list(segment.words)
            if words:
                words[0] = dataclasses.replace(words[0], text=f" {said}{words[0].text.strip()}")
            segment = dataclasses.replace(segment, text=f" {said}{segment.text.strip()}", words=tuple(words))
        segments.append(segment)
    return dataclasses.replace(heard, segments=tuple(segments))


def before_cues(name: str, heard: Heard, layout: Layout, before: Callable[[Segment], str], between: str) -> bytes:
    """txt, srt or vtt with words before each line or cue that are no part of it. A cue has one speaker. `between` is
    put between the words of a cue."""
    if name == "txt":
        return text(name, before_segments(heard, before), layout)
    said = {segment.speaker or "": before(segment) for segment in heard.segments}
    named = Transcript(Audio(heard.path, "", heard.length_ms), heard.segments, heard.language)
    marker, blocks = ("," if name == "srt" else "."), []
    for number, cue in enumerate(cues(named, layout, room=lambda label: 0), start=1):
        start, end = (timestamp(ms, always_hours=name == "srt", marker=marker) for ms in (cue.start_ms, cue.end_ms))
        spaced = dataclasses.replace(cue, pieces=(*cue.pieces[:1], *(between + piece for piece in cue.pieces[1:])))
        number_ = f"{number}\n" if name == "srt" else ""
        blocks.append(f"{number_}{start} --> {end}\n{said.get(cue.speaker, '')}{spaced.text()}\n\n")
    head = "WEBVTT\n\n" if name == "vtt" else ""
    return (head + "".join(blocks)).encode("utf-8", "replace")


def text(name: str, heard: Heard, layout: Layout) -> bytes:
    """txt, srt, vtt or tsv."""
    import importlib

    content: str | bytes = importlib.import_module(formats.spec(name).module).render(transcript(heard), layout)
    return content if isinstance(content, bytes) else content.encode("utf-8", "replace")


def openai_json(heard: Heard, language: str, with_words: bool, zero: float) -> bytes:
    """openai/whisper's json: `language` is as it was typed, `zero` how it writes the temperature 0."""
    segments = []
    for number, segment in enumerate(heard.segments):
        start, end = seconds(segment, of_openai)
        one: dict[str, Any] = {"id": number, "seek": 0, "start": start, "end": end, "text": segment.text}
        if segment.decoding:
            decoding = dataclasses.asdict(segment.decoding)
            one["seek"] = decoding.pop("seek")
            one |= {**decoding, "tokens": list(segment.decoding.tokens)}
            one["temperature"] = one["temperature"] or zero
        if with_words:
            one["words"] = [
                {"word": w.text, "start": w.start_ms / 1000, "end": w.end_ms / 1000, "probability": w.confidence}
                for w in segment.words
            ]
        segments.append(one)
    return json.dumps({"text": _joined(heard.segments), "segments": segments, "language": language}).encode()


def faster_whisper_json(
    heard: Heard, *, pretty: bool, offset: Offset | None, zero: float, name: Callable[[Segment], str | None]
) -> bytes:
    """whisper-ctranslate2's json: faster-whisper's segments, from number 1 on. `zero`: how it writes the temperature
    0. `name`: of a segment's speaker."""
    segments = []
    for number, segment in enumerate(heard.segments, start=1):
        start, end = seconds(segment, offset)
        decoding: Mapping[str, Any] = dataclasses.asdict(segment.decoding) if segment.decoding else {}
        words = [
            {"start": w.start_ms / 1000, "end": w.end_ms / 1000, "word": w.text, "probability": w.confidence}
            for w in segment.words
        ]
        segments.append(
            {
                "id": number,
                "seek": decoding.get("seek", 0),
                "start": start,
                "end": end,
                "text": segment.text,
                "tokens": list(decoding.get("tokens", ())),
                "avg_logprob": decoding.get("avg_logprob"),
                "compression_ratio": decoding.get("compression_ratio"),
                "no_speech_prob": decoding.get("no_speech_prob"),
                "words": words or None,
                "temperature": decoding.get("temperature") or zero,
                **({"speaker": who} if (who := name(segment)) else {}),
            }
        )
    data = {"text": _joined(heard.segments), "segments": segments, "language": heard.language}
    content = json.dumps(data, indent=4, ensure_ascii=False) if pretty else json.dumps(data)
    return content.encode("utf-8", "replace")


def _joined(segments: Iterable[Segment]) -> str:
    return "".join(segment.text for segment in segments)
