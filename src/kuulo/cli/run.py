"""`kuulo run`."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from kuulo.errors import EngineMissing, UsageError

if TYPE_CHECKING:
    from kuulo.environments.installed import Environment
    from kuulo.site import Site


@click.command()
@click.argument("engine")
@click.option("--program", metavar="NAME", help="Another program of the environment, such as python.")
@click.option("--dry-run", is_flag=True, help="Print the exact command, and do nothing.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- [ARGUMENTS]...")
def run(engine: str, program: str | None, dry_run: bool, arguments: tuple[str, ...]) -> int:
    """An engine's own program, in its environment, with its own arguments.

    Kuulo sets what keeps it offline and where its caches are (a folder that is gone afterwards), and changes nothing
    else; the exit code is the program's. ENGINE may also be the program's name. `kuulo explain --engine ENGINE` shows
    the arguments for what you want in Kuulo's grammar. A container image sees the current folder, the model stores, and
    the folders of those arguments that are paths.

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
    return start(site.load(), name, wanted, arguments, dry_run=dry_run)


def start(files: Site, engine: str, program: str | None, arguments: Sequence[str], *, dry_run: bool) -> int:
    """A program where the engine is, or a shell for None: its exit code. `dry_run`: the command is printed instead."""
    from kuulo import caches

    environment = files.environments().find(engine)
    with tempfile.TemporaryDirectory(prefix="kuulo-run-") as folder:
        caches.make(Path(folder))
        scratch = Path("SCRATCH") if dry_run else Path(folder)
        if environment is not None and environment.image:
            command, environ = _in_image(files, environment, program, arguments, scratch, dry_run)
        elif environment is not None:
            from kuulo.runtimes import venv

            command = [str(environment.program(program)) if program else _shell(), *arguments]
            environ = venv.for_program(environment, scratch, os.environ)
        else:
            from kuulo.runtimes import here

            command = [str(_beside_kuulo(engine, program)) if program else _shell(), *arguments]
            environ = here.for_program(scratch, os.environ)
        if dry_run:
            click.echo(shlex.join(command))
            return 0
        return _call(command, environ)


def _in_image(
    files: Site, environment: Environment, program: str | None, arguments: Sequence[str], scratch: Path, dry_run: bool
) -> tuple[list[str], dict[str, str]]:
    from kuulo import runtimes
    from kuulo.runtimes.container import Container

    runtime = Container(environment, files.centre.container)
    if not dry_run:
        runtimes.make_room(runtime, scratch)
    stores = [store.folder for store in files.model_stores().layers]
    command = runtime.native(scratch, program, arguments, Path.cwd(), stores)
    return command, runtime.environment(scratch, os.environ)


def _shell() -> str:
    return os.environ.get("SHELL") or "/bin/sh"


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
    between = Path(command[0]).name == "ch-run"
    if between:
        from kuulo.runtimes.inside import IGNORED

        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
    process = subprocess.Popen(command, env=environ)

    def pass_on(number: int, frame: FrameType | None) -> None:
        for pid in _children(process.pid) if between else [process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # Ctrl-C reaches both, by the terminal: what it does is the program's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _children(pid: int) -> list[int]:
    """proc(5), /proc/PID/task/TID/children."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
