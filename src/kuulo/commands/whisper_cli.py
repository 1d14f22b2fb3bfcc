"""`whisper-cli`: whisper.cpp's command line (examples/cli/cli.cpp), which has a parser of its own."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kuulo import audio, languages
from kuulo.commands import base
from kuulo.commands.base import (
    WHISPER_CPP,
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
)
from kuulo.commands.whisper import TEMPERATURES
from kuulo.errors import UsageError
from kuulo.formats.cues import timestamp
from kuulo.transcript import Segment

DEFAULT_MODEL = "models/ggml-base.en.bin"
MESSAGES = Idle("it is about messages on standard error")
OWN_DETECTION = Idle("Kuulo's speech detection brings its own model and settings, and without --vad it is off")
DETECTION = Refused("Kuulo's speech detection (Silero VAD) has no such setting")


def shown(name: str) -> Callable[[Any], Sequence[str]]:
    """A switch that adds a format."""
    return lambda on: ("--format", name) if on else ()


def only(name: str) -> dict[str, str]:
    """An option that whisper.cpp alone has."""
    return {WHISPER_CPP: name}


ARGUMENTS = (
    Argument(("-t", "--threads"), Common("the original's default is 4", "threads"), 4, int),
    Argument(("-p", "--processors"), Refused("it cuts a recording into parts, whose borders lose words"), 1, int),
    Argument(("-ot", "--offset-t"), Common("ms", "from", lambda ms: ms or None), 0, int),
    Argument(("-on", "--offset-n"), Own("the number of the first cue in srt"), 0, int),
    Argument(("-d", "--duration"), Own("ms: --to in Kuulo, from --offset-t on"), 0, int),
    Argument(("-mc", "--max-context"), Raw(names=only("n_max_text_ctx")), -1, int),
    Argument(("-ml", "--max-len"), Raw(names=only("max_len")), 0, int),
    Argument(("-sow", "--split-on-word"), Raw(names=only("split_on_word")), False, action="store_true"),
    Argument(("-bo", "--best-of"), Refused("Kuulo's engine keeps 5, as the original does"), 5, int),
    Argument(("-bs", "--beam-size"), Common("", "beam_size"), 5, int),
    Argument(("-ac", "--audio-ctx"), Raw(names=only("audio_ctx")), 0, int),
    Argument(("-wt", "--word-thold"), Raw(names=only("thold_pt")), 0.01, float),
    Argument(("-et", "--entropy-thold"), Raw(names=only("entropy_thold")), 2.4, float),
    Argument(("-lpt", "--logprob-thold"), Raw(names=only("logprob_thold")), -1.0, float),
    Argument(("-nth", "--no-speech-thold"), Raw(names=only("no_speech_thold")), 0.6, float),
    Argument(("-tp", "--temperature"), TEMPERATURES, 0.0, float),
    Argument(("-tpi", "--temperature-inc"), TEMPERATURES, 0.2, float),
    Argument(("-debug", "--debug-mode"), MESSAGES, False, action="store_true"),
    Argument(("-tr", "--translate"), Common("--task translate", "task", lambda on: "translate" if on else None), False,
             action="store_true"),
    Argument(("-di", "--diarize"), Own("which of two channels is louder in each segment; kuulo transcribe --speakers "
             "auto tells voices apart"), False, action="store_true"),
    Argument(("-tdrz", "--tinydiarize"), Refused("it needs a model that was trained for it (tdrz), which no engine of "
             "Kuulo's takes"), False, action="store_true"),
    Argument(("-nf", "--no-fallback"), TEMPERATURES, False, action="store_true"),
    Argument(("-otxt", "--output-txt"), Own("NAME.txt", shown("txt")), False, action="store_true"),
    Argument(("-ovtt", "--output-vtt"), Own("NAME.vtt", shown("vtt")), False, action="store_true"),
    Argument(("-osrt", "--output-srt"), Own("NAME.srt", shown("srt")), False, action="store_true"),
    Argument(("-olrc", "--output-lrc"), Own("NAME.lrc", shown("lrc")), False, action="store_true"),
    Argument(("-owts", "--output-words"), Refused("Kuulo makes no karaoke script"), False, action="store_true"),
    Argument(("-fp", "--font-path"), Idle("without --output-words the original does not look at it either"), "", str),
    Argument(("-ocsv", "--output-csv"), Own("NAME.csv", shown("csv")), False, action="store_true"),
    Argument(("-oj", "--output-json"), Own("NAME.json; what is said there of the machine and the model's size is left "
             "out", shown("whisper-json")), False, action="store_true"),
    Argument(("-ojf", "--output-json-full"), Refused("the tokens' own times and numbers are not known to Kuulo"),
             False, action="store_true"),
    Argument(("-of", "--output-file"), Own("the results' name without ending, one for each recording"), (), str,
             nargs="*"),
    Argument(("-np", "--no-prints"), MESSAGES, False, action="store_true"),
    Argument(("-ps", "--print-special"), Refused("special tokens are not known to Kuulo"), False, action="store_true"),
    Argument(("-pc", "--print-colors"), Refused("the tokens' own confidence is not known to Kuulo"), False,
             action="store_true"),
    Argument(("--print-confidence",), Refused("the tokens' own confidence is not known to Kuulo"), False,
             action="store_true"),
    Argument(("-pp", "--print-progress"), MESSAGES, False, action="store_true"),
    Argument(("-nt", "--no-timestamps"), Own("the printed text without times"), False, action="store_true"),
    Argument(("-l", "--language"), Common("auto: found out", "language"), "en", str),
    Argument(("-dl", "--detect-language"), Refused("Kuulo finds the language out and goes on: -l auto"), False,
             action="store_true"),
    Argument(("--prompt",), Common("", "initial_prompt", lambda text: text or None), "", str),
    Argument(("--carry-initial-prompt",), Raw(names={WHISPER_CPP: "carry_initial_prompt",
             base.OPENAI_WHISPER: "carry_initial_prompt"}), False, action="store_true"),
    Argument(("-m", "--model"), Common("a ggml file, or a name in Kuulo's stores", "model"), DEFAULT_MODEL, str),
    Argument(("-f", "--file"), Own("a recording; so is a word without a flag"), (), str, nargs="*"),
    Argument(("-oved", "--ov-e-device"), Idle("it is about OpenVINO, which Kuulo's engine is built without"), "CPU",
             str),
    Argument(("-dtw", "--dtw"), Common("--word-times; the heads are those of the model", "word_times",
             lambda name: True if name else None), "", str),
    Argument(("-ls", "--log-score"), Refused("the tokens' own confidence is not known to Kuulo"), False,
             action="store_true"),
    Argument(("-ng", "--no-gpu"), Common("--device cpu", "device", lambda on: "cpu" if on else None), False,
             action="store_true"),
    Argument(("-dev", "--device"), Own("the number of the GPU: cuda:N in Kuulo", lambda n: ("--device", f"cuda:{n}")
             if n else ()), 0, int),
    Argument(("-fa", "--flash-attn"), Idle("it changes the speed alone"), False, action="store_true"),
    Argument(("-nfa", "--no-flash-attn"), Idle("it changes the speed alone"), False, action="store_true"),
    Argument(("-sns", "--suppress-nst"), Raw(names=only("suppress_nst")), False, action="store_true"),
    Argument(("--suppress-regex",), Raw(names=only("suppress_regex")), "", str),
    Argument(("--grammar",), Refused("Kuulo's engine takes no grammar"), "", str),
    Argument(("--grammar-rule",), Idle("without --grammar the original does not look at it either"), "", str),
    Argument(("--grammar-penalty",), Idle("without --grammar the original does not look at it either"), 100.0, float),
    Argument(("--vad",), Common("Kuulo's own speech detection", "speech_detection", lambda on: on or None), False,
             action="store_true"),
    Argument(("-vm", "--vad-model"), OWN_DETECTION, "", str),
    Argument(("-vt", "--vad-threshold"), DETECTION, 0.5, float),
    Argument(("-vspd", "--vad-min-speech-duration-ms"), DETECTION, 250, int),
    Argument(("-vsd", "--vad-min-silence-duration-ms"), DETECTION, 100, int),
    Argument(("-vmsd", "--vad-max-speech-duration-s"), DETECTION, None, float),
    Argument(("-vp", "--vad-speech-pad-ms"), DETECTION, 30, int),
    Argument(("-vo", "--vad-samples-overlap"), DETECTION, 0.1, float),
)  # fmt: skip

LOUDER = 1.1
"""How much louder a channel must be to be the one that speaks (estimate_diarization_speaker in cli.cpp)."""

OUTPUTS = ("txt", "vtt", "srt", "csv", "json", "lrc")
"""In the order in which they are written."""


class WhisperCli(Program):
    """whisper.cpp's whisper-cli."""

    name = "whisper-cli"
    summary = "whisper.cpp's command line."
    url = "https://github.com/ggml-org/whisper.cpp"
    version = "1.8"
    engine = WHISPER_CPP
    arguments = ARGUMENTS
    cannot_run = 3
    surprises = (
        "The language is English unless -l says otherwise; -l auto finds it out.",
        "The default model is models/ggml-base.en.bin below the current folder, which knows English alone. Kuulo takes "
        "base.en of its stores where that file is not there.",
        "No file is written unless a format is asked for; its name is the recording's whole name and an ending: "
        "a.wav.srt.",
        "A mistake in the command line, a file that is not there and one that cannot be read end with exit code 0.",
        "--diarize knows no voices: it says which of two channels is louder.",
        "--no-timestamps also takes the decoder's own timestamps away there; with Kuulo it is about what is printed.",
    )

    def parse(self, words: Sequence[str], has_model: Callable[[str], bool]) -> Given:
        by_flag = {flag: argument for argument in self.arguments for flag in argument.flags}
        values: dict[str, Any] = {a.name: a.default for a in self.arguments}
        files: list[str] = []
        typed = set()
        rest = list(words)
        if len(rest) == 1 and rest[0].startswith("@"):
            rest = _response_file(rest[0][1:])
        while rest:
            word = rest.pop(0)
            if word == "-" or not word.startswith("-"):
                files.append(word)
                continue
            if word in ("-h", "--help"):
                raise Stop(0, self.usage())
            argument = by_flag.get(word)
            if argument is None:
                raise Stop(0, f"error: unknown argument: {word}\n{self.usage()}")
            typed.add(argument.name)
            if argument.is_switch:
                values[argument.name] = True
                continue
            if not rest:
                raise Stop(0, f"error: argument {word} requires value\n")
            value = _number(argument, rest.pop(0))
            if argument.name == "file":
                files.append(value)
            elif argument.name == "output_file":
                values["output_file"] = (*values["output_file"], value)
            else:
                values[argument.name] = value
        values["language"] = values["language"].lower()
        return Given({**values, "file": tuple(files)}, frozenset(typed))

    def usage(self) -> str:
        """What -h prints, on standard error."""
        lines = ["", f"usage: {self.name} [options] file0 file1 ...", "", "options:"]
        lines += [f"  {', '.join(a.flags):<46} {a.help()}" for a in self.arguments]
        return "\n".join(lines) + "\n\n"

    def understand(self, given: Given) -> Wanted:
        values = given.values
        if not values["file"]:
            raise Stop(2, f"error: no input files specified\n{self.usage()}")
        if values["language"] != "auto" and values["language"] not in languages.LANGUAGES:
            try:
                languages.code(values["language"])
            except UsageError as error:
                raise Stop(0, f"error: unknown language '{values['language']}'\n{self.usage()}") from error
        options, raw = self.common(given)
        options["model"], warnings = self._model(given)
        step = None if values["no_fallback"] or not values["temperature_inc"] else values["temperature_inc"]
        options["temperature"] = base.temperatures(values["temperature"], step)
        options["language"] = languages.code(values["language"])
        if "threads" not in given.typed:
            del options["threads"]
        if values["duration"]:
            options["to"] = values["offset_t"] + values["duration"]
        if values["device"] and not values["no_gpu"]:
            options["device"] = f"cuda:{values['device']}"
        formats = tuple(name for name in OUTPUTS if values[f"output_{name}"])
        return Wanted(given, values["file"], options, raw, formats=formats, warnings=warnings)

    def look(self, wanted: Wanted) -> Wanted:
        there = tuple(path for path in wanted.audio if path == "-" or Path(path).exists())
        missing = tuple(f"error: input file not found '{path}'" for path in wanted.audio if path not in there)
        if not there:
            raise Stop(2, "\n".join([*missing, f"error: no input files specified\n{self.usage()}"]))
        if wanted.value("diarize") and "-" in there:
            raise Stop(2, "error: --diarize: refused: Kuulo looks at the channels in the file, so name a file, not -\n")
        return dataclasses.replace(wanted, audio=there, warnings=(*wanted.warnings, *missing))

    def channel(self, wanted: Wanted, path: str, segment: Segment) -> str:
        """The louder channel of a recording in a segment: 0, 1 or ?; empty without --diarize."""
        if not wanted.value("diarize"):
            return ""
        start, end = segment.start_ms // 10, segment.end_ms // 10
        first, second = _levels(path)[start:end].sum(0)
        return "0" if first > LOUDER * second else "1" if second > LOUDER * first else "?"

    def _model(self, given: Given) -> tuple[str, tuple[str, ...]]:
        path = given.values["model"]
        if path and Path(path).exists():
            return base.model_path(path), ()
        if "model" not in given.typed:
            return "base.en", (f"{path} is not there: the model base.en of Kuulo's stores is taken",)
        return base.model_path(path) if "/" in path or path.endswith(".bin") else path, ()

    def files(self, wanted: Wanted, heard: Heard, number: int) -> dict[str, bytes]:
        names = wanted.value("output_file")
        name = names[number] if number < len(names) and names[number] else heard.path
        made = {}
        channels = [self.channel(wanted, heard.path, segment) for segment in heard.segments]
        for format_ in wanted.formats:
            text = RENDER[format_](wanted, heard, channels).encode("utf-8", "replace")
            if name == "-":
                return {"-": text}
            made[f"{name}.{format_}"] = text
        return made

    def begins(self, wanted: Wanted, path: str) -> str:
        return "" if "-" in wanted.value("output_file") else "\n"

    def says(self, wanted: Wanted, path: str, segment: Segment) -> str:
        if "-" in wanted.value("output_file"):
            return ""
        text = _before(self.channel(wanted, path, segment)) + segment.text
        if wanted.value("no_timestamps"):
            return text + ("\n" if wanted.value("diarize") else "")
        return f"[{_time(segment.start_ms)} --> {_time(segment.end_ms)}]  {text}\n"

    def fails(self, wanted: Wanted, path: str, why: str) -> tuple[str, str]:
        return "", f"error: failed to read audio data from '{path}': {why}\n"

    def closing(self, wanted: Wanted, failed: int) -> tuple[str, int]:
        return "", 0


def _number(argument: Argument, text: str) -> Any:
    """The value as C's stoi and stof read it: what is after the number is not looked at."""
    if argument.type not in (int, float):
        return text
    pattern = r"\s*[+-]?\d+" if argument.type is int else r"\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?)"
    found = re.match(pattern, text)
    if not found:  # the original ends by an exception that nobody catches
        raise Stop(134, f"error: {text!r} is no number, for {argument.flag}\n")
    return argument.type(found[0])


def _response_file(path: str) -> list[str]:
    """The words in a file, one to a line."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise Stop(1, f"error: response file '{path}' not found\n") from error


def _time(ms: int, marker: str = ".") -> str:
    return timestamp(ms // 10 * 10, always_hours=True, marker=marker)


@functools.lru_cache(maxsize=1)
def _levels(path: str) -> Any:
    """The recording's loudness in two channels (see audio.levels)."""
    return audio.levels(Path(path))


def _before(channel: str) -> str:
    return f"(speaker {channel})" if channel else ""


def _txt(wanted: Wanted, heard: Heard, channels: Sequence[str]) -> str:
    return "".join(f"{_before(c)}{s.text}\n" for s, c in zip(heard.segments, channels, strict=True))


def _vtt(wanted: Wanted, heard: Heard, channels: Sequence[str]) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_time(s.start_ms)} --> {_time(s.end_ms)}\n{f'<v Speaker{c}>' if c else ''}{s.text}\n\n"
        for s, c in zip(heard.segments, channels, strict=True)
    )


def _srt(wanted: Wanted, heard: Heard, channels: Sequence[str]) -> str:
    numbered = enumerate(zip(heard.segments, channels, strict=True), start=1 + wanted.value("offset_n"))
    return "".join(
        f"{n}\n{_time(s.start_ms, ',')} --> {_time(s.end_ms, ',')}\n{_before(c)}{s.text}\n\n" for n, (s, c) in numbered
    )


def _csv(wanted: Wanted, heard: Heard, channels: Sequence[str]) -> str:
    rows = []
    for segment, channel in zip(heard.segments, channels, strict=True):
        text = segment.text.replace('"', '""')
        who = f"{channel}," if channel else ""
        rows.append(f'{segment.start_ms // 10 * 10},{segment.end_ms // 10 * 10},{who}"{text}"\n')
    return f"start,end,{'speaker,' if wanted.value('diarize') else ''}text\n" + "".join(rows)


def _lrc(wanted: Wanted, heard: Heard, channels: Sequence[str]) -> str:
    lines = ["[by:whisper.cpp]\n"]
    for segment, channel in zip(heard.segments, channels, strict=True):
        minutes, ms = divmod(segment.start_ms, 60_000)
        text = _before(channel) + segment.text
        lines.append(f"[{minutes:02d}:{ms // 1000:02d}.{ms % 1000 // 10:02d}]{text}\n")
    return "".join(lines)


def _json(wanted: Wanted, heard: Heard, channels: Sequence[str]) -> str:
    said = [
        {
            "timestamps": {"from": _time(s.start_ms, ","), "to": _time(s.end_ms, ",")},
            "offsets": {"from": s.start_ms // 10 * 10, "to": s.end_ms // 10 * 10},
            "text": s.text,
            **({"speaker": c} if c else {}),
        }
        for s, c in zip(heard.segments, channels, strict=True)
    ]
    params = {n: wanted.value(n) for n in ("model", "language", "translate")}
    data = {"params": params, "result": {"language": heard.language}, "transcription": said}
    return json.dumps(data, indent="\t", ensure_ascii=False) + "\n"


RENDER: dict[str, Callable[[Wanted, Heard, Sequence[str]], str]] = {
    "csv": _csv,
    "json": _json,
    "lrc": _lrc,
    "srt": _srt,
    "txt": _txt,
    "vtt": _vtt,
}

PROGRAM = WhisperCli()
