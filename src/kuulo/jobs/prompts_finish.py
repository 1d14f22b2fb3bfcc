"""The end of a job that asks a language model: all answers as one file, and its report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kuulo import atomic, naming, report
from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED
from kuulo.jobs import account, claims, finish, mail, prompts
from kuulo.jobs.batch import Job, Prompts
from kuulo.jobs.folder import REPORT, Folder, TaskState, now
from kuulo.jobs.prompts import Way
from kuulo.llm import batch as batches
from kuulo.llm import pace
from kuulo.llm.batch import Ledger, Request
from kuulo.schedulers.base import State
from kuulo.speeds import Observation, Work


@dataclass
class Gathered:
    """`lines` of OUT in the order of the prompts, None for those that nobody asked; `asked`: the prompts as they were
    sent; `used`: the ways of asking of which there are answers."""

    lines: list[Mapping[str, Any] | None] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    used: list[Way] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return sum(line is None for line in self.lines)


def conclude(job: Folder, made: Prompts, tasks: Sequence[TaskState], states: Mapping[int, State]) -> int:
    """Put the answers together, write the reports and tell; the job's exit code. OUT is written when all was asked;
    else what was answered is kept for another round. Raises CannotRun."""
    found = prompts.requests(made)
    gathered = gather(made, found, ways(job, tasks))
    counts, failures = _counts(gathered), []
    for task in tasks:
        if task.pieces[0].state not in (report.DONE, report.SKIPPED):
            why, do = account.why_left(task, states.get(task.number))
            why = str(task.pieces[0].fields.get("why") or why or "its task ended before it asked all")
            failures.append({"source": made.tasks[task.number][0].called("prompts"), "why": why, "do": do})
    said: dict[str, Any] = {
        "schema": 1,
        "job": job.name,
        "counts": counts,
        "missing": gathered.missing,
        "failures": failures,
        "output": naming.shown(made.target),
        "started": job.rounds()[0].submitted,
    }
    if not gathered.missing:
        said |= _write(job, made, gathered, tasks)
    finish.write(job.path / REPORT, said)
    claims.withdraw(made.makes, job.name)
    finish.remember(observations(made, made.engine, made.model, tasks))
    finish.say(summary(counts, gathered.missing))
    if cut := said.get("ledger", {}).get("cut"):
        finish.say(f"{cut} answers were cut: --max-tokens or the context was reached")
    for failure in failures:
        finish.say(f"failed: {failure['source']}: {failure['why']}")
    if gathered.missing:
        finish.say(f"what was answered is kept: kuulo jobs retry {job.name}")
    if made.mail and made.mailer == "sendmail":
        mail.tell(made, job, summary(counts, gathered.missing), counts[report.FAILED])
    return EXIT_SOME_FAILED if counts[report.FAILED] else EXIT_OK


def ways(job: Folder, tasks: Sequence[TaskState]) -> list[Way]:
    """How the questions were asked, each way once; the newest of each task before older ones."""
    found: dict[str, Way] = {}
    for task in tasks:
        for way in prompts.ways(job.events(task.number)):
            found.setdefault(f"{way.identity} {sorted(way.defaults.items())!r} {way.model}", way)
    return list(found.values())


def gather(made: Prompts, found: Sequence[Request], known: Sequence[Way]) -> Gathered:
    """The answers from the journals. Nodes may differ, and what was asked in any of their ways counts; a final answer
    counts more than one that may be asked again."""
    kept = batches.kept(made.target)
    settled = [prompts.settled(made, found, way) for way in known]
    gathered = Gathered()
    for n, one in enumerate(found):
        best: tuple[Request, Mapping[str, Any] | None, Way | None] = (one, None, None)
        for way, requests in zip(known, settled, strict=True):
            asked = requests[n]
            line = batches.unasked(asked) if asked.body is None else kept.get(asked.digest(way.identity))
            if line is not None and (best[1] is None or batches.is_final(line)):
                best = (asked, line, way)
                if batches.is_final(line) or asked.body is None:
                    break
        gathered.asked.append(best[0])
        gathered.lines.append(best[1])
        if best[2] is not None and best[2] not in gathered.used:
            gathered.used.append(best[2])
    return gathered


def summary(counts: Mapping[str, int], missing: int) -> str:
    """The outcome in a sentence."""
    failed = counts[report.FAILED] - missing
    parts = [f"{counts[report.DONE]} answered"]
    parts += [f"{failed} refused or not understood"] if failed else []
    parts += [f"{missing} not asked"] if missing else []
    return f"{sum(counts.values())} prompts: {', '.join(parts)}"


def _counts(gathered: Gathered) -> dict[str, int]:
    done = sum(line is not None and batches.answered(line) for line in gathered.lines)
    return {report.DONE: done, report.FAILED: len(gathered.lines) - done}


def _write(job: Folder, made: Prompts, gathered: Gathered, tasks: Sequence[TaskState]) -> dict[str, Any]:
    """OUT and its report; what the job's report has of them. Raises CannotRun."""
    lines = [line for line in gathered.lines if line is not None]
    ledger = Ledger.of(gathered.asked, lines, 0)
    content = batches.encoded(lines)
    way = gathered.used[0] if gathered.used else None
    started = datetime.fromisoformat(job.rounds()[0].submitted)
    whole = batches.report(
        ledger,
        made.target,
        content,
        key=batches.whole_key(gathered.asked, way.identity if way else ""),
        elapsed_s=(datetime.now(UTC) - started).total_seconds(),
        concurrency=way.concurrency if way else made.concurrency or batches.AT_ONCE,
        note=way.note if way else {},
        template=prompts.template(made),
    )
    if len(gathered.used) > 1:
        whole["provenances"] = [dict(one.note) for one in gathered.used]
    whole |= {"job": job.name, "tasks": len(tasks)}
    try:
        if os.path.lexists(made.target) and not _is_ours(made, job.name):
            raise batches.in_the_way(made.target)
        atomic.write_bytes(made.target, content)
        atomic.write_json(batches.report_path(made.target), whole)
        if all(line["error"] is not None or batches.is_final(line) for line in lines):
            batches.forget(made.target)
    except OSError as error:
        raise batches.unwritable(made.target, error) from error
    return {"ledger": whole["counts"], "usage": whole["usage"]}


def _is_ours(made: Prompts, name: str) -> bool:
    """Whether OUT, which is there, is what an earlier round of the job has written, or was to be written over."""
    said = batches.report_of(made.target)
    return made.overwrite or (said.get("job") == name and batches.is_whole(made.target, said))


def observations(made: Job, engine: str, model: str | None, tasks: Sequence[TaskState]) -> list[Observation]:
    """What can be learnt from the job's tasks: of those that asked all of their share in one life."""
    found = []
    for task in tasks:
        end = task.finished
        if task.lives != 1 or not end or not end.get("tokens"):
            continue
        one = pace.observation(
            Work(engine, model or "", end["device"], int(end["cores"]), batch_size=int(end["concurrency"])),
            done=end["tokens"],
            elapsed_s=end["asked_ms"] / 1000,
            load_s=end["load_ms"] / 1000,
            memory_bytes=end["peak_bytes"],
            place=made.queue.partition or made.scheduler,
            node=end["processor"],
            at=now(),
        )
        if one:
            found.append(one)
    return found
