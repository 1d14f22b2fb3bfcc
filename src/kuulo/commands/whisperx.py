"""`whisperx`: faster-whisper behind speech detection, then alignment and speakers (whisperx/__main__.py).

Kuulo has no alignment model: words' times are the engine's own, and it says so.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from kuulo import languages
from kuulo.commands import base, whisper, writers
from kuulo.commands.base import (
    FASTER_WHISPER,
    OWN_SPEAKERS,
    Argument,
    Common,
    Given,
    Heard,
    Idle,
    Own,
    Program,
    Raw,
    Refused,
    Wanted,
    optional_float,
    optional_int,
    str2bool,
)
from kuulo.formats import Layout
from kuulo.transcript import Segment

NO_ALIGNMENT = "Kuulo has no alignment model"
IF_DIARIZING = Own("with --diarize")
PARSED = Idle("the original parses it and does not use it")
OWN_DETECTION = "Kuulo's speech detection (Silero VAD) has no such setting"


def shown_formats(name: str) -> Sequence[str]:
    """--output_format in Kuulo's grammar; `aud` has no name there."""
    return () if name == "aud" else whisper.shown_formats(name)


def compute_type(name: str) -> str | None:
    """default: float16 on a GPU and float32 on a CPU, which no one word of Kuulo's says: auto is nearest."""
    return None if name == "default" else name


ARGUMENTS = (
    Argument(("audio",), Own("the recordings"), nargs="+", type=str),
    Argument(("--model",), Common("a name, a name at the Hugging Face hub, or a folder", "model", base.model_name),
             "small"),
    Argument(("--model_cache_only",), Idle("Kuulo never fetches anything while it transcribes"), False, str2bool),
    Argument(("--model_dir",), Idle("Kuulo looks into its own stores: `kuulo models list`"), None, str),
    Argument(("--device",), Own("with --device_index", lambda name: ("--device", name) if name else ()), None),
    Argument(("--device_index",), Own("the number of the GPU: cuda:N in Kuulo"), 0, int),
    Argument(("--batch_size",), Common("windows of one recording decoded together", "batch_size"), 8, int),
    Argument(("--compute_type",), Common("default: float16 on a GPU; on a CPU Kuulo's auto, and not float32",
             "compute_type", compute_type), "default", str, ("default", "float16", "float32", "int8")),
    Argument(("--output_dir", "-o"), Common("", "output"), ".", str),
    Argument(("--output_format", "-f"), Own("all: txt, vtt, srt, tsv, json, and not aud", shown_formats), "all", str,
             ("all", "srt", "vtt", "txt", "tsv", "json", "aud")),
    Argument(("--verbose",), Idle("it is about messages on standard error"), True, str2bool),
    Argument(("--log-level",), Idle("it is about messages on standard error"), None, str,
             ("debug", "info", "warning", "error", "critical")),
    Argument(("--task",), Common("", "task"), "transcribe", str, ("transcribe", "translate")),
    Argument(("--language",), Common("without it: found out on the first 30 s", "language", lambda name: name and
             languages.code(name)), None, str, base.language_choices("mandarin")),
    Argument(("--align_model",), Refused(NO_ALIGNMENT), None),
    Argument(("--interpolate_method",), Idle("words' times are the engine's: none is missing"), "nearest", None,
             ("nearest", "linear", "ignore")),
    Argument(("--no_align",), Own("no words' times: --no-word-times"), False, action="store_true"),
    Argument(("--return_char_alignments",), Refused(NO_ALIGNMENT), False, action="store_true"),
    Argument(("--vad_method",), Idle("Kuulo's speech detection is Silero VAD, whichever is named"), "pyannote", str,
             ("pyannote", "silero")),
    Argument(("--vad_onset",), Refused(OWN_DETECTION), 0.5, float),
    Argument(("--vad_offset",), Refused(OWN_DETECTION), 0.363, float),
    Argument(("--chunk_size",), Raw("seconds of a window", names={FASTER_WHISPER: "chunk_length"}), 30, int),
    Argument(("--diarize",), Own(f"--min_speakers and --max_speakers make it a number or a range; {OWN_SPEAKERS}",
             lambda on: ("--speakers", "auto") if on else ()), False, action="store_true"),
    Argument(("--min_speakers",), IF_DIARIZING, None, int),
    Argument(("--max_speakers",), IF_DIARIZING, None, int),
    Argument(("--diarize_model",), Idle(OWN_SPEAKERS), "pyannote/speaker-diarization-community-1", str),
    Argument(("--speaker_embeddings",), Refused("Kuulo puts nobody's voice into a transcript"), False,
             action="store_true"),
    Argument(("--temperature",), whisper.TEMPERATURES, 0, float),
    Argument(("--best_of",), PARSED, 5, optional_int),
    Argument(("--beam_size",), Common("None is 1", "beam_size", whisper.greedy_if_none), 5, optional_int),
    Argument(("--patience",), Raw(names=whisper.same("patience")), 1.0, float),
    Argument(("--length_penalty",), Raw(names=whisper.same("length_penalty")), 1.0, float),
    Argument(("--suppress_tokens",), Raw(names=whisper.same("suppress_tokens"),
             values={FASTER_WHISPER: whisper.token_numbers}), "-1", str),
    Argument(("--suppress_numerals",), Refused("no engine of Kuulo's has it"), False, action="store_true"),
    Argument(("--initial_prompt",), Common("", "initial_prompt"), None, str),
    Argument(("--hotwords",), Common("", "hotwords"), None, str),
    Argument(("--condition_on_previous_text",), PARSED, False, str2bool),
    Argument(("--fp16",), PARSED, True, str2bool),
    Argument(("--temperature_increment_on_fallback",), Idle(
             "the original decodes each window at the first temperature alone, and so does Kuulo"), 0.2,
             optional_float),
    *whisper.THRESHOLDS,
    whisper.LINE_WIDTH,
    whisper.LINE_COUNT,
    whisper.HIGHLIGHT,
    Argument(("--segment_resolution",), PARSED, "sentence", str, ("sentence", "chunk")),
    Argument(("--threads",), Common("0: as many as there are", "threads", lambda n: n or None), 0, optional_int),
    Argument(("--hf_token",), Idle(OWN_SPEAKERS), None, str, secret=True),
    Argument(("--print_progress",), Idle("it is about messages"), False, str2bool),
    Argument(("--version", "-V"), Own(), "%(prog)s 3.8.6", action="version"),
    Argument(("--python-version", "-P"), Own(), "Kuulo's Python", action="version"),
)  # fmt: skip


class WhisperX(Program):
    """whisperX."""

    name = "whisperx"
    summary = "Whisper behind speech detection, with alignment and speakers."
    url = "https://github.com/m-bain/whisperX"
    version = "3.8.6"
    engine = FASTER_WHISPER
    arguments = ARGUMENTS
    surprises = (
        "The default model is small. Speech detection and batches of 8 windows are always on.",
        "--condition_on_previous_text, --fp16 and --best_of are parsed and ignored, and so is --segment_resolution.",
        "Nothing is written until every recording is through all stages, and one that fails ends all. Kuulo writes "
        "each as it is done, and then exits with 1.",
        "The language in the json is that of --language, and `en` where none was given, also when another was found.",
        "Words' times are of an alignment model. Kuulo has none and writes the engine's own.",
        "With --diarize a sentence of two speakers is given to one of them whole. Kuulo cuts it where they change.",
    )

    def understand(self, given: Given) -> Wanted:
        values = given.values
        language, warnings = base.english_only(
            values["model"], languages.code(values["language"]) if values["language"] else None, "received"
        )
        options, raw = self.common(given)
        aligned = not values["no_align"] and values["task"] != "translate"
        if not aligned:
            for name in ("highlight_words", "max_line_count", "max_line_width"):
                if values[name]:
                    self.error(f"--{name} not possible with --no_align")
        else:
            warnings = (*warnings, f"{NO_ALIGNMENT}: words' times are the engine's own")
        options["speech_detection"] = True
        options["word_times"] = aligned
        options["condition_on_previous_text"] = False
        options["temperature"] = (values["temperature"],)
        if values["device"]:
            options["device"] = base.device(values["device"], values["device_index"])
        if language:
            options["language"] = language
        if values["diarize"]:
            options["speakers"] = base.speakers(None, values["min_speakers"], values["max_speakers"])
        if values["max_line_count"] and not values["max_line_width"]:
            warnings = (*warnings, "--max_line_count has no effect without --max_line_width")
        formats = whisper.FORMATS if values["output_format"] == "all" else (values["output_format"],)
        return Wanted(
            given=Given({**values, "language": language, "aligned": aligned}, given.typed),
            audio=tuple(values["audio"]),
            options=options,
            raw=raw,
            folder=values["output_dir"],
            formats=formats,
            layout=base.layout(values),
            warnings=warnings,
        )

    def files(self, wanted: Wanted, heard: Heard, number: int) -> dict[str, bytes]:
        made = {}
        for name in wanted.formats:
            path = base.in_folder(wanted.folder, f"{base.stem(heard.path)}.{name}")
            if name == "json":
                made[path] = whisperx_json(heard, wanted.value("language") or "en", aligned=wanted.value("aligned"))
            elif name == "aud":
                made[path] = audacity(heard)
            elif name == "tsv":
                made[path] = writers.text(name, heard, Layout())
            else:
                layout = wanted.layout if wanted.value("aligned") else Layout()
                made[path] = writers.before_cues(name, bare_words(heard), layout, before, between(heard))
        return made


def before(segment: Segment) -> str:
    """What whisperX puts before what a speaker says."""
    return f"[{base.speaker_name(segment.speaker)}]: " if segment.speaker else ""


def bare_words(heard: Heard) -> Heard:
    """With words as whisperX has them: without white space, which then takes no room in a line."""
    segments = [
        dataclasses.replace(s, words=tuple(dataclasses.replace(w, text=w.text.strip()) for w in s.words))
        for s in heard.segments
    ]
    return dataclasses.replace(heard, segments=tuple(segments))


def between(heard: Heard) -> str:
    """What is put between words, also at the end of a line."""
    return "" if heard.language in ("ja", "zh") else " "


def whisperx_json(heard: Heard, language: str, *, aligned: bool) -> bytes:
    """Its json: with alignment, words with their scores; without, segments alone. Speakers where they are known."""
    segments: list[dict[str, Any]] = []
    every: list[dict[str, Any]] = []
    for segment in heard.segments:
        times = {"start": segment.start_ms / 1000, "end": segment.end_ms / 1000}
        speaker = base.speaker_name(segment.speaker)
        who = {"speaker": speaker} if speaker else {}
        if not aligned:
            segments.append({"text": segment.text, **times, **who})
            continue
        words = [
            {
                "word": w.text.strip(),
                "start": w.start_ms / 1000,
                "end": w.end_ms / 1000,
                "score": None if w.confidence is None else round(w.confidence, 3),
                **who,
            }
            for w in segment.words
        ]
        segments.append({**times, "text": segment.text, "words": words, **who})
        every += words
    data: dict[str, Any] = {"segments": segments}
    if aligned:
        data["word_segments"] = every
    return json.dumps({**data, "language": language}, ensure_ascii=False).encode("utf-8", "replace")


def audacity(heard: Heard) -> bytes:
    """Labels for Audacity: start, end and text, in seconds."""
    return "".join(
        f"{s.start_ms / 1000}\t{s.end_ms / 1000}\t{f'[[{name}]]' if (name := base.speaker_name(s.speaker)) else ''}"
        f"{s.text.strip()}\n".replace("\t ", "\t")
        for s in heard.segments
    ).encode("utf-8", "replace")


PROGRAM = WhisperX()
