"""`kuulo as`."""

from __future__ import annotations

import click

from kuulo.errors import UsageError


@click.command(
    name="as",
    context_settings={"allow_interspersed_args": False},
    options_metavar="",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="PROGRAM [--engine NAME] -- ARGUMENTS...")
def as_program(words: tuple[str, ...]) -> int:
    """Another program's command line, unchanged, with Kuulo doing the work.

    PROGRAM is whisper (openai), whisper-ctranslate2, whisperx, whisper-cli (whisper.cpp), insanely-fast-whisper or
    whisper-diarization. ARGUMENTS are what its users type. The files, what is printed and the exit code are the
    program's. The engine is that of --engine or KUULO_ENGINE, else the program's own where it is installed.

    \b
    kuulo as whisper -- interview.mp3 --model small --language fi
    kuulo as whisperx --engine whisper-cpp -- a.wav --no_align
    kuulo translate-command "whisper interview.mp3 --model small"
    """
    from kuulo import commands
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.commands.call import call

    if not words:
        raise UsageError(
            "no program was named", looked_at=", ".join(commands.PROGRAMS), do="kuulo as whisper -- interview.mp3"
        )
    name, rest = words[0], list(words[1:])
    engine = None
    while rest and (rest[0] in ("--engine", "-e") or rest[0].startswith("--engine=")):
        flag = rest.pop(0)
        _, equals, value = flag.partition("=")
        if not equals and not rest:
            raise UsageError(f"{flag} needs the name of an engine", do="kuulo engines")
        engine = value if equals else rest.pop(0)
    if rest and rest[0] == "--":
        rest.pop(0)
    stop_when_told()
    return call(commands.program(name), rest, engine)
