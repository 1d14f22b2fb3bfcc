"""`kuulo llm task --on slurm`: transcripts for the tasks of a job."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import job_flags

if TYPE_CHECKING:
    from kuulo.jobs.batch import Transcripts
    from kuulo.jobs.transcripts_planning import Wanted


def submit(wanted: Wanted, asked: Mapping[str, Any], *, dry_run: bool, quiet: bool, as_json: bool) -> int:
    """Submit the job, or show it."""
    from kuulo import site
    from kuulo.errors import EXIT_OK
    from kuulo.jobs import amounts, claims, submission, transcripts_planning

    files = site.load()
    sources = [Path(job_flags.absolute(source)) for source in wanted.sources]
    made = transcripts_planning.results(files, files.jobs(), dataclasses.replace(wanted, sources=sources), asked)
    if not quiet:
        for one in made.refused:
            click.echo(f"left out: {one.source}: {one.why}", err=True)
    if dry_run:
        job_flags.show(made, as_json=as_json)
        return EXIT_OK
    _check_writable(made)
    with claims.submitting(*made.makes):
        claims.check_free(made.makes)
        folder = files.jobs_folder().new()
        round_ = submission.new(folder, made)
    if as_json:
        said = {"job": folder.name, "folder": str(folder.path), "array": round_.array, "finish": round_.finish}
        counts = {"results": made.number, "transcripts": len(made.sources), "tasks": len(made.tasks)}
        refused = [dataclasses.asdict(one) for one in made.refused]
        click.echo(json.dumps({**said, **counts, "refused": refused}, indent=1))
    elif not quiet:
        found, tasks = amounts.counted(len(made.sources), "transcript"), amounts.counted(len(made.tasks), "task")
        what = f"{', '.join(made.what.tasks)} of {found} in {tasks}"
        where = job_flags.called(made.scheduler, round_.array)
        job_flags.say_submitted(folder.name, folder.path, f"{what} ({where})")
    return EXIT_OK


def _check_writable(made: Transcripts) -> None:
    """Raises UsageError."""
    from kuulo import naming
    from kuulo.errors import UsageError

    for folder in made.makes:
        if not os.access(folder, os.W_OK):
            raise UsageError(
                "results are written beside the transcript, and its folder cannot be written to",
                looked_at=naming.shown(folder),
                do="copy the transcript to a folder of your own",
            )
