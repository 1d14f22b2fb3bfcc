"""`whisper-ctranslate2`: faster-whisper's command line in the manner of openai/whisper's, by Jordi Mas.

The command line behind many clusters' Whisper modules.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
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
    Stop,
    Wanted,
    optional_float,
    optional_int,
)
from kuulo.transcript import Segment

MODELS = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large-v1", "large-v2",
    "large-v3", "large-v3-turbo", "turbo", "distil-large-v2", "distil-large-v3", "distil-large-v3.5",
    "distil-medium.en", "distil-small.en",
)  # fmt: skip

COMPUTE_TYPES = (
    "default", "auto", "int8", "int8_float16", "int8_bfloat16", "int8_float32", "int16", "float16", "float32",
    "bfloat16",
)  # fmt: skip

COLOURS = (196, 202, 208, 214, 220, 226, 190, 154, 118, 82)
"""Of the terminal, from unsure to sure, for --print_colors."""

BATCH = 8
"""faster-whisper's own batch size."""


def _str2bool(string: str) -> bool:
    known = {"true": True, "false": False}
    if string and string.lower() in known:
        return known[string.lower()]
    raise ValueError(f"Expected one of {set(known)}, got {string}")


def _optional_int(string: str) -> int | None:
    return optional_int(string)


def _optional_float(string: str) -> float | None:
    return optional_float(string)


def compute_type(name: str) -> str | None:
    """As Kuulo names it. `int16` has no name there and is passed on, to be refused with the names that there are."""
    return None if name == "auto" else name


def only(name: str) -> dict[str, str]:
    """An option that faster-whisper alone has."""
    return {FASTER_WHISPER: name}


VAD = Raw("part of vad_parameters of faster-whisper; without effect where no speech detection is on", names={})
LIVE = "Kuulo transcribes recordings, not a microphone"
IF_LIVE = Idle("without --live_transcribe the original does not look at it either")
IF_SPEAKERS = Own("with --hf_token")

ARGUMENTS = (
    Argument(("audio",), Own("the recordings"), nargs="*", type=str),
    Argument(("--model",), Own("a name in Kuulo's stores", lambda name: ("--model", name)), "small"),
    Argument(("--model_directory",), Own("a CTranslate2 folder, taken as it is; --model is then not looked at",
             lambda path: ("--model", path) if path else ()), None, str),
    Argument(("--model_dir",), Own("a Hugging Face cache: looked into before Kuulo's own stores"), None, str),
    Argument(("--local_files_only",), Idle("Kuulo never fetches anything while it transcribes"), False, _str2bool),
    Argument(("--output_dir", "-o"), Common("", "output"), ".", str),
    Argument(("--output_format", "-f"), Own("all: txt, vtt, srt, tsv, json", whisper.shown_formats), "all", str,
             (*whisper.FORMATS, "all")),
    Argument(("--pretty_json", "-p"), Own("the json with line breaks"), False, _str2bool),
    Argument(("--print_colors",), Own("the printed text coloured by confidence; word times are then made and written"),
             False, _str2bool),
    Argument(("--verbose",), Own("whether the text is printed on standard output",
             lambda on: ("--print",) if on else ()), True, _str2bool),
    *(Argument(a.flags, a.becomes, a.default, _str2bool if a.type is base.str2bool else _optional_int)
      for a in whisper.LAYOUT),
    Argument(("--device",), Own("with --device_index", lambda name: ("--device", name) if name != "auto" else ()),
             "auto", None, ("auto", "cpu", "cuda")),
    Argument(("--threads",), Common("0: as many as there are", "threads", lambda n: n or None), 0, _optional_int),
    Argument(("--device_index",), Own("the number of the GPU: cuda:N in Kuulo"), 0, int),
    Argument(("--compute_type",), Common("default is the model file's own", "compute_type", compute_type), "auto",
             None, COMPUTE_TYPES),
    Argument(("--task",), Common("", "task"), "transcribe", str, ("transcribe", "translate")),
    Argument(("--language",), Common("without it: found out on the first 30 s", "language"), None, str,
             base.language_choices()),
    Argument(("--temperature",), whisper.TEMPERATURES, 0, float),
    Argument(("--temperature_increment_on_fallback",), whisper.TEMPERATURES, 0.2, _optional_float),
    Argument(("--prompt_reset_on_temperature",), Raw(names=only("prompt_reset_on_temperature")), 0.5, float),
    Argument(("--prefix",), Raw(names=only("prefix")), None, str),
    Argument(("--best_of",), Raw("at temperatures above 0", names=whisper.same("best_of")), 5, _optional_int),
    Argument(("--beam_size",), Common("None is 1", "beam_size", whisper.greedy_if_none), 5, _optional_int),
    Argument(("--patience",), Raw(names=whisper.same("patience")), 1.0, float),
    Argument(("--length_penalty",), Raw(names=whisper.same("length_penalty")), 1.0, float),
    Argument(("--suppress_blank",), Raw(names=whisper.same("suppress_blank")), True, _str2bool),
    Argument(("--suppress_tokens",), Raw(names=whisper.same("suppress_tokens"),
             values={FASTER_WHISPER: whisper.token_numbers}), "-1", str),
    Argument(("--initial_prompt",), Common("", "initial_prompt"), None, str),
    Argument(("--condition_on_previous_text",), Common("not with --batched True", "condition_on_previous_text"), True,
             _str2bool),
    *(Argument(a.flags, a.becomes, a.default, _optional_float) for a in whisper.THRESHOLDS),
    Argument(("--word_timestamps",), Common("", "word_times"), False, _str2bool),
    *whisper.PUNCTUATION,
    Argument(("--repetition_penalty",), Raw(names=only("repetition_penalty")), 1.0, float),
    Argument(("--no_repeat_ngram_size",), Raw(names=only("no_repeat_ngram_size")), 0, int),
    Argument(("--hallucination_silence_threshold",), Raw("needs word times",
             names=whisper.same("hallucination_silence_threshold")), None, _optional_float),
    Argument(("--hotwords",), Common("", "hotwords"), None, str),
    Argument(("--batched",), Own("with --batch_size: --batch-size in Kuulo", lambda on: ("--batch-size", "8") if on
             else ()), False, _str2bool),
    Argument(("--batch_size",), Own("with --batched True; 8 without it", lambda n: ("--batch-size", str(n)) if n
             else ()), None, _optional_int),
    Argument(("--multilingual",), Raw("the language of every segment is found out", names=only("multilingual")), False,
             _str2bool),
    Argument(("--vad_filter",), Raw("on other engines: Kuulo's own speech detection", names=only("vad_filter"),
             instead="speech_detection"), False, _str2bool),
    Argument(("--vad_threshold",), VAD, None, float),
    Argument(("--vad_min_speech_duration_ms",), VAD, None, int),
    Argument(("--vad_max_speech_duration_s",), VAD, None, int),
    Argument(("--vad_min_silence_duration_ms",), VAD, None, int),
    Argument(("--version",), Own(), "%(prog)s 0.5.8", action="version"),
    Argument(("--hf_token",), Own(f"any word asks for speakers; {OWN_SPEAKERS}. Two, unless --speaker_num says another "
             "number", lambda token: ("--speakers", "2") if token else ()), "", str, secret=True),
    Argument(("--speaker_name",), IF_SPEAKERS, "SPEAKER", str),
    Argument(("--speaker_num",), IF_SPEAKERS, 2, int),
    Argument(("--live_transcribe",), Refused(LIVE), False, _str2bool),
    Argument(("--live_volume_threshold",), IF_LIVE, 0.2, float),
    Argument(("--live_input_device",), IF_LIVE, None, int),
    Argument(("--live_input_device_sample_rate",), IF_LIVE, 16000, int),
)  # fmt: skip

VAD_PARAMETERS = ("threshold", "min_speech_duration_ms", "max_speech_duration_s", "min_silence_duration_ms")
"""With `vad_` before them, the options of that name."""


class WhisperCtranslate2(Program):
    """whisper-ctranslate2."""

    name = "whisper-ctranslate2"
    summary = "faster-whisper, with a command line like openai/whisper's."
    url = "https://github.com/Softcatala/whisper-ctranslate2"
    version = "0.5.8"
    engine = FASTER_WHISPER
    arguments = ARGUMENTS
    surprises = (
        "The default model is small.",
        "All five formats are written into the current folder, over whatever is there.",
        "Most mistakes in a command line are told on standard error, and the exit code is 0. So it is for a recording "
        "that fails.",
        "Giving --hf_token is what turns on speakers, and then there are always two, unless --speaker_num says "
        "otherwise.",
        "--batched True turns speech detection on and writes long segments without inner times.",
        "--max_line_count has its full effect with --max_line_width and --max_words_per_line alone.",
    )

    def choices(self, argument: Argument, has_model: Callable[[str], bool]) -> Sequence[str] | None:
        return base.Names.of(MODELS, has_model) if argument.name == "model" else argument.choices

    def model_type(self, has_model: Callable[[str], bool]) -> None:
        return None

    def understand(self, given: Given) -> Wanted:
        values = given.values
        model, folder = values["model"], values["model_directory"]
        language = languages.code(values["language"]) if values["language"] else None
        warnings: tuple[str, ...] = ()
        if not folder:
            language, warnings = base.english_only(model, language)
        self._check(values)
        options, raw = self.common(given)
        options["temperature"] = base.temperatures(values["temperature"], values["temperature_increment_on_fallback"])
        options["device"] = base.device(values["device"], values["device_index"])
        if language is not None:
            options["language"] = language
        if values["print_colors"]:
            options["word_times"] = True
        options["model"] = self._model(values)
        always: dict[str, Any] = {}
        if values["batched"]:
            options["batch_size"] = values["batch_size"] or BATCH
            options["condition_on_previous_text"] = False
            options["temperature"] = options["temperature"][:1]
            always["without_timestamps"] = True
        if values["hf_token"]:
            options["speakers"] = base.speakers(values["speaker_num"])
        detect = {n: values[f"vad_{n}"] for n in VAD_PARAMETERS if values[f"vad_{n}"]}
        if values["batched"] or (detect and values["vad_filter"]):
            always["vad_parameters"] = detect  # also when empty: faster-whisper's batches then cut at longer silences
        vad = {f"vad_{n}" for n in VAD_PARAMETERS}
        return Wanted(
            given=Given({**values, "language": language}, given.typed),
            audio=tuple(values["audio"]),
            options=options,
            raw=tuple((a, v) for a, v in raw if a.name not in vad),
            always_raw={FASTER_WHISPER: always},
            folder=os.path.abspath(values["output_dir"]),  # noqa: PTH100 - as the program prints it
            formats=whisper.FORMATS if values["output_format"] == "all" else (values["output_format"],),
            layout=layout(values),
            warnings=(*warnings, *whisper.layout_warnings(values)),
            hundredths=values["vad_filter"] or values["batched"],
        )

    def _check(self, values: Any) -> None:
        """What the program looks at after parsing, in its order. Its exit code is 0."""
        if not values["live_transcribe"] and not values["audio"]:
            raise Stop(
                0,
                "You need to specify one or more audio files\n"
                "Use `whisper-ctranslate2 --help` to see the available options.\n",
            )
        if not values["word_timestamps"]:
            for name in whisper.WORD_OPTIONS:
                if values[name]:
                    raise Stop(0, f"--{name} requires --word_timestamps True\n")
            if values["hallucination_silence_threshold"]:
                raise Stop(0, "--hallucination_silence_threshold requires --word_timestamps True")
        if values["batch_size"] and not values["batched"]:
            raise Stop(0, "--batched_size can only be used if --batched is True")
        if not values["verbose"] and values["print_colors"]:
            raise Stop(0, "You cannot disable verbose and enable print colors\n")

    def look(self, wanted: Wanted) -> Wanted:
        folder = wanted.value("model_directory")
        file = base.in_folder(folder, "model.bin") if folder else ""
        if file and not Path(file).exists():
            raise Stop(0, f"Model file '{file}' does not exists\n", self.opening(wanted))
        return wanted

    def _model(self, values: Any) -> str:
        if values["model_directory"]:
            return base.model_path(values["model_directory"])
        name: str = values["model"]
        if values["model_dir"]:
            caches = Path(values["model_dir"]).glob(f"models--*--faster-*{name}/snapshots/*/model.bin")
            found = sorted(c.parent for c in caches if c.parts[-4].endswith((f"whisper-{name}", f"faster-{name}")))
            if found:
                return base.model_path(str(found[-1]))
        return name

    def files(self, wanted: Wanted, heard: Heard, number: int) -> dict[str, bytes]:
        made = {}
        for name in wanted.formats:
            path = base.in_folder(wanted.folder, f"{base.stem(heard.path)}.{name}")
            if name == "json":
                # times that come back from speech detection are rounded
                detection = wanted.value("vad_filter") or wanted.value("batched")
                offset = None if detection else writers.of_faster_whisper
                pretty = wanted.value("pretty_json")
                made[path] = writers.faster_whisper_json(
                    heard, pretty=pretty, offset=offset, zero=base.zero(wanted), name=lambda s: self._who(wanted, s)
                )
            elif name == "tsv":
                made[path] = writers.text(name, heard, wanted.layout)
            else:
                named = writers.before_segments(heard, lambda s: f"[{who}]: " if (who := self._who(wanted, s)) else "")
                made[path] = writers.text(name, named, wanted.layout)
        return made

    def _who(self, wanted: Wanted, segment: Segment) -> str | None:
        name = base.speaker_name(segment.speaker)
        # An empty --speaker_name leaves pyannote's.
        return name and name.replace("SPEAKER", wanted.value("speaker_name") or "SPEAKER")

    def opening(self, wanted: Wanted) -> str:
        text = ""
        if wanted.value("verbose") and not wanted.value("language"):
            text = whisper.DETECTING
        if wanted.value("print_colors") and wanted.value("output_dir") and not wanted.value("word_timestamps"):
            text += (
                "Print colors requires word-level time stamps. Generated files in output directory will have "
                "word-level timestamps\n"
            )
        return text

    def begins(self, wanted: Wanted, path: str) -> str:
        several = wanted.value("verbose") and len(wanted.audio) > 1
        return f"\nFile: '{path} ({wanted.value('task')})'\n" if several else ""

    def language(self, wanted: Wanted, code: str, probability: float | None) -> str:
        sure = 1.0 if probability is None else probability
        return f"Detected language '{languages.name(code)}' with probability {sure:f}\n"

    def says(self, wanted: Wanted, path: str, segment: Segment) -> str:
        if wanted.value("print_colors") and segment.words:
            return base.timed(segment, "".join(_coloured(w.text, w.confidence or 0.0) for w in segment.words))
        return base.timed(segment) if wanted.value("verbose") else ""

    def fails(self, wanted: Wanted, path: str, why: str) -> tuple[str, str]:
        return "", f"Error: Unable to process file: {path}\nException Message: {why}\n"

    def closing(self, wanted: Wanted, failed: int) -> tuple[str, int]:
        if not wanted.value("verbose"):
            return "", 0
        return f"Transcription results written to '{wanted.folder}' directory\n", 0


def layout(values: Any) -> Any:
    """How subtitles are cut. 0 is not nothing here: every word then has a line of its own, as with 1."""
    from kuulo.formats import Layout

    width, count, words = (values[n] for n in ("max_line_width", "max_line_count", "max_words_per_line"))
    if words is not None and words < 1:
        raise Stop(2, "whisper-ctranslate2: --max_words_per_line: refused: the original never ends with less than 1\n")
    return Layout(
        max_line_width=None if width is None else max(1, width),
        max_line_count=count,
        max_words_per_line=words,
        highlight_words=values["highlight_words"],
        follow_segments=None in (width, count, words),
    )


def _coloured(text: str, probability: float) -> str:
    number = max(0, min(len(COLOURS) - 1, int(probability**3 * len(COLOURS))))
    return f"\033[38;5;{COLOURS[number]}m{text}\033[0m"


PROGRAM = WhisperCtranslate2()
