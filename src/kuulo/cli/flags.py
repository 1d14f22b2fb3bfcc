"""Flags made from the table of common options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from kuulo import options
from kuulo.options import Option

F = TypeVar("F", bound=Callable[..., Any])


def common(*groups: str, table: Sequence[Option] = options.OPTIONS) -> Callable[[F], F]:
    """A decorator that gives a command the common options of these groups, in the table's order. `table`: those of
    language models are in `kuulo.llm.options`."""
    return named(*(option.name for option in table if option.group in groups), table=table)


def named(*names: str, table: Sequence[Option] = options.OPTIONS) -> Callable[[F], F]:
    """A decorator that gives a command these common options, in the table's order."""

    def decorate(function: F) -> F:
        for option in reversed(table):
            if option.name in names:
                function = _flag(option)(function)
        return function

    return decorate


def _flag(option: Option) -> Callable[[F], F]:
    keywords: dict[str, Any] = {"default": None, "help": help_text(option), "expose_value": True}
    if option.kind == "bool":
        if "/" not in option.flags[0]:
            keywords["flag_value"] = True
            keywords["is_flag"] = True
        keywords["type"] = bool
    else:
        keywords["metavar"] = option.metavar or option.kind.upper()
        if option.kind == "choice":
            keywords["metavar"] = "|".join(option.choices) if len(option.choices) < 5 else "TYPE"
        if option.kind in ("pairs", "list", "texts"):
            keywords["multiple"] = True
        keywords["type"] = str
    return click.option(*option.flags, _parameter(option), **keywords)


def _parameter(option: Option) -> str:
    """The Python name of the flag; `from`, `print` and others are Python's own."""
    return "option_" + option.name


def help_text(option: Option) -> str:
    """The option's help with its choices and its default."""
    text = option.help
    if option.kind == "choice" and len(option.choices) >= 5:
        text += f" One of {', '.join(option.choices)}."
    default = shown_default(option)
    return f"{text}  [default: {default}]" if default else text


def shown_default(option: Option) -> str:
    """The built-in default as people would type it; empty when there is none."""
    value = option.default
    if value is None or value == () or option.kind == "pairs":
        return ""
    if isinstance(value, bool):
        return ("on" if value else "") if "/" in option.flags[0] else ""
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)


def typed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Of a command's keyword arguments, the common options that were typed, by option name."""
    return {
        key.removeprefix("option_"): value
        for key, value in arguments.items()
        if key.startswith("option_") and value is not None and value != ()
    }
