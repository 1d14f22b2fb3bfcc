"""A program's command line in Kuulo's grammar, option by option."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kuulo import options
from kuulo.commands.base import Argument, Common, Given, Idle, Own, Program, Raw, Refused, Wanted

SECRET = "..."  # noqa: S105 - what is shown instead of one


@dataclass(frozen=True)
class Row:
    """One option of a command line: as it was typed (empty: it was not, and the program's default differs from
    Kuulo's), what it is in Kuulo's grammar (empty: nothing), and what to know."""

    typed: str
    kuulo: str
    note: str


@dataclass(frozen=True)
class Translation:
    """A whole command line. `complete`: every typed option has its equivalent, or needs none."""

    command: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    complete: bool


def translate(program: Program, given: Given, wanted: Wanted | None, engine: str) -> Translation:
    """The equivalent of a command line on an engine. `wanted` is None where something in it is refused."""
    rows, complete = [], True
    for argument in program.arguments:
        if argument.name in given.typed and argument.flags[0].startswith("-"):
            value = given.values[argument.name]
            words, lost = _words(argument, value, engine)
            complete = complete and not lost
            rows.append(Row(_typed(argument, value), shlex.join(words), _note(argument, lost)))
    if wanted is None:
        return Translation("", tuple(rows), program.surprises, False)
    said = [word for row in rows for word in shlex.split(row.kuulo)]
    command, implied = _command(program, wanted, engine, said)
    return Translation(command, (*rows, *implied), program.surprises, complete)


def flag_words(name: str, value: Any) -> list[str]:
    """A common option as words."""
    option = options.BY_NAME[name]
    on, _, off = option.flags[0].partition("/")
    if option.kind == "bool":
        return [on] if value else [off] if off else []
    if option.kind == "time":
        return [on, f"{value / 1000:g}"]
    if isinstance(value, tuple):
        return [on, ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)]
    return [on, str(value)]


def _words(argument: Argument, value: Any, engine: str) -> tuple[list[str], bool]:
    """Kuulo's words for one option of the program, and whether it has no equivalent."""
    becomes = argument.becomes
    match becomes:
        case Common(option=name, value=convert):
            ours = convert(value)
            return ([] if ours is None else flag_words(name, ours)), False
        case Raw(names=names, values=values, instead=instead):
            if value == argument.default:
                return [], False
            if engine in names:
                ours = values.get(engine, lambda same: same)(value)
                return ["--engine-option", f"{names[engine]}={_text(ours)}"], False
            if instead:
                return flag_words(instead, value), False
            return [], True
        case Refused():
            return [], value != argument.default
        case Own(shown=shown):
            return list(shown(value)), False
    return [], False


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def _typed(argument: Argument, value: Any) -> str:
    if argument.is_switch:
        return argument.flag
    values = value if isinstance(value, (tuple, list)) else (value,)
    return " ".join(f"{argument.flag} {SECRET if argument.secret else shlex.quote(str(v))}" for v in values)


def _note(argument: Argument, lost: bool) -> str:
    note = argument.becomes.note
    if lost:
        why = note if isinstance(argument.becomes, Refused) else f"only {', '.join(_able(argument)) or 'nobody'} has it"
        return f"no equivalent: {why}"
    return f"needs none: {note}" if isinstance(argument.becomes, (Idle, Refused)) else note


def _able(argument: Argument) -> Sequence[str]:
    return tuple(argument.becomes.names) if isinstance(argument.becomes, Raw) else ()


def _command(program: Program, wanted: Wanted, engine: str, said: Sequence[str]) -> tuple[str, list[Row]]:
    """The whole command, and rows for what it says that was not typed. `said` are the words of what was."""
    words, implied = ["--engine", engine], []
    chosen = {"output": wanted.folder, **wanted.options}
    for option in options.OPTIONS:
        if option.name not in chosen or option.name == "format":
            continue
        value = options.parse(option, chosen[option.name])
        if _shown(value) == _shown(options.parse(option, option.default)):
            continue
        part = flag_words(option.name, value)
        words += part
        if part and part[0] not in said:
            implied.append(Row("", shlex.join(part), "the program's default or habit"))
    for argument, value in wanted.raw:
        words += _words(argument, value, engine)[0]
    for key, value in wanted.always_raw.get(engine, {}).items():
        words += ["--engine-option", f"{key}={_text(value)}"]
    names = ["whisper-json" if name == "json" else name for name in wanted.formats if name != "aud"]
    if names:
        words += ["--format", ",".join(names)]
        if "--format" not in said:
            implied.append(Row("", f"--format {','.join(names)}", "the program's default or habit"))
    inputs = [path if not path.startswith("-") or path == "-" else f"./{path}" for path in wanted.audio]
    return shlex.join(["kuulo", "transcribe", *inputs, *words]), implied


def _shown(value: Any) -> Any:
    """Without what is but rounding: numpy's third temperature is 0.6000000000000001."""
    return (
        tuple(round(v, 9) for v in value) if isinstance(value, tuple) and value and type(value[0]) is float else value
    )
