"""The command line. A command's module is imported when the command runs, so that `kuulo --help` is quick."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

import kuulo
from kuulo.cli.lazy import Commands
from kuulo.errors import EXIT_INTERRUPTED, EXIT_USAGE, KuuloError

COMMANDS: dict[str, tuple[str, str]] = {
    "as": ("kuulo.cli.as_program:as_program", "Another program's command line, unchanged: whisper, whisperx, ..."),
    "ask": ("kuulo.cli.ask:ask", "Ask a local language model, also about transcripts."),
    "cache": ("kuulo.cli.cache:cache", "What other tools left in your home: list, remove."),
    "calibrate": ("kuulo.cli.calibrate:calibrate", "Measure how fast engines and models are on a kind of node."),
    "chat": ("kuulo.cli.chat:chat", "Talk with a local language model."),
    "deploy": ("kuulo.cli.deploy:deploy", "For centres: commands, modules, portal app: plan, apply, test, rollback."),
    "diarize": ("kuulo.cli.diarize:diarize", "Who speaks when, without the words."),
    "doctor": ("kuulo.cli.doctor:doctor", "Can Kuulo do its work here? What is wrong, and what to do."),
    "engines": ("kuulo.cli.engines:engines", "Engines: list, install, check, remove, and their environments."),
    "evaluate": ("kuulo.cli.evaluate:evaluate", "How far transcripts are from references: WER, CER, DER and others."),
    "explain": ("kuulo.cli.explain:explain", "What an engine makes of the common options; the native call."),
    "export": ("kuulo.cli.export:export", "Write a transcript in other formats."),
    "formats": ("kuulo.cli.export:formats", "Which output formats there are."),
    "image": ("kuulo.cli.image:image", "Container images of engines: build, test, inspect, list, definition."),
    "import": ("kuulo.cli.import_:import_", "Take an edited srt, vtt, TextGrid, eaf or docx into the master copy."),
    "jobs": ("kuulo.cli.jobs:jobs", "Jobs: how they go, their logs, wait, cancel, retry."),
    "llm": ("kuulo.cli.llm:llm", "Language models: their servers, and work in large numbers."),
    "models": ("kuulo.cli.models:models", "Models: list, pull, add, verify, remove."),
    "portal": ("kuulo.cli.portal:portal", "Open OnDemand: the app of this site, and a check of any app."),
    "run": ("kuulo.cli.run:run", "An engine's own program, with its own arguments."),
    "selftest": ("kuulo.cli.selftest:selftest", "Try every engine with a recording whose words are known."),
    "serve": ("kuulo.cli.serve:serve", "An endpoint of OpenAI's API: a language model, recognition, or both."),
    "shell": ("kuulo.cli.shell:shell", "A shell in an engine's image or environment."),
    "shims": ("kuulo.cli.shims:shims", "Commands with the other programs' names: install, list, remove."),
    "site": ("kuulo.cli.site:site", "The site's file: write it, check it."),
    "speakers": ("kuulo.cli.speakers:speakers", "Speakers: list, rename, and voices with names."),
    "submit": ("kuulo.cli.submit:submit", "Give recordings to the cluster: transcribe in Slurm's jobs."),
    "transcribe": ("kuulo.cli.transcribe:transcribe", "Turn recordings into transcripts."),
    "translate-command": (
        "kuulo.cli.translate_command:translate_command",
        "Another program's command line in Kuulo's grammar.",
    ),
    "usage": ("kuulo.cli.usage:usage", "What your jobs took, and how much of what they asked for."),
}
"""Name -> where the command is, and its line in the help."""


@click.command(cls=Commands, table=COMMANDS, name="kuulo", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kuulo.__version__, message="kuulo %(version)s")
def cli() -> None:
    """Transcripts of recordings, on this machine, offline.

    \b
    kuulo transcribe interview.m4a
    kuulo transcribe interviews/ -m medium -l fi -f srt,docx -o out/
    kuulo models pull small
    """


def main() -> NoReturn:
    """Run the command line and exit with a code that tells the truth."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    _write_any_name()
    try:
        code: Any = cli.main(args=arguments, prog_name="kuulo", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KuuloError as error:
        click.echo(f"{click.style('kuulo:', fg='red')} {error}", err=True, color=_color())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _write_any_name() -> None:
    """File names may hold bytes that are no text; printing one must not be an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def _color() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None
