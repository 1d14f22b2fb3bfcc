"""What every command that submits a job has: the flags that say what it asks its scheduler for, paths as a job finds
them from another folder, and what people are told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

_FLAGS = (
    click.option("--partition", metavar="NAME", help="Where to run; without it the site's, else Slurm's default."),
    click.option("--account", metavar="NAME", help="On whose account."),
    click.option("--qos", metavar="NAME", help="Quality of service."),
    click.option("--cpus", type=click.IntRange(1, 1024), metavar="N", help="CPU cores of each task."),
    click.option("--time", "time_", metavar="TIME", help="Time limit of each task: minutes, HH:MM:SS or D-HH:MM:SS."),
    click.option("--mem", metavar="SIZE", help="Memory of each task: 8G, 6000M."),
    click.option("--task-time", metavar="TIME", help="How long a task should be: the work is shared out so."),
    click.option("--array-limit", type=click.IntRange(1), metavar="N", help="Tasks that run at a time, at most."),
    click.option("--slurm", "raw", multiple=True, metavar="KEY=VALUE", help="An option of sbatch. Repeatable."),
    click.option("--mail", metavar="ADDRESS", help="One mail when all is over, with the outcome."),
)
NAMES = ("partition", "account", "qos", "cpus", "time_", "mem", "task_time", "array_limit", "raw", "mail")
"""Their parameters, in the same order."""


def flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags, for a command."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def typed(arguments: Mapping[str, Any]) -> list[str]:
    """Those that were typed, as they are typed: for who cannot use them."""
    names = {"time_": "--time", "raw": "--slurm"}
    return [names.get(name, f"--{name.replace('_', '-')}") for name in NAMES if arguments[name] not in (None, ())]


PATHS = ("key_file", "scratch")
"""Options of a language model that are paths."""


def absolute(path: str | Path) -> str:
    """A path that leads there from anywhere."""
    return os.path.normpath(Path.cwd() / Path(path).expanduser())


def path_or_name(text: str) -> str:
    """A model's name as it is, and its path so that it leads there from anywhere."""
    return absolute(text) if Path(text).expanduser().exists() else text


def called(scheduler: str, id_: str) -> str:
    """The scheduler and its number. Those of this machine's queue are paths, which say nothing to people."""
    return scheduler if "/" in id_ else f"{scheduler} {id_}"


def say_submitted(name: str, folder: Path, what: str) -> None:
    """That a job was submitted, and where to look."""
    click.echo(f"job {name}: {what}")
    click.echo(f"  how it goes:  kuulo jobs show {name}")
    click.echo(f"  its folder:   {folder}")
