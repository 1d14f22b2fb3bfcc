"""`kuulo usage`."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command()
@click.option("--since", metavar="DATE", help="Jobs submitted on this day or later: 2026-11-01.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def usage(since: str | None, as_json: bool) -> int:
    """What your jobs took: hours of sound, of CPU cores and GPUs, of waiting; and how much of what they asked for.

    From Slurm's accounts where the site keeps them, else from the jobs' folders, which know nothing of tasks that were
    killed.
    """
    from kuulo import site
    from kuulo.errors import CannotRun, UsageError
    from kuulo.jobs import measuring

    if since is not None and not _is_date(since):
        raise UsageError(f"--since: {since!r} is no date", do="write 2026-11-01")
    found = []
    for job in site.load().jobs_folder().all():
        try:
            if (one := _taken(job, since)) is not None:
                found.append((job.name, one))
        except CannotRun as error:
            click.echo(f"left out: {job.name}: {error.what}", err=True)
    whole = measuring.total([one for _, one in found])
    if as_json:
        jobs = {name: one.to_json() for name, one in found}
        click.echo(json.dumps({"schema": 1, "total": whole.to_json(), "jobs": jobs}, indent=1))
        return 0
    head = (
        "job",
        "recordings",
        "prompts",
        "results",
        "sound h",
        "CPU h",
        "GPU h",
        "waited h",
        "time used",
        "memory used",
    )
    rows = [head, *((name, *_row(one)) for name, one in found)]
    if len(found) != 1:
        rows.append(("total", *_row(whole)))
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    for row in rows:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    return 0


def _taken(job: Any, since: str | None) -> Any:
    from kuulo import schedulers
    from kuulo.errors import CannotRun
    from kuulo.jobs import measuring, plan_file
    from kuulo.jobs.folder import tasks_of

    rounds = job.rounds()
    if since and (not rounds or rounds[0].submitted[:10] < since):
        return None
    batch = plan_file.read(job.path)
    try:
        accounts = schedulers.of(batch.scheduler).usage([id_ for one in rounds for id_ in (one.array, one.then) if id_])
    except CannotRun as error:
        click.echo(f"{job.name}: by its folder alone, since {error.what}", err=True)
        accounts = []
    return measuring.taken(job, batch, tasks_of(job, [len(t) for t in batch.tasks]), job.report(), accounts)


def _row(one: Any) -> tuple[str, ...]:
    hours = [f"{hours:.2f}" for hours in (one.audio_h, one.cpu_h, one.gpu_h, one.waited_h)]
    return (str(one.recordings), str(one.prompts), str(one.results), *hours, _share(one.time), _share(one.memory))


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}%"


def _is_date(text: str) -> bool:
    import datetime

    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True
