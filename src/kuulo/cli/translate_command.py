"""`kuulo translate-command`."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING

import click

from kuulo.errors import UsageError

if TYPE_CHECKING:
    from kuulo.commands.translation import Translation


@click.command(name="translate-command", context_settings={"allow_interspersed_args": False})
@click.option("--engine", "-e", metavar="NAME", help="The engine. Without it: the program's own.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND...")
def translate_command(words: tuple[str, ...], engine: str | None, as_json: bool) -> int:
    """Another program's command line in Kuulo's grammar, option by option, with what has no equivalent.

    \b
    kuulo translate-command "whisperx a.wav --compute_type int8 --diarize"
    kuulo translate-command whisper-cli -m ggml-small.bin -l fi -osrt a.wav
    """
    from kuulo import commands, plan, site
    from kuulo.commands import call, translation
    from kuulo.commands.base import Stop

    program_name, rest = split(words)
    program = commands.program(program_name)
    spec = plan.known_engine(engine or program.engine)
    files = site.load()
    why = ""
    try:
        given = program.parse(rest, lambda name: call.has_model(files, name))
    except Stop as stop:
        raise UsageError(
            f"{program.name} would end here: {(stop.stderr or stop.stdout).strip().splitlines()[0]}"
        ) from stop
    wanted = None
    try:
        wanted = program.understand(given)
    except Stop as stop:
        why = stop.stderr.strip()
    found = translation.translate(program, given, wanted, spec.name)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(found), "refused": why or None}, indent=1))
    else:
        click.echo(shown(found, why))
    return 0


def split(words: tuple[str, ...]) -> tuple[str, list[str]]:
    """The program's name, and its words; raises UsageError. One text is split as a shell would."""
    parts = list(words)
    if len(parts) == 1:
        try:
            parts = shlex.split(parts[0])
        except ValueError as error:
            raise UsageError(f"the command is not a shell's: {error}", do="give its words one by one") from error
    while parts and parts[0].rpartition("/")[2] in ("python", "python3"):
        parts.pop(0)
    if not parts:
        raise UsageError("no command was given", do='kuulo translate-command "whisper a.wav --model small"')
    rest = parts[1:]
    if rest and rest[0] == "--":
        rest.pop(0)
    return parts[0].rpartition("/")[2], rest


def shown(found: Translation, why: str) -> str:
    """For people: the command, then a line for each option."""
    lines = [found.command or f"no equivalent: {why}"]
    if found.command and not found.complete:
        lines.append("(without what has no equivalent)")
    lines.append("")
    for row in found.rows:
        left = row.typed or "(not typed)"
        lines.append(f"  {left}  ->  {row.kuulo or '-'}")
        if row.note:
            lines.append(f"      {row.note}")
    if found.notes:
        lines += ["", "About this program:", *(f"  {note}" for note in found.notes)]
    return "\n".join(lines)
