"""A group of commands from a table, whose modules are imported when a command runs: help is quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

Table = Mapping[str, tuple[str, str]]
"""Name -> where the command is, "module:function", and its line in the help."""


class Commands(click.Group):
    """The commands of a table."""

    def __init__(self, *arguments: Any, table: Table, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        where, _, name = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(where), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._table[name][1]) for name in self.list_commands(ctx)])
