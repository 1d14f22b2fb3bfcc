"""`kuulo llm`: a sub-command's module is imported when it runs, as the commands of `kuulo` itself."""

from __future__ import annotations

import importlib

import click

COMMANDS: dict[str, tuple[str, str]] = {
    "batch": ("kuulo.cli.llm_batch:batch", "Many prompts: OpenAI's batch format in and out, resumed when stopped."),
    "explain": ("kuulo.cli.llm_explain:explain", "What an engine makes of the options, and the native command."),
    "list": ("kuulo.cli.llm_servers:list_", "The servers of `kuulo serve`, and how they are."),
    "publish": ("kuulo.cli.llm_servers:publish", "Make a server a model of the program `llm`."),
    "stop": ("kuulo.cli.llm_servers:stop", "End a server, or its job."),
    "task": ("kuulo.cli.llm_task:task", "Work on transcripts: summary, cleanup, translation, topics, coding, ..."),
    "templates": ("kuulo.cli.llm_templates:templates", "Prompts with variables: list them, show one."),
    "tunnel": ("kuulo.cli.llm_servers:tunnel", "The lines that bring a server to your own machine."),
    "url": ("kuulo.cli.llm_servers:url", "A server's address."),
}
"""Name -> where the sub-command is, and its line in the help."""


class _Commands(click.Group):
    """Sub-commands from the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        where, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(where), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.command(cls=_Commands, name="llm")
def llm() -> None:
    """Language models: their servers, and work in large numbers.

    \b
    kuulo llm explain --engine llama-cpp
    """
