"""What a form says of a recording, in OpenAI's names, and what is answered in each format. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kuulo import formats, languages, plan
from kuulo.errors import KuuloError
from kuulo.formats import whisper_json
from kuulo.llm.serving.refusals import Refusal
from kuulo.plan import Plan
from kuulo.transcript import Transcript

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
SEGMENT, WORD = "segment", "word"
FIELDS: Mapping[str, str] = {"hotwords": "hotwords", "language": "language", "prompt": "initial_prompt"}
"""Text field of the form -> common option. `hotwords` is what Speaches has beside OpenAI's."""

OURS = frozenset({"model", "response_format", "stream", "temperature", "timestamp_granularities"})
NOTHING = frozenset({"", "false", "none", "null"})
"""Values with which a field that is not honoured asks for nothing."""


@dataclass(frozen=True)
class Asked:
    """A request for a transcript. `options`: the engine's, resolved."""

    options: Mapping[str, Any]
    format: str
    stream: bool
    granularities: frozenset[str]


def asked(base: Plan, task: str, form: Mapping[str, list[str]]) -> Asked:
    """What a form asks for, on top of what the server was started with. Raises Refusal: nothing is left out
    silently."""
    said = {name.removesuffix("[]"): values for name, values in form.items()}
    for name, values in said.items():
        if name not in FIELDS and name not in OURS and any(v.strip().lower() not in NOTHING for v in values):
            raise Refusal(400, f"This server has nothing like {name!r}.", "unsupported_parameter", name)
    one = {name: values[-1] for name, values in said.items()}
    form_ = one.get("response_format") or "json"
    if form_ not in FORMATS:
        raise _bad("response_format", form_, FORMATS)
    granularities = frozenset(said.get("timestamp_granularities", ()))
    if granularities - {SEGMENT, WORD}:
        raise _bad("timestamp_granularities", ", ".join(granularities), (SEGMENT, WORD))
    if granularities and form_ != "verbose_json":
        raise Refusal(
            400, "timestamp_granularities needs response_format verbose_json.", None, "timestamp_granularities"
        )
    stream = _flag(one.get("stream", ""))
    if stream and form_ != "json":
        raise Refusal(400, "A stream is events of its own: leave response_format out.", None, "response_format")
    return Asked(_options(base, task, one, WORD in granularities), form_, stream, granularities or frozenset({SEGMENT}))


def _options(base: Plan, task: str, form: Mapping[str, str], words: bool) -> dict[str, Any]:
    given: dict[str, Any] = {"task": task} if task != base.options["task"] else {}
    if words:
        given["word_times"] = True
    for name, option in FIELDS.items():
        if form.get(name):
            given[option] = form[name]
    try:
        if "language" in given:
            given["language"] = languages.code(given["language"])
        temperature = float(form.get("temperature") or 0)
    except (KuuloError, ValueError) as error:
        name = "temperature" if isinstance(error, ValueError) else "language"
        raise Refusal(400, f"{name}: {getattr(error, 'what', error)}", None, name) from error
    if not 0 <= temperature <= 1:
        raise Refusal(400, f"temperature: {temperature:g} is not between 0 and 1", None, "temperature")
    if temperature:  # 0 is OpenAI's word for what the server does anyway: rising where decoding fails
        given["temperature"] = (temperature,)
    values = {**base.options, **given}
    try:
        plan.check_options(base.spec, base.model, values, given)
    except KuuloError as error:
        raise Refusal(400, error.what, "unsupported_value") from error
    return dataclasses.replace(base, options=values).engine_options()


def _bad(name: str, value: str, known: tuple[str, ...]) -> Refusal:
    return Refusal(400, f"{name}: {value!r} is none of {', '.join(known)}.", "invalid_value", name)


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "1", "yes"):
        return True
    if word in (*NOTHING, "0", "no"):
        return False
    raise Refusal(400, f"stream: {text!r} is neither true nor false.", "invalid_value", "stream")


def answer(transcript: Transcript, request: Asked, task: str) -> tuple[bytes, str]:
    """The body and its content type."""
    text = transcript.text.strip()
    if request.format == "text":
        return f"{text}\n".encode("utf-8", "replace"), "text/plain; charset=utf-8"
    if request.format in ("srt", "vtt"):
        kind = "text/vtt" if request.format == "vtt" else "text/plain"
        return formats.render(request.format, transcript, formats.Layout()), f"{kind}; charset=utf-8"
    said: dict[str, Any] = {"text": text, "usage": usage(transcript)}
    if request.format == "verbose_json":
        said = {**_verbose(transcript, request.granularities), "task": task, **said}
    return json.dumps(said).encode("ascii"), "application/json"


def usage(transcript: Transcript) -> dict[str, Any]:
    """As OpenAI counts recordings."""
    return {"type": "duration", "seconds": -(-transcript.audio.duration_ms // 1000)}


def _verbose(transcript: Transcript, granularities: frozenset[str]) -> dict[str, Any]:
    """What the engine did not tell, as a segment's log probability, is left out and not made up."""
    said = json.loads(whisper_json.render(transcript, formats.Layout()))
    segments = said["segments"]
    words = [word for segment in segments for word in segment.pop("words", ())]
    for word in words:
        word["word"] = word["word"].strip()
    return {
        "language": languages.name(transcript.language).lower() if transcript.language else None,
        "duration": transcript.audio.duration_ms / 1000,
        **({"segments": segments} if SEGMENT in granularities else {}),
        **({"words": words} if WORD in granularities else {}),
    }
