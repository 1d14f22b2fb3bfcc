"""`kuulo llm`: a sub-command's module is imported when it runs, as the commands of `kuulo` itself."""

from __future__ import annotations

import click

from kuulo.cli.lazy import Commands

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


@click.command(cls=Commands, table=COMMANDS, name="llm")
def llm() -> None:
    """Language models: their servers, and work in large numbers.

    \b
    kuulo llm explain --engine llama-cpp
    """
