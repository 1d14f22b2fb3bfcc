"""What is said of a program whose command line Kuulo accepts: its options, and what becomes of each.

    words --Program.parse--> values --Program.understand--> Wanted --call.py--> the program's files and prints

`parse` does what the program's own parser does, with its errors and its exit codes. `understand` is pure.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from kuulo import languages
from kuulo.formats import Layout
from kuulo.transcript import Segment

FASTER_WHISPER = "faster-whisper"
OPENAI_WHISPER = "openai-whisper"
TRANSFORMERS = "transformers"
WHISPER_CPP = "whisper-cpp"

# ---------------------------------------------------------------------- what becomes of an option


@dataclass(frozen=True)
class Becomes:
    """What Kuulo makes of an option; `note` is for people."""

    note: str = ""


@dataclass(frozen=True)
class Common(Becomes):
    """A common option of Kuulo's, of this name. `value` gives Kuulo's value for the program's; where that is None,
    Kuulo's own default holds."""

    option: str = ""
    value: Callable[[Any], Any] = field(default=lambda value: value)


@dataclass(frozen=True)
class Raw(Becomes):
    """An option of some engines: engine -> its name there. At the program's default nothing is passed. `values`:
    engine -> what makes the engine's value of the program's. `instead`: on other engines, this common option."""

    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    instead: str | None = None


@dataclass(frozen=True)
class Own(Becomes):
    """Not passed on: the program's function, or the writing and printing, deals with it. `note` says how; `shown`
    gives the words of Kuulo's grammar for a value, where there are any."""

    shown: Callable[[Any], Sequence[str]] = field(default=lambda value: ())


@dataclass(frozen=True)
class Idle(Becomes):
    """Accepted without effect; `note` says why that changes nothing."""


@dataclass(frozen=True)
class Refused(Becomes):
    """Refused when another value than the default is given; `note` says why."""


OWN_SPEAKERS = "the speakers are Kuulo's own, which need no token and no model from elsewhere"


@dataclass(frozen=True)
class Argument:
    """One option of a program, as its parser has it. `type`, `choices`, `action`, `nargs` and `default` are
    argparse's; `default` is a value, not a text. `secret`: its value is shown to nobody."""

    flags: tuple[str, ...]
    becomes: Becomes
    default: Any = None
    type: Callable[[str], Any] | None = None
    choices: Sequence[str] | None = None
    action: str | None = None
    nargs: str | None = None
    required: bool = False
    dest: str = ""
    secret: bool = False

    @property
    def name(self) -> str:
        """The name of its value, as argparse makes it."""
        if self.dest:
            return self.dest
        long = next((f for f in self.flags if f.startswith("--")), self.flags[0])
        return long.lstrip("-").replace("-", "_")

    @property
    def flag(self) -> str:
        """As people type it."""
        return next((f for f in self.flags if f.startswith("--")), self.flags[0])

    @property
    def is_switch(self) -> bool:
        """Whether it stands alone, without a value."""
        return self.action in ("store_true", "store_false")

    def help(self) -> str:
        """What becomes of it, in a sentence."""
        note = self.becomes.note
        match self.becomes:
            case Common(option=option):
                text = f"--{option.replace('_', '-')} in Kuulo"
            case Raw(names=names):
                text = "; ".join(f"{name} of {engine}" for engine, name in names.items())
            case Idle():
                text = "accepted without effect"
            case Refused():
                text = "refused"
            case _:
                text = ""
        return ". ".join(part for part in (text, note) if part) or "as in the original"


# ---------------------------------------------------------------------- what a command line asks for


@dataclass(frozen=True)
class Given:
    """A parsed command line: every value by name, and the names of those that were typed."""

    values: Mapping[str, Any]
    typed: frozenset[str]


@dataclass(frozen=True)
class Wanted:
    """What a command line asks of Kuulo. `options` are common options by name; `raw` are (argument, value) of options
    that only some engines have; `always_raw`: engine -> raw options that make it do as the program does.
    `formats` are the program's own names; `warnings` are for standard error, without its name in front."""

    given: Given
    audio: tuple[str, ...]
    options: Mapping[str, Any]
    raw: tuple[tuple[Argument, Any], ...] = ()
    always_raw: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: str = "."
    formats: tuple[str, ...] = ()
    layout: Layout = field(default_factory=Layout)
    warnings: tuple[str, ...] = ()
    hundredths: bool = False
    """Whether the program rounds times to 0.01 s, also past the recording's end."""

    def value(self, name: str) -> Any:
        return self.given.values[name]


class Stop(Exception):
    """The program would end here: with this exit code, after these words on standard error and standard output."""

    def __init__(self, code: int, stderr: str = "", stdout: str = "") -> None:
        super().__init__(stderr or stdout)
        self.code, self.stderr, self.stdout = code, stderr, stdout


@dataclass(frozen=True)
class Heard:
    """What was heard in one recording, at full precision, on the recording's clock. `probability` of the language is
    None when it was given."""

    path: str
    language: str
    probability: float | None
    segments: tuple[Segment, ...]
    length_ms: int


# ---------------------------------------------------------------------- a program


class Program:
    """A program. A subclass has the table, `understand`, and what it writes and prints.

    What it prints is returned as text, so that only `call.py` writes anything."""

    name: ClassVar[str]
    summary: ClassVar[str]
    url: ClassVar[str]
    version: ClassVar[str]
    """The version whose code was read for the table."""
    engine: ClassVar[str]
    """The engine that it is the command line of."""
    arguments: ClassVar[tuple[Argument, ...]]
    surprises: ClassVar[tuple[str, ...]] = ()
    """What it does that its users may not expect, and that others do not do."""
    cannot_run = 1
    """Its exit code when its model cannot be loaded."""

    def parse(self, words: Sequence[str], has_model: Callable[[str], bool]) -> Given:
        """What the words mean. `has_model` says whether Kuulo's stores have a model of a name, which is then
        accepted beside those that the program knows. Raises SystemExit as the program's own parser does."""
        values = vars(self._parser(has_model).parse_args(list(words)))
        typed = vars(self._parser(has_model, defaults=False).parse_args(list(words)))
        return Given(values, frozenset(typed))

    def _parser(self, has_model: Callable[[str], bool], *, defaults: bool = True) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=self.name,
            description=f"{self.summary} These are the options of {self.name}; Kuulo does the work.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in self.arguments:
            keywords: dict[str, Any] = {"help": argument.help().replace("%", "%%")}
            if argument.action == "version":
                parser.add_argument(*argument.flags, action="version", version=argument.default, help="the version")
                continue
            if argument.action:
                keywords["action"] = argument.action
            else:
                keywords["type"] = self.model_type(has_model) if argument.name == self.model_argument else argument.type
                keywords["choices"] = self.choices(argument, has_model)
                keywords["nargs"] = argument.nargs
            if argument.flags[0].startswith("-"):
                keywords["required"] = argument.required
                if argument.dest:
                    keywords["dest"] = argument.dest
                keywords["default"] = argument.default if defaults else argparse.SUPPRESS
            parser.add_argument(*argument.flags, **{k: v for k, v in keywords.items() if v is not None})
        return parser

    model_argument = "model"
    """The name of the argument that names a model."""

    def model_type(self, has_model: Callable[[str], bool]) -> Callable[[str], Any] | None:
        """The type of the argument that names a model."""
        return str

    def choices(self, argument: Argument, has_model: Callable[[str], bool]) -> Sequence[str] | None:
        """The choices of an argument."""
        return argument.choices

    def error(self, text: str) -> NoReturn:
        """What the program's parser does about a mistake that it sees after parsing: usage, and exit code 2."""
        self._parser(lambda name: False).error(text)

    def understand(self, given: Given) -> Wanted:
        """What is asked. Raises Stop where the program would end, SystemExit for a mistake."""
        raise NotImplementedError

    def look(self, wanted: Wanted) -> Wanted:
        """The same after a look at the files that it names. Raises Stop where the program would end for them, and
        where Kuulo cannot do the program's work at all."""
        return wanted

    def common(self, given: Given) -> tuple[dict[str, Any], tuple[tuple[Argument, Any], ...]]:
        """The common options that single options of the program stand for, and the options for single engines."""
        options: dict[str, Any] = {}
        raw = []
        for argument in self.arguments:
            if argument.action == "version":
                continue
            value = given.values[argument.name]
            becomes = argument.becomes
            if isinstance(becomes, Common):
                ours = becomes.value(value)
                if ours is not None:
                    options[becomes.option] = ours
            elif isinstance(becomes, Raw) and value != argument.default:
                raw.append((argument, value))
        return options, tuple(raw)

    def refused(self, given: Given) -> list[Argument]:
        """The options in a command line that Kuulo cannot do."""
        return [a for a in self.arguments if isinstance(a.becomes, Refused) and given.values[a.name] != a.default]

    # What it writes

    def files(self, wanted: Wanted, heard: Heard, number: int) -> dict[str, bytes]:
        """The files that it writes about a recording, the `number`th on the command line: path -> content."""
        raise NotImplementedError

    # What it prints on standard output

    def opening(self, wanted: Wanted) -> str:
        """Before the first recording."""
        return ""

    def begins(self, wanted: Wanted, path: str) -> str:
        """When a recording begins."""
        return ""

    def language(self, wanted: Wanted, code: str, probability: float | None) -> str:
        """When the language is known. `probability` is None when it was given."""
        return ""

    def says(self, wanted: Wanted, path: str, segment: Segment) -> str:
        """When a segment was heard in the recording `path`."""
        return ""

    def ends(self, wanted: Wanted, path: str) -> str:
        """When a recording's files are there."""
        return ""

    def fails(self, wanted: Wanted, path: str, why: str) -> tuple[str, str]:
        """When a recording failed: words for standard output and for standard error."""
        return "", f"{self.name}: {path}: {why}\n"

    def closing(self, wanted: Wanted, failed: int) -> tuple[str, int]:
        """In the end: words, and the exit code."""
        return "", 1 if failed else 0


# ---------------------------------------------------------------------- types, named as in the programs


def optional_int(string: str) -> int | None:
    return None if string == "None" else int(string)


def optional_float(string: str) -> float | None:
    return None if string == "None" else float(string)


def str2bool(string: str) -> bool:
    known = {"True": True, "False": False}
    if string in known:
        return known[string]
    raise ValueError(f"Expected one of {set(known)}, got {string}")


class Names(tuple[str, ...]):
    """Choices to which `also` adds more."""

    also: Callable[[str], bool]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and self.also(name))

    @classmethod
    def of(cls, names: Iterable[str], also: Callable[[str], bool]) -> Names:
        made = cls(names)
        made.also = also
        return made


# ---------------------------------------------------------------------- what several programs share


def language_choices(*without: str) -> tuple[str, ...]:
    """Codes, then English names with capitals, as openai/whisper and those that follow it list them."""
    names = [*languages.LANGUAGES.values(), *(n for n in languages.OTHER_NAMES if n not in without)]
    return (*sorted(languages.LANGUAGES), *sorted(name.title() for name in names))


def temperatures(first: float, step: float | None) -> tuple[float, ...]:
    """The temperatures that are tried in turn, made as the programs make them, with the same rounding."""
    import numpy as np

    if step is None:
        return (first,)
    if step <= 0:
        raise Stop(1, f"temperatures cannot be {step} apart\n")
    return tuple(float(value) for value in np.arange(first, 1.0 + 1e-6, step))


def zero(wanted: Wanted) -> float:
    """How a program writes the temperature 0: as the integer of its parser's default, where that went through."""
    through = wanted.value("temperature_increment_on_fallback") is None and wanted.value("temperature") == 0
    return wanted.value("temperature") if through else 0.0


def english_only(model: str, language: str | None, verb: str = "receipted") -> tuple[str | None, tuple[str, ...]]:
    """The language for a model, and a warning where the program overrules the one that was asked for."""
    if not model.endswith(".en") or language in ("en", "English"):
        return language, ()
    if language is None:
        return "en", ()
    return "en", (f"{model} is an English-only model but {verb} '{language}'; using English instead.",)


def stem(path: str) -> str:
    """The name of a recording's results: its own, without folder and ending."""
    return os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122 - as the programs do, byte for byte


def in_folder(folder: str, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118 - as the programs do


def device(name: str, index: int = 0) -> str:
    """A device as Kuulo names it."""
    return f"{name}:{index}" if name == "cuda" and index else name


def model_path(text: str) -> str:
    """A path that is taken for a path and not for a name."""
    return str(Path(text).absolute())


HUB = ("openai/whisper-", "distil-whisper/", "Systran/faster-whisper-", "Systran/faster-")


def model_name(text: str) -> str:
    """A model as Kuulo names it: a folder or file that is there, or the name in a name of the Hugging Face hub."""
    if text and Path(text).exists():  # the path of no name is this folder
        return model_path(text)
    for owner in HUB:
        if text.startswith(owner) and "/" not in text[len(owner) :]:
            return text[len(owner) :]
    if "/" in text:
        raise Stop(
            2,
            f"{text}: there is no such folder, and Kuulo fetches nothing while it transcribes. "
            "Get the model with `kuulo models pull`, or add its folder with `kuulo models add`, and give its name.\n",
        )
    return text


def speakers(number: int | None, least: int | None = None, most: int | None = None) -> str:
    """How many speakers there are, in Kuulo's grammar."""
    if number or (least and least == most):
        return str(number or least)
    return f"{least or 1}-{most or 99}" if least or most else "auto"


def speaker_name(speaker: str | None) -> str | None:
    """A speaker as pyannote names them: S1 is SPEAKER_00."""
    return f"SPEAKER_{int(speaker[1:]) - 1:02d}" if speaker else None


def layout(values: Mapping[str, Any]) -> Layout:
    """How subtitles are cut, of the options that openai/whisper has. 0 is as good as nothing."""
    return Layout(
        max_line_width=values["max_line_width"] or None,
        max_line_count=values["max_line_count"] or None,
        max_words_per_line=values.get("max_words_per_line") or None,
        highlight_words=bool(values["highlight_words"]),
    )


def timed(segment: Segment, text: str | None = None) -> str:
    """A line of the transcript on standard output, as openai/whisper prints it."""
    from kuulo.formats.cues import timestamp

    start, end = (timestamp(ms, always_hours=False, marker=".") for ms in (segment.start_ms, segment.end_ms))
    return f"[{start} --> {end}] {segment.text if text is None else text}\n"
