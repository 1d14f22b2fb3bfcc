"""`kuulo submit`."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags, job_flags

if TYPE_CHECKING:
    from kuulo.audio import Found
    from kuulo.jobs.batch import Batch, Then
    from kuulo.jobs.survey import Looked
    from kuulo.plan import Plan
    from kuulo.site import Settings


@click.command()
@click.argument("inputs", nargs=-1, metavar="RECORDING|FOLDER...")
@flags.common("What", "Recognition", "Results", "Machine")
@click.option("--overwrite", is_flag=True, help="The same as --existing overwrite.")
@click.option("--skip", is_flag=True, help="The same as --existing skip.")
@click.option("--scheduler", metavar="NAME", help="slurm or local. Without it: Slurm where its commands are.")
@job_flags.flags
@click.option("--cut/--no-cut", default=True, help="Cut long recordings at silences, for several tasks.  [default: on]")
@click.option("--then-time", metavar="TIME", help="Time limit of what --then does.  [default: 4:00:00]")
@click.option("--then-mem", metavar="SIZE", help="Memory for it. Without it: what the language model takes.")
@click.option("--dry-run", is_flag=True, help="Show the plan, the script and the command, and submit nothing.")
@click.option("--test-only", is_flag=True, help="As --dry-run, and ask the scheduler when it would start.")
@click.option("--quiet", "-q", is_flag=True, help="Show errors alone.")
@click.option("--json", "as_json", is_flag=True, help="Print what was submitted for machines.")
def submit(inputs: tuple[str, ...], **arguments: Any) -> int:
    """Give recordings to the cluster: as `kuulo transcribe`, in Slurm's jobs.

    Recordings are shared out among the tasks of one job array, long ones are cut at silences and joined again. What is
    stopped by a time limit, a kill or a failing node goes on where it was. `kuulo jobs` shows how it goes.

    \b
    kuulo submit interviews/ -m large-v3 -l fi --speakers auto -f docx,eaf
    kuulo submit interviews/ --dry-run
    """
    from kuulo import audio, plan, site, survey
    from kuulo.errors import UsageError

    if not inputs:
        raise UsageError("no recording was named", do="kuulo submit interviews/")
    if "-" in inputs:
        raise UsageError("standard input cannot be submitted: a job runs later and elsewhere", do="name a file")
    given = flags.typed(arguments)
    chosen = [name for name in ("overwrite", "skip") if arguments[name]]
    if len(chosen) > 1 or (chosen and "existing" in given):
        raise UsageError("of --overwrite, --skip and --existing, one at most can be given")
    if chosen:
        given["existing"] = chosen[0]
    files = site.load()
    settings = _elsewhere(site.settle(files, given))
    found = audio.find(
        [os.path.normpath(Path.cwd() / path) for path in inputs]
    )  # its own words about what is not there
    if settings.origin["scratch"] == "site":  # which folder that is, the node says
        settings = dataclasses.replace(settings, values={**settings.values, "scratch": None})
    resolved = plan.resolve(settings, survey.facts(files), max(1, len(found.recordings)))
    if not settings.values["then"] and (arguments["then_time"] or arguments["then_mem"]):
        raise UsageError("--then-time and --then-mem are for what --then does", do="--then summary")
    return _submit(files, resolved, found, arguments)


def _elsewhere(settings: Settings) -> Settings:
    """The settings for a job that stands in another folder: paths are absolute."""
    values = dict(settings.values)
    for name in ("output", "roster"):
        if values[name]:
            values[name] = job_flags.absolute(values[name])
    return dataclasses.replace(settings, values=values)


def _submit(files: Any, resolved: Plan, found: Found, asked: Mapping[str, Any]) -> int:
    from kuulo.jobs import claims, planning, submission
    from kuulo.jobs import survey as looking
    from kuulo.results import Results

    jobs = files.jobs()
    look_only = asked["dry_run"] or asked["test_only"]
    output = Path(resolved.options["output"])
    then, lines = _then(jobs, resolved, asked)
    if look_only:
        looked = looking.look(resolved, found, claims.alive(output), look_only=True)
        batch = planning.batch(files, jobs, resolved, looked, asked)
        return _show(dataclasses.replace(batch, then=_with(then, looked)), looked, asked, lines)
    Results(resolved).make_folder()
    with claims.submitting(output):
        looked = looking.look(resolved, found, claims.alive(output))
        if not looked.items and not (then and looked.done):
            return _nothing(looked, asked)
        batch = planning.batch(files, jobs, resolved, looked, asked)
        batch = dataclasses.replace(batch, then=_with(then, looked))
        folder = files.jobs_folder().new()
        round_ = submission.new(folder, batch)
    return _submitted(folder, batch, looked, round_, asked)


def _then(jobs: Any, resolved: Plan, asked: Mapping[str, Any]) -> tuple[Then | None, list[str]]:
    """What a language model does when the transcripts are there, and its lines of the plan. Raises KuuloError."""
    if not resolved.options["then"]:
        return None, []
    from kuulo.jobs import amounts
    from kuulo.jobs import then as following

    made, what = following.planned(jobs, resolved.options, asked)
    ask = made.resources
    gpus = f", {ask.gpus} GPU" if ask.gpus else ""
    cores = amounts.counted(ask.cpus, "core")
    limit = f"{amounts.clock(60 * ask.minutes)}, {ask.memory_mb} MB, {cores}{gpus}"
    return made, [*what.shown(), f"in a job after all others: {limit}"]


def _with(then: Then | None, looked: Looked) -> Then | None:
    """What follows, also for recordings that have their transcripts."""
    return dataclasses.replace(then, also=tuple(looked.done)) if then else None


def _nothing(looked: Looked, asked: Mapping[str, Any]) -> int:
    """All of it is done, in another job's hands, or no recording."""
    from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED

    if asked["as_json"]:
        click.echo(json.dumps({"job": None, **_counts(looked)}, indent=1))
    else:
        _say_looked(looked, asked)
        if not asked["quiet"]:
            click.echo("nothing is left to submit", err=True)
    return EXIT_SOME_FAILED if looked.refused else EXIT_OK


def _submitted(folder: Any, batch: Batch, looked: Looked, round_: Any, asked: Mapping[str, Any]) -> int:
    from kuulo.errors import EXIT_OK
    from kuulo.jobs import amounts

    if asked["as_json"]:
        said = {"job": folder.name, "folder": str(folder.path), "array": round_.array, "finish": round_.finish}
        said |= {"then": round_.then} if round_.then else {}
        click.echo(json.dumps({**said, **_counts(looked), "tasks": len(batch.tasks)}, indent=1))
        return EXIT_OK
    _say_looked(looked, asked)
    if asked["quiet"]:
        return EXIT_OK
    for note in batch.notes:
        click.echo(note, err=True)
    found, tasks = amounts.counted(len(batch.items), "recording"), amounts.counted(len(batch.tasks), "task")
    what = f"{found} in {tasks} ({job_flags.called(batch.scheduler, round_.array)})"
    if batch.then and not batch.tasks:
        what = f"{', '.join(batch.then.tasks)} of {amounts.counted(len(batch.then.also), 'transcript')}"
    job_flags.say_submitted(folder.name, folder.path, what)
    return EXIT_OK


def _say_looked(looked: Looked, asked: Mapping[str, Any]) -> None:
    """What is not submitted, and why."""
    for refused in looked.refused:
        click.echo(f"left out: {refused.source}: {refused.why}", err=True)
    if asked["quiet"]:
        return
    if looked.done:
        click.echo(f"{len(looked.done)} have their results already", err=True)
    for job, number in sorted(looked.busy.items()):
        click.echo(f"{number} are in the hands of job {job} already", err=True)


def _counts(looked: Looked) -> dict[str, Any]:
    return {
        "recordings": len(looked.items),
        "done": len(looked.done),
        "busy": dict(looked.busy),
        "refused": [dataclasses.asdict(refused) for refused in looked.refused],
    }


def _show(batch: Batch, looked: Looked, asked: Mapping[str, Any], then: list[str]) -> int:
    """The plan, the script and the exact command."""
    from kuulo import schedulers
    from kuulo.errors import EXIT_OK
    from kuulo.jobs import plan_file, submission, table
    from kuulo.jobs.folder import Round

    scheduler = schedulers.of(batch.scheduler)
    round_ = Round(1, tuple(range(len(batch.tasks))), batch.resources)
    array, file = submission.array(Path("JOB_FOLDER"), "JOB", batch, round_), "job-1.sh"
    if batch.then and not batch.tasks:
        array, file = submission.then(Path("JOB_FOLDER"), "JOB", batch, batch.then, round_), "then-1.sh"
    script = scheduler.script(array)
    command = shlex.join(scheduler.submit_command(array, file))
    starts = None
    if asked["test_only"] and batch.tasks:
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "job-1.sh").write_bytes(os.fsencode(script))
            starts = scheduler.would_start(dataclasses.replace(array, folder=Path(place)), "job-1.sh")
    if asked["as_json"]:
        said = plan_file.to_json(batch) | {"script": script, "command": command, "starts": starts}
        click.echo(json.dumps({**said, **_counts(looked)}, indent=1))
        return EXIT_OK
    _say_looked(looked, asked)
    click.echo(table.table(batch))
    for line in then:
        click.echo(line)
    click.echo(f"\nthe script, {file} in the job's folder:\n\n{script}")
    click.echo(f"the command, given in that folder: {command}")
    if starts:
        click.echo(f"when it would start: {starts}")
    return EXIT_OK
