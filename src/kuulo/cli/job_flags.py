"""What every command that submits a job has: the flags that say what it asks its scheduler for, paths as a job finds
them from another folder, and what people are told."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kuulo.jobs.batch import Prompts, Transcripts

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


def on(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--on`, its parameter `place`, and the flags, for a command that may run here or in a job."""
    where = click.option("--on", "place", type=click.Choice(["here", "slurm", "local"]), default="here",
                         help="Where: here; in Slurm's jobs; in the queue of this machine.")  # fmt: skip
    return where(flags(command))


def asked(place: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a job is asked for by the flags of `on`; None where it runs here. Raises UsageError for flags that are a
    job's then."""
    if place != "here":
        return {**{name: arguments[name] for name in NAMES}, "scheduler": place}
    if stray := typed(arguments):
        from kuulo.errors import UsageError

        raise UsageError(f"{stray[0]} is for a job", do="--on slurm makes one")
    return None


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


def show(made: Prompts | Transcripts, *, as_json: bool) -> None:
    """What would be submitted: the plan, the script and the exact command."""
    from kuulo import schedulers
    from kuulo.jobs import plan_file, prompts_planning, submission
    from kuulo.jobs.folder import Round

    scheduler = schedulers.of(made.scheduler)
    array = submission.array(Path("JOB_FOLDER"), "JOB", made, Round(1, tuple(range(len(made.tasks))), made.resources))
    script = scheduler.script(array)
    command = shlex.join(scheduler.submit_command(array, "job-1.sh"))
    if as_json:
        click.echo(json.dumps({**plan_file.to_json(made), "script": script, "command": command}, indent=1))
        return
    click.echo(prompts_planning.table(made))
    click.echo(f"\nthe script, job-1.sh in the job's folder:\n\n{script}")
    click.echo(f"the command, given in that folder: {command}")
