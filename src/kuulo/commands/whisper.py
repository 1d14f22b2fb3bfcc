"""`whisper`: openai/whisper's command line (whisper/transcribe.py, `cli`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kuulo import languages
from kuulo.commands import base, writers
from kuulo.commands.base import (
    FASTER_WHISPER,
    OPENAI_WHISPER,
    TRANSFORMERS,
    WHISPER_CPP,
    Argument,
    Common,
    Given,
    Heard,
    Own,
    Program,
    Raw,
    Wanted,
    optional_float,
    optional_int,
    str2bool,
)
from kuulo.transcript import Segment

MODELS = (
    "tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium", "large-v1", "large-v2",
    "large-v3", "large", "large-v3-turbo", "turbo",
)  # fmt: skip

FORMATS = ("txt", "vtt", "srt", "tsv", "json")
"""In the order in which they are written."""


def same(name: str) -> dict[str, str]:
    """An option that openai-whisper and faster-whisper call alike."""
    return {OPENAI_WHISPER: name, FASTER_WHISPER: name}


def token_numbers(text: str) -> list[int]:
    """faster-whisper takes a list where the programs take a text."""
    return [int(number) for number in text.split(",")] if text else []


def greedy_if_none(beam_size: int | None) -> int:
    """No beam search is a beam of one."""
    return beam_size or 1


def shown_formats(name: str) -> Sequence[str]:
    """--output_format in Kuulo's grammar."""
    chosen = FORMATS if name == "all" else (name,)
    return "--format", ",".join("whisper-json" if f == "json" else f for f in chosen)


THRESHOLDS = (
    Argument(("--compression_ratio_threshold",), Raw(names={**same("compression_ratio_threshold"),
             TRANSFORMERS: "compression_ratio_threshold"}), 2.4, optional_float),
    Argument(("--logprob_threshold",), Raw(names={OPENAI_WHISPER: "logprob_threshold",
             FASTER_WHISPER: "log_prob_threshold", TRANSFORMERS: "logprob_threshold", WHISPER_CPP: "logprob_thold"}),
             -1.0, optional_float),
    Argument(("--no_speech_threshold",), Raw(names={**same("no_speech_threshold"),
             TRANSFORMERS: "no_speech_threshold", WHISPER_CPP: "no_speech_thold"}), 0.6, optional_float),
)  # fmt: skip

PUNCTUATION = (
    Argument(("--prepend_punctuations",), Raw("of word times", names=same("prepend_punctuations")), "\"'“¿([{-", str),
    Argument(("--append_punctuations",), Raw("of word times", names=same("append_punctuations")),
             "\"'.。,，!！?？:：”)]}、", str),
)  # fmt: skip


def a_number_of(name: str) -> Argument:
    """An option of the layout of srt and vtt; 0 is as good as nothing."""
    return Argument((f"--{name}",), Common("in srt and vtt", name, lambda n: n or None), None, optional_int)


LINE_WIDTH, LINE_COUNT = a_number_of("max_line_width"), a_number_of("max_line_count")
HIGHLIGHT = Argument(("--highlight_words",), Common("in srt and vtt", "highlight_words", lambda on: on or None), False,
                     str2bool)  # fmt: skip
LAYOUT = (HIGHLIGHT, LINE_WIDTH, LINE_COUNT, a_number_of("max_words_per_line"))
WORD_OPTIONS = ("highlight_words", "max_line_count", "max_line_width", "max_words_per_line")
"""In the order in which the programs look at them."""

TEMPERATURES = Own("together they are Kuulo's --temperature: the list of what is tried in turn")

ARGUMENTS = (
    Argument(("audio",), Own("the recordings"), nargs="+", type=str),
    Argument(("--model",), Common("a name, or the path of a .pt file", "model"), "turbo"),
    Argument(("--model_dir",), Own("looked into for NAME.pt before Kuulo's own stores"), None, str),
    Argument(("--device",), Common("without it: a GPU where there is one", "device"), None),
    Argument(("--output_dir", "-o"), Common("", "output"), ".", str),
    Argument(("--output_format", "-f"), Own("all: txt, vtt, srt, tsv, json", shown_formats), "all", str,
             (*FORMATS, "all")),
    Argument(("--verbose",), Own("whether the text is printed on standard output",
             lambda on: ("--print",) if on else ()), True, str2bool),
    Argument(("--task",), Common("", "task"), "transcribe", str, ("transcribe", "translate")),
    Argument(("--language",), Common("without it: found out on the first 30 s", "language"), None, str,
             base.language_choices()),
    Argument(("--temperature",), TEMPERATURES, 0, float),
    Argument(("--best_of",), Raw("at temperatures above 0", names={**same("best_of")}), 5, optional_int),
    Argument(("--beam_size",), Common("None is 1", "beam_size", greedy_if_none), 5, optional_int),
    Argument(("--patience",), Raw(names=same("patience")), None, float),
    Argument(("--length_penalty",), Raw(names=same("length_penalty")), None, float),
    Argument(("--suppress_tokens",), Raw(names=same("suppress_tokens"), values={FASTER_WHISPER: token_numbers}), "-1",
             str),
    Argument(("--initial_prompt",), Common("", "initial_prompt"), None, str),
    Argument(("--carry_initial_prompt",), Raw(names={OPENAI_WHISPER: "carry_initial_prompt",
             WHISPER_CPP: "carry_initial_prompt"}), False, str2bool),
    Argument(("--condition_on_previous_text",), Common("", "condition_on_previous_text"), True, str2bool),
    Argument(("--fp16",), Common("True: float16 on a GPU, float32 on a CPU, which is Kuulo's auto",
             "compute_type", lambda on: None if on else "float32"), True, str2bool),
    Argument(("--temperature_increment_on_fallback",), TEMPERATURES, 0.2, optional_float),
    *THRESHOLDS,
    Argument(("--word_timestamps",), Common("", "word_times"), False, str2bool),
    *PUNCTUATION,
    *LAYOUT,
    Argument(("--threads",), Common("0: as many as there are", "threads", lambda n: n or None), 0, optional_int),
    Argument(("--clip_timestamps",), Own("START or START,END become --from and --to; several clips are refused"), "0",
             str),
    Argument(("--hallucination_silence_threshold",), Raw("needs word times",
             names=same("hallucination_silence_threshold")), None, optional_float),
)  # fmt: skip


def clip(text: str) -> dict[str, int]:
    """--clip_timestamps as Kuulo's `from` and `to` (ms)."""
    times = [float(t) for t in text.split(",")] if text else []
    if len(times) > 2:
        raise base.Stop(2, "whisper: --clip_timestamps: refused: Kuulo takes one clip of a recording, not several\n")
    found = {name: round(t * 1000) for name, t in zip(("from", "to"), times, strict=False)}
    return {name: ms for name, ms in found.items() if ms or name == "to"}


DETECTING = "Detecting language using up to the first 30 seconds. Use `--language` to specify the language\n"


class Whisper(Program):
    """openai/whisper."""

    name = "whisper"
    summary = "OpenAI's own command line."
    url = "https://github.com/openai/whisper"
    version = "20250625"
    engine = OPENAI_WHISPER
    arguments = ARGUMENTS
    surprises = (
        "The default model is turbo, which cannot translate: with --task translate it writes the language spoken.",
        "All five formats are written into the current folder, over whatever is there.",
        "A recording that fails is skipped and the exit code stays 0.",
        "Names of languages are written into the json as they were typed: English and not en.",
    )

    def model_type(self, has_model: Callable[[str], bool]) -> Callable[[str], Any]:
        def valid_model_name(name: str) -> str:
            if name in MODELS or (name and Path(name).exists()) or has_model(name):
                return name
            raise ValueError(f"model should be one of {MODELS} or path to a model checkpoint")

        return valid_model_name

    def understand(self, given: Given) -> Wanted:
        values = given.values
        model, language = values["model"], values["language"]
        language, warnings = base.english_only(model, language)
        options, raw = self.common(given)
        options["model"] = downloaded(values["model_dir"], model)
        options["temperature"] = base.temperatures(values["temperature"], values["temperature_increment_on_fallback"])
        options |= clip(values["clip_timestamps"])
        if language is not None:
            options["language"] = languages.code(language)
        if not values["word_timestamps"]:
            for name in WORD_OPTIONS:
                if values[name]:
                    self.error(f"--{name} requires --word_timestamps True")
        return Wanted(
            given=Given({**values, "language": language}, given.typed),
            audio=tuple(values["audio"]),
            options=options,
            raw=raw,
            folder=values["output_dir"],
            formats=FORMATS if values["output_format"] == "all" else (values["output_format"],),
            layout=base.layout(values),
            warnings=(*warnings, *layout_warnings(values)),
        )

    def files(self, wanted: Wanted, heard: Heard, number: int) -> dict[str, bytes]:
        made = {}
        for name in wanted.formats:
            path = base.in_folder(wanted.folder, f"{base.stem(heard.path)}.{name}")
            if name == "json":
                typed = wanted.value("language") or heard.language
                made[path] = writers.openai_json(heard, typed, wanted.value("word_timestamps"), base.zero(wanted))
            else:
                made[path] = writers.text(name, heard, wanted.layout)
        return made

    def begins(self, wanted: Wanted, path: str) -> str:
        if not wanted.value("verbose") or wanted.value("language"):
            return ""
        return DETECTING

    def language(self, wanted: Wanted, code: str, probability: float | None) -> str:
        return "" if wanted.value("language") else f"Detected language: {languages.name(code)}\n"

    def says(self, wanted: Wanted, path: str, segment: Segment) -> str:
        return base.timed(segment) if wanted.value("verbose") else ""

    def fails(self, wanted: Wanted, path: str, why: str) -> tuple[str, str]:
        return f"Skipping {path} due to RuntimeError: {why}\n", f"whisper: {path}: {why}\n"

    def closing(self, wanted: Wanted, failed: int) -> tuple[str, int]:
        return "", 0


def downloaded(folder: str | None, model: str) -> str:
    """The model as Kuulo names it: a path where it is one, or where --model_dir has it."""
    if model not in MODELS and Path(model).exists():
        return base.model_path(model)
    there = Path(folder) / f"{model}.pt" if folder else None
    return base.model_path(str(there)) if there and there.is_file() else model


def layout_warnings(values: Any) -> tuple[str, ...]:
    """What the program warns of."""
    warnings = []
    if values["max_line_count"] and not values["max_line_width"]:
        warnings.append("--max_line_count has no effect without --max_line_width")
    if values["max_words_per_line"] and values["max_line_width"]:
        warnings.append("--max_words_per_line has no effect with --max_line_width")
    return tuple(warnings)


PROGRAM = Whisper()
