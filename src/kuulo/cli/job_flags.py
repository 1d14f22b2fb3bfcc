"""The flags that say what a job asks its scheduler for: the same for every command that submits one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
