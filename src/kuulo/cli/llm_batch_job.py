"""`kuulo llm batch --on slurm`: prompts for the tasks of a job."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import job_flags

if TYPE_CHECKING:
    from kuulo.jobs.prompts_planning import Wanted


def submit(
    wanted: Wanted, asked: Mapping[str, Any], notes: Sequence[str], *, dry_run: bool, quiet: bool, as_json: bool
) -> int:
    """Submit the job, or show it."""
    from kuulo import naming, site
    from kuulo.errors import EXIT_OK, CannotRun
    from kuulo.jobs import amounts, claims, prompts_planning, submission
    from kuulo.llm import batch as batches

    wanted = _absolute(wanted)
    if os.path.lexists(wanted.target) and not wanted.overwrite:
        raise batches.in_the_way(wanted.target)
    files = site.load()
    made = prompts_planning.prompts(files, files.jobs(), wanted, asked)
    for note in () if quiet else notes:
        click.echo(note, err=True)
    bad = [one for one in wanted.requests if one.body is None]
    if dry_run:
        job_flags.show(made, as_json=as_json)
        return EXIT_OK
    try:
        made.output.mkdir(parents=True, exist_ok=True)
        with claims.submitting(made.output):
            claims.check_free(made.makes)
            if wanted.overwrite:
                batches.forget(made.target)
            folder = files.jobs_folder().new()
            round_ = submission.new(folder, made)
    except OSError as error:
        raise CannotRun(
            f"the folder of the answers cannot be written to: {error.strerror}", looked_at=naming.shown(made.output)
        ) from error
    if as_json:
        said = {"job": folder.name, "folder": str(folder.path), "array": round_.array, "finish": round_.finish}
        click.echo(json.dumps({**said, "prompts": made.number, "bad": len(bad), "tasks": len(made.tasks)}, indent=1))
        return EXIT_OK
    if quiet:
        return EXIT_OK
    for one in bad:
        click.echo(f"line {one.line}: {one.why}", err=True)
    tasks = amounts.counted(len(made.tasks), "task")
    where = job_flags.called(made.scheduler, round_.array)
    job_flags.say_submitted(folder.name, folder.path, f"{amounts.counted(made.number, 'prompt')} in {tasks} ({where})")
    return EXIT_OK


def _absolute(wanted: Wanted) -> Wanted:
    """What is wanted, for a job that stands in another folder."""
    given = dict(wanted.given)
    for name in job_flags.PATHS:
        if given.get(name):
            given[name] = job_flags.absolute(given[name])
    if given.get("model"):
        given["model"] = job_flags.path_or_name(given["model"])
    if given.get("schema") is not None:
        from kuulo.llm import schema

        given["schema"] = json.dumps(schema.read(str(given["schema"])))
    source, target = Path(job_flags.absolute(wanted.source)), Path(job_flags.absolute(wanted.target))
    return dataclasses.replace(wanted, source=source, target=target, given=given)
