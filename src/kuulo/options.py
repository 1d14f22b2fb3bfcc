"""THE table of common options: one name and one meaning on every engine that can do them.

The command line's flags, the `KUULO_*` variables, the help, the generated reference, the refusals and the plan all
come from OPTIONS. An engine says in its SPEC.options which of those with `engine=True` it honours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kuulo.errors import UsageError


@dataclass(frozen=True)
class Option:
    """One common option.

    `kind`: str, texts, int, float, bool, choice, language, speakers, time (ms), temperatures, list or pairs. `default`
    None means that nobody decided: help says what happens then. `engine`: honoured by an engine or refused. `result`:
    another value may give another transcript, so it is part of the key that says whether work was done already."""

    name: str
    flags: tuple[str, ...]
    kind: str
    default: Any
    group: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    engine: bool = False
    result: bool = False
    minimum: float | None = None
    maximum: float | None = None

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "KUULO_" + self.name.upper()


GROUPS = ("What", "Recognition", "Results", "Machine", "Showing")

COMPUTE_TYPES = (
    "auto", "bfloat16", "float16", "float32", "int8", "int8_bfloat16", "int8_float16", "int8_float32",
)  # fmt: skip

EXISTING = ("resume", "skip", "overwrite")

OPTIONS: tuple[Option, ...] = (
    # What
    Option(
        "engine", ("--engine", "-e"), "str", None, "What",
        "Implementation to use. Without it: the best installed one that has the model.", metavar="NAME", result=True,
    ),
    Option(
        "model", ("--model", "-m"), "str", None, "What",
        "Model: a name in the store (`kuulo models list`) or a path. Without it: the best one in the store.",
        metavar="NAME|PATH", result=True,
    ),
    Option(
        "language", ("--language", "-l"), "language", "auto", "What",
        "Language spoken: a code (fi), an English name (Finnish), or auto to detect it.",
        metavar="LANGUAGE", engine=True, result=True,
    ),
    Option(
        "task", ("--task",), "choice", "transcribe", "What",
        "transcribe: words in the language spoken. translate: words in English.",
        choices=("transcribe", "translate"), engine=True, result=True,
    ),
    Option(
        "from", ("--from",), "time", None, "What",
        "Start here in each recording: seconds, or [HH:]MM:SS[.mmm].", metavar="TIME", result=True,
    ),
    Option(
        "speakers", ("--speakers",), "speakers", "none", "What",
        "Who says what: auto, the number of speakers, a range of it, channels (a speaker for each channel), or none.",
        metavar="auto|N|MIN-MAX|channels",
        result=True,
    ),
    Option(
        "speaker_engine", ("--speaker-engine",), "str", None, "What",
        "Who tells the speakers apart. Without it: the first installed one that has its model.", metavar="NAME",
        result=True,
    ),
    Option(
        "speaker_model", ("--speaker-model",), "str", None, "What",
        "Its model: a name in the store or a path. Without it: the best one in the store.", metavar="NAME|PATH",
        result=True,
    ),
    Option(
        "speaker_option", ("--speaker-option",), "pairs", (), "What",
        "Anything else, passed to the engine that tells speakers apart, by its native name. May be repeated.",
        metavar="KEY=VALUE", result=True,
    ),
    Option(
        "roster", ("--roster",), "str", None, "What",
        "Names for the speakers whose voices are enrolled in this file (`kuulo speakers enrol`).", metavar="FILE",
        result=True,
    ),
    Option("to", ("--to",), "time", None, "What", "Stop here in each recording.", metavar="TIME", result=True),
    # Recognition
    Option(
        "beam_size", ("--beam-size",), "int", 5, "Recognition",
        "Hypotheses kept while decoding; 1 is greedy: faster, a little worse.",
        metavar="N", engine=True, result=True, minimum=1, maximum=100,
    ),
    Option(
        "temperature", ("--temperature",), "temperatures", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "Recognition",
        "Sampling temperature; more than one, separated by commas, are tried in turn when decoding fails.",
        metavar="T[,T...]", engine=True, result=True,
    ),
    Option(
        "initial_prompt", ("--initial-prompt",), "str", None, "Recognition",
        "Text that goes before the first window: spelling of names, style.", metavar="TEXT", engine=True, result=True,
    ),
    Option(
        "hotwords", ("--hotwords",), "str", None, "Recognition",
        "Words to expect anywhere in the recording.", metavar="TEXT", engine=True, result=True,
    ),
    Option(
        "condition_on_previous_text", ("--condition-on-previous-text/--no-condition-on-previous-text",), "bool", True,
        "Recognition",
        "Let what was said guide what follows: steadier text, but a mistake may repeat itself.",
        engine=True, result=True,
    ),
    Option(
        "word_times", ("--word-times/--no-word-times",), "bool", False, "Recognition",
        "Times and confidence for each word.", engine=True, result=True,
    ),
    Option(
        "speech_detection", ("--speech-detection/--no-speech-detection",), "bool", False, "Recognition",
        "Leave out what holds no speech before an engine hears it: no invented text on silence. "
        "Done by Kuulo (Silero VAD), so it is the same on every engine.", result=True,
    ),
    Option(
        "batch_size", ("--batch-size",), "int", 1, "Recognition",
        "Windows of one recording decoded together. More than 1 is faster and, on some engines, gives up "
        "what carries over from window to window.", metavar="N", engine=True, result=True, minimum=1, maximum=256,
    ),
    Option(
        "pack", ("--pack/--no-pack",), "bool", False, "Recognition",
        "Put several short recordings into one 30 s window, with gaps, and give the words back to each: much "
        "faster on many short clips; some words change.", result=True,
    ),
    Option(
        "compute_type", ("--compute-type",), "choice", "auto", "Recognition",
        "Number format used for computing; auto is the engine's fastest on the device.",
        choices=COMPUTE_TYPES, engine=True, result=True,
    ),
    Option(
        "engine_option", ("--engine-option",), "pairs", (), "Recognition",
        "Anything else, passed to the engine as it is, by its native name. May be repeated.",
        metavar="KEY=VALUE", result=True,
    ),
    # Results
    Option(
        "format", ("--format", "-f"), "list", ("txt", "srt"), "Results",
        "What to write beside the master copy NAME.json; see `kuulo formats`.", metavar="FORMAT[,FORMAT...]",
    ),
    Option(
        "output", ("--output", "-o"), "str", "transcripts", "Results",
        "Folder for the results.", metavar="FOLDER",
    ),
    Option(
        "existing", ("--existing",), "choice", "resume", "Results",
        "What to do about results that are there. resume: leave what is finished with the same plan, go on inside "
        "what is not. skip: leave any recording that has a result. overwrite: do all again.", choices=EXISTING,
    ),
    Option(
        "max_line_width", ("--max-line-width",), "int", None, "Results",
        "Subtitles: characters in a line (needs word times).", metavar="N", minimum=1,
    ),
    Option(
        "max_line_count", ("--max-line-count",), "int", None, "Results",
        "Subtitles: lines in a cue (needs --max-line-width).", metavar="N", minimum=1,
    ),
    Option(
        "max_words_per_line", ("--max-words-per-line",), "int", None, "Results",
        "Subtitles: words in a line (needs word times).", metavar="N", minimum=1,
    ),
    Option(
        "highlight_words", ("--highlight-words/--no-highlight-words",), "bool", False, "Results",
        "Subtitles: underline each word as it is spoken (needs word times).",
    ),
    Option(
        "then", ("--then",), "str", None, "Results",
        "Do these tasks on the transcripts afterwards, with a language model: summary, coding, ... (`kuulo llm task`).",
        metavar="TASK[,TASK...]",
    ),
    Option(
        "then_option", ("--then-option",), "pairs", (), "Results",
        "A parameter of a task (codebook=codes.csv) or an option of the language model (model=NAME). May be repeated.",
        metavar="KEY=VALUE",
    ),
    # Machine
    Option(
        "device", ("--device",), "str", "auto", "Machine",
        "auto, cpu, cuda, or cuda:N.", metavar="DEVICE", engine=True,
    ),
    Option(
        "threads", ("--threads",), "int", None, "Machine",
        "CPU threads for each worker. Without it: the cores that we may use, shared among the workers.",
        metavar="N", engine=True, minimum=1, maximum=1024,
    ),
    Option(
        "workers", ("--workers",), "int", None, "Machine",
        "Processes that recognise at the same time, each with the model loaded. Without it: as many as cores and "
        "memory allow when there are many recordings.", metavar="N", minimum=1, maximum=256,
    ),
    Option(
        "scratch", ("--scratch",), "str", None, "Machine",
        "Folder for decoded audio while it is needed; emptied at the end. Without it: the system's.", metavar="FOLDER",
    ),
    # Showing
    Option("print", ("--print",), "bool", False, "Showing", "Print the transcripts on standard output."),
    Option("quiet", ("--quiet", "-q"), "bool", False, "Showing", "Show errors alone."),
    Option("json", ("--json",), "bool", False, "Showing", "Print a report for machines on standard output."),
)  # fmt: skip

BY_NAME: dict[str, Option] = {o.name: o for o in OPTIONS}


def parse_time_ms(text: str) -> int:
    """Milliseconds in `90`, `90.5`, `1:30`, `00:01:30.500`; raises UsageError."""
    match = re.fullmatch(r"(?:(?:(\d{1,9}):)?(\d{1,9}):)?(\d{1,9}(?:\.\d+)?)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a time", do="write seconds (90.5) or [HH:]MM:SS (00:10:00)")
    hours, minutes, seconds = match.groups()
    return round((int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)) * 1000)


def parse_temperatures(text: str) -> tuple[float, ...]:
    """`0,0.2,0.4` -> (0.0, 0.2, 0.4); raises UsageError."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a temperature", do="write numbers from 0 to 1: 0,0.2,0.4") from error
    if not all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in values):
        raise UsageError(f"temperature {text!r} is not between 0 and 1")
    return values


def parse_bool(text: str) -> bool:
    """yes/no, true/false, on/off, 1/0; raises UsageError."""
    word = text.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise UsageError(f"{text!r} is neither yes nor no")


def parse_pairs(texts: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` texts -> dict. Values are read as JSON where they are JSON (3, true, [1,2]), else kept as text."""
    import json

    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{text!r} is not KEY=VALUE", do="for example --engine-option patience=2")
        try:
            pairs[key] = json.loads(value)
        except ValueError:
            pairs[key] = value
        except RecursionError as error:
            raise UsageError(f"{key}: the value is nested too deeply") from error
    return pairs


def parse(option: Option, value: Any) -> Any:
    """`value` (text from a flag or a variable, or already typed) as the option's type; raises UsageError, which names
    the flag."""
    try:
        return value_of(option, value)
    except UsageError as error:
        called = option.flags[0].split("/")[0]
        raise UsageError(f"{called}: {error.what}", looked_at=error.looked_at, do=error.do) from error


def value_of(option: Option, value: Any) -> Any:
    """As `parse`; its UsageError does not say whose value it is."""
    from kuulo import formats, languages, speakers

    if value is None:
        return None
    if option.kind in ("int", "float"):
        return _number(option, value)
    if option.kind == "bool":
        return value if isinstance(value, bool) else parse_bool(str(value))
    if option.kind == "choice":
        word = str(value)
        if word not in option.choices:
            raise UsageError(f"{word!r} is none of {', '.join(option.choices)}")
        return word
    if option.kind == "language":
        return languages.code(str(value))
    if option.kind == "speakers":
        speakers.parse(str(value))
        return str(value).strip().lower()
    if option.kind == "time":
        return value if isinstance(value, int) else parse_time_ms(str(value))
    if option.kind == "temperatures":
        return parse_temperatures(value) if isinstance(value, str) else tuple(float(v) for v in value)
    if option.kind == "list":
        parts = value.split(",") if isinstance(value, str) else [p for v in value for p in str(v).split(",")]
        names = tuple(dict.fromkeys(p.strip().lower() for p in parts if p.strip()))
        formats.check(names)  # of formats: there is no other list
        return names
    if option.kind == "texts":
        return (value,) if isinstance(value, str) else tuple(str(v) for v in value)
    if option.kind == "pairs":
        if isinstance(value, Mapping):
            return dict(value)
        return parse_pairs((value,) if isinstance(value, str) else tuple(value))
    return str(value)


def _number(option: Option, value: Any) -> int | float:
    try:
        number: int | float = int(str(value)) if option.kind == "int" else float(str(value))
    except ValueError as error:
        raise UsageError(f"{value!r} is not a number") from error
    if option.minimum is not None and number < option.minimum:
        raise UsageError(f"{number} is less than {option.minimum:g}")
    if option.maximum is not None and number > option.maximum:
        raise UsageError(f"{number} is more than {option.maximum:g}")
    return number
