"""`kuulo run`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

import click

from kuulo.errors import EngineMissing, UsageError


@click.command()
@click.argument("engine")
@click.option("--program", metavar="NAME", help="Another program of the environment, such as python.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- [ARGUMENTS]...")
def run(engine: str, program: str | None, arguments: tuple[str, ...]) -> int:
    """An engine's own program, in its environment, with its own arguments.

    Kuulo sets what keeps it offline and where its caches are (a folder that is gone afterwards), and changes nothing
    else; the exit code is the program's. ENGINE may also be the program's name. `kuulo explain --engine ENGINE` shows
    the arguments for what you want in Kuulo's grammar.

    \b
    kuulo run openai-whisper -- a.wav --model /models/medium.pt --language fi
    kuulo run whisper-ctranslate2 -- a.wav --model_directory $medium --local_files_only True
    kuulo run transformers --program python -- my_script.py
    """
    from kuulo import plan, site
    from kuulo.environments import recipe

    name = recipe.of_program(engine) or plan.known_engine(engine, task=None).name
    known = recipe.read(name) if recipe.has(name) else None
    wanted = program or (known.program if known else None)
    if wanted is None:
        raise UsageError(
            f"{name} has no program of its own", do=f"name one with --program: kuulo run {name} --program python -- ..."
        )
    environment = site.load().environments().find(name)
    with tempfile.TemporaryDirectory(prefix="kuulo-run-") as scratch:
        if environment is not None:
            from kuulo.runtimes import venv

            path = environment.program(wanted)
            environ = venv.for_program(environment, Path(scratch), os.environ)
        else:
            from kuulo.runtimes import here

            path = _beside_kuulo(name, wanted)
            environ = here.for_program(Path(scratch), os.environ)
        return _call([str(path), *arguments], environ)


def _beside_kuulo(engine: str, program: str) -> Path:
    path = Path(sys.executable).with_name(program)
    if not os.access(path, os.X_OK):
        raise EngineMissing(
            f"{program}, the program of {engine}, is not installed",
            looked_at=str(path),
            do=f"kuulo engines install {engine}",
        )
    return path


def _call(command: list[str], environ: dict[str, str]) -> int:
    """The program's exit code; of one that a signal ended, 128 and its number, as shells have it."""
    process = subprocess.Popen(command, env=environ)

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    # Ctrl-C reaches both, by the terminal: what it does is the program's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    code = process.wait()
    return code if code >= 0 else 128 - code
