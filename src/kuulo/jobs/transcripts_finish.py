"""The end of a job that works on transcripts: what became of each result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import naming, report
from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED
from kuulo.jobs import account, claims, finish, mail, prompts_finish
from kuulo.jobs.amounts import counted
from kuulo.jobs.batch import Transcripts
from kuulo.jobs.folder import REPORT, Folder, TaskState
from kuulo.llm.chain import DONE, FAILED, SKIPPED
from kuulo.schedulers.base import State


def conclude(job: Folder, made: Transcripts, tasks: Sequence[TaskState], states: Mapping[int, State]) -> int:
    """Count, write the report and tell; the job's exit code."""
    results = [one for task in tasks for one in _results(job, made, task, states.get(task.number))]
    refused = [{"source": one.source, "state": FAILED, "why": one.why, "do": one.do or ""} for one in made.refused]
    done = sum(one["state"] in (DONE, SKIPPED) for one in results)
    failed = len(results) - done + len(refused)
    told = [*results, *refused]
    said = {
        "schema": 1,
        "job": job.name,
        "counts": {report.DONE: done, report.FAILED: failed},
        "results": told,
        "output": naming.shown(made.output),
        "started": job.rounds()[0].submitted,
    }
    finish.write(job.path / REPORT, said)
    claims.withdraw(made.makes, job.name)
    finish.remember(prompts_finish.observations(made, made.what.asked["engine"], made.what.model, tasks))
    whole = (
        f"{', '.join(made.what.tasks)} of {counted(len(made.sources), 'transcript')}: {done} of {len(results)} results"
    )
    finish.say(whole)
    for one in told:
        if one["state"] not in (DONE, SKIPPED):
            what = f"{one['source']}: {one['task']}" if "task" in one else one["source"]
            finish.say(f"{one['state']}: {what}: {one.get('why')}")
    if made.mail and made.mailer == "sendmail":
        mail.tell(made, job, whole, failed)
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _results(job: Folder, made: Transcripts, task: TaskState, state: State | None) -> list[dict[str, Any]]:
    """What became of a task's results: what was last said of each, or why nothing was."""
    (share,) = made.tasks[task.number]
    known = job.results(task.number)
    found: list[dict[str, Any]] = []
    for name in made.what.tasks:
        for source in made.sources[share.begin : share.end]:
            if (one := known.get((naming.shown(source), name))) is not None:
                found.append(one)
                continue
            why, do = account.why_left(task, state)
            why = str(task.pieces[0].fields.get("why") or why or "its task ended before it was made")
            do = do or f"kuulo jobs retry {job.name}"
            found.append({"source": naming.shown(source), "task": name, "state": FAILED, "why": why, "do": do})
    return found
