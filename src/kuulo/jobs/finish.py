"""What comes after a round of tasks, however they ended: lets what was killed go on in another round, or else joins
recordings that were heard in parts, counts, writes the reports and tells. What a language model was asked is put
together in prompts_finish.py, and what it made of transcripts is counted in transcripts_finish.py."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kuulo import atomic, naming, report, schedulers, site, speeds
from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED, CannotRun, KuuloError
from kuulo.jobs import account, claims, join, mail, measuring, plan_file, submission
from kuulo.jobs.account import ItemState
from kuulo.jobs.batch import Batch, Job, Prompts, Transcripts
from kuulo.jobs.folder import REPORT, Folder, Round, TaskState, now, tasks_of
from kuulo.report import Outcome, Report
from kuulo.schedulers.base import RUNNING, WAITING, State

MEMORY_FACTOR = 2


def run(folder: Path, round_: int) -> int:
    """The exit code: of the whole job, or 0 when another round follows. Raises CannotRun."""
    job = Folder(folder)
    batch = plan_file.read(folder)
    rounds = job.rounds()
    if not rounds or rounds[-1].number != round_:
        say(f"round {round_} is not the job's last: nothing to do")
        return EXIT_OK
    if (said := job.report()) is not None:  # its node failed after all was done
        return EXIT_SOME_FAILED if said["counts"][report.FAILED] else EXIT_OK
    tasks = tasks_of(job, [len(task) for task in batch.tasks])
    states = scheduler_states(batch, rounds)
    if busy := [n for n, state in states.items() if state.state in (WAITING, RUNNING)]:
        raise CannotRun(f"{len(busy)} tasks of the job are not over", do=f"kuulo jobs wait {job.name}")
    if _goes_on(job, batch, tasks, states, rounds):
        return EXIT_OK
    if isinstance(batch, Prompts):
        from kuulo.jobs import prompts_finish

        return prompts_finish.conclude(job, batch, tasks, states)
    if isinstance(batch, Transcripts):
        from kuulo.jobs import transcripts_finish

        return transcripts_finish.conclude(job, batch, tasks, states)
    return conclude(job, batch, account.items(batch, tasks, states), tasks)


def scheduler_states(batch: Job, rounds: Sequence[Round]) -> dict[int, State]:
    """What the scheduler says of each task, in its last round; empty when it does not answer, which is said."""
    known: dict[int, State] = {}
    try:
        said = schedulers.of(batch.scheduler).states([r.array for r in rounds if r.array])
    except CannotRun as error:
        say(f"{error.what}: going by the job's folder alone")
        return {}
    for round_ in rounds:
        known.update({task: said[round_.array, task] for task in round_.tasks if (round_.array, task) in said})
    return known


def _goes_on(
    job: Folder, batch: Job, tasks: Sequence[TaskState], states: dict[int, State], rounds: Sequence[Round]
) -> bool:
    """Whether what was killed was submitted once more."""
    more = account.again(tasks, states, rounds)
    if more is None:
        return False
    resources = rounds[-1].resources
    if more.more_memory:
        resources = dataclasses.replace(resources, memory_mb=resources.memory_mb * MEMORY_FACTOR)
    try:
        made = submission.again(job, more.tasks, resources, more.why, "finish", rounds[-1].then_resources)
    except (KuuloError, OSError) as error:
        say(f"{more.why}, and another round cannot be submitted: {error}")
        return False
    memory = f" with {resources.memory_mb} MB of memory" if more.more_memory else ""
    say(f"{more.why}: going on in round {made.number}{memory}")
    if batch.mail and batch.mailer == "scheduler":
        _quiet(batch, rounds[-1])
    if rounds[-1].then:
        _withdraw(batch, rounds[-1])
    return True


def _quiet(batch: Job, round_: Round) -> None:
    """The scheduler is to send one mail, when all is over, and not one about this."""
    try:
        schedulers.of(batch.scheduler).quiet([round_.then or round_.finish])
    except CannotRun as error:
        say(f"a mail too many may come: {error.what}")


def _withdraw(batch: Job, round_: Round) -> None:
    """What was to follow this round follows the next one, which has been submitted with it."""
    try:
        schedulers.of(batch.scheduler).cancel([round_.then])
    except CannotRun as error:
        say(f"what was to follow round {round_.number} will find that it is not the last: {error.what}")


def conclude(job: Folder, batch: Batch, items: Sequence[ItemState], tasks: Sequence[TaskState]) -> int:
    """Join, count, write the reports and tell; the job's exit code."""
    outcomes = [_outcome(job, batch, item) for item in items]
    outcomes += [Outcome(r.source, report.FAILED, why=r.why, do=r.do) for r in batch.refused]
    whole = _report(job, batch, outcomes, tasks)
    failed = whole.count(report.FAILED)
    output = batch.output
    said = {**whole.to_json(), "job": job.name}
    write(job.path / REPORT, said)
    write(output / REPORT, said)
    for item, outcome in zip(items, outcomes, strict=False):
        if item.is_cut and outcome.state in (report.DONE, report.SKIPPED):
            _forget(batch, item.item)
    claims.withdraw(batch.makes, job.name)
    remember(measuring.observations(batch, tasks, now()))
    say(summary(whole))
    for outcome in outcomes:
        if outcome.state == report.FAILED:
            say(f"failed: {outcome.source}: {outcome.why}")
    if batch.mail and batch.mailer == "sendmail" and batch.then is None:
        mail.tell(batch, job, summary(whole), failed)
    return EXIT_SOME_FAILED if failed else EXIT_OK


def summary(whole: Report) -> str:
    """The outcome in a sentence, without names."""
    counts = [(state, whole.count(state)) for state in (report.DONE, report.SKIPPED, report.FAILED)]
    parts = ", ".join(f"{number} {state}" for state, number in counts if number or state == report.DONE)
    return f"{len(whole.outcomes)} recordings: {parts}; {whole.audio_ms / 3_600_000:.1f} h of sound"


def _outcome(job: Folder, batch: Batch, item: ItemState) -> Outcome:
    if item.is_cut and item.state == report.DONE:
        return join.join(batch, item.item)
    return account.outcome(batch, item, job.name)


def _report(job: Folder, batch: Batch, outcomes: list[Outcome], tasks: Sequence[TaskState]) -> Report:
    plan = batch.plan
    ends = [end for task in tasks for end in task.ends]
    rounds = job.rounds()
    started = rounds[0].submitted if rounds else ""
    elapsed = datetime.now(UTC) - datetime.fromisoformat(started) if started else None
    return Report(
        engine=plan.engine,
        model=plan.model.name if plan.model else None,
        why=plan.why,
        output=naming.shown(plan.options["output"]),
        started=started,
        outcomes=outcomes,
        device=next((e["device"] for e in ends if e.get("device")), None),
        compute_type=next((e["compute_type"] for e in ends if e.get("compute_type")), None),
        workers=len(tasks),
        load_ms=max((e["load_ms"] for e in ends if e.get("load_ms")), default=None),
        elapsed_ms=round(elapsed.total_seconds() * 1000) if elapsed else 0,
        log=naming.shown(job.path / "logs"),
    )


def write(path: Path, said: object) -> None:
    try:
        atomic.write_json(path, said)
    except OSError as error:
        say(f"{naming.shown(path)} cannot be written: {error.strerror}")


def _forget(batch: Batch, item: int) -> None:
    try:
        join.forget(batch, item)
    except OSError as error:
        say(f"what its parts left behind stays: {error.strerror}")


def remember(made: Sequence[speeds.Observation]) -> None:
    """The next job is planned with what this one took."""
    if not made:
        return
    path = site.load().speeds_file()
    try:
        speeds.write(path, speeds.read(path).with_(made))
    except (CannotRun, OSError) as error:
        say(f"what was measured is not kept: {error}")


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
