"""What a language model does with a job's transcripts when they are all there: `kuulo submit --then`.

It is planned when the job is submitted, and is a submission of its own, since a language model wants other memory and
another GPU than speech. It may be killed and started again: results that are there are not made again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from kuulo import report
from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED, CannotRun, KuuloError
from kuulo.jobs import (
    finish,
    life,
    mail,
    overview,
    plan_file,
    planning,
    prompts_planning,
    transcripts,
    transcripts_task,
)
from kuulo.jobs.amounts import megabytes, minutes
from kuulo.jobs.batch import Batch, Then
from kuulo.jobs.folder import REPORT, RESULT, THEN, Folder, TaskLog
from kuulo.jobs.queues import TASKS_ALONE
from kuulo.jobs.settings import JobSettings
from kuulo.llm import chain as chains
from kuulo.llm.chain import DONE, PARTLY, Chain, Name, Outcome
from kuulo.llm.following import Following
from kuulo.llm.plan import ChatPlan
from kuulo.machine import Machine
from kuulo.results import Results
from kuulo.schedulers.base import AGAIN, Resources

MINUTES = 240
"""The time limit where nobody says one. What is not done by then goes on in another run by itself."""

Ask = Callable[[Chain, Sequence[Path], Then, bool, set[Name], Callable[[Outcome], None]], list[Outcome]]
"""Does tasks on transcripts: the chain, the transcripts, how, whether results may be overwritten, but which not, and
who is told of each."""


# ------------------------------------------------------------------ when it is submitted


def planned(jobs: JobSettings, values: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[Then, Following]:
    """What is to follow. `values`: the settings of `kuulo submit`; `asked`: its flags. Raises KuuloError for everything
    that would be refused then."""
    from kuulo.llm import following

    def planned_on(machine: Machine) -> ChatPlan:
        return following.of(values, elsewhere=machine).plan

    device = str(values["then_option"].get("device", ""))
    where, node = prompts_planning.place(jobs, _flags(asked), asked["then_mem"], device, planned_on)
    what = following.of(values, elsewhere=node)
    prompts_planning.check_reach(what.plan, where)
    limit = where.limits.minutes
    limit_min = minutes(asked["then_time"]) if asked["then_time"] else min(MINUTES, limit or MINUTES)
    memory = megabytes(asked["then_mem"]) if asked["then_mem"] else prompts_planning.memory_for(what.plan)
    return _then(what, Resources(limit_min, memory, where.cpus, prompts_planning.gpus_for(what.plan)), where), what


def _then(what: Following, resources: Resources, where: planning.Where) -> Then:
    return Then(
        **vars(transcripts.settled(what.chain, what.flags, what.parameters, what.plan, what.concurrency)),
        resources=resources,
        queue=dataclasses.replace(
            where.queue, extra=tuple((k, v) for k, v in where.queue.extra if k not in TASKS_ALONE)
        ),
    )


def _flags(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Of the flags for the tasks of speech, those that are the language model's too: who pays, where, and cores."""
    return {**asked, "mem": None, "time_": None}


# ------------------------------------------------------------------ on its node


def run(folder: Path, round_: int, ask: Ask) -> int:
    """Do it; the exit code. Raises KuuloError."""
    job = Folder(folder)
    batch = plan_file.read(folder)
    assert isinstance(batch, Batch) and batch.then is not None
    rounds = job.rounds()
    if not rounds or rounds[-1].number != round_:
        finish.say(f"round {round_} is not the job's last: nothing to do")
        return EXIT_OK
    said = job.report()
    if said is None:
        raise CannotRun(
            "the job's transcripts were not counted, so that nothing can follow",
            looked_at=str(job.path / "logs"),
            do=f"kuulo jobs retry {job.name}",
        )
    if "then" in said:  # its node failed after all was done
        return _code(said)
    outcomes: list[Outcome] = []
    try:
        log = TaskLog(folder, THEN)
    except OSError as error:
        raise CannotRun(f"the job's folder cannot be written to: {error.strerror}", looked_at=str(folder)) from error

    def watch(one: Outcome) -> None:
        outcomes.append(one)
        try:
            log.say(RESULT, **one.to_json())
        except OSError as error:  # no reason to stop: the results are elsewhere
            life.say(f"the job's folder cannot be written to: {error.strerror}")

    told, began = life.listen(), time.monotonic()
    try:
        ended = chains.ended(_do(batch, batch.then, said, ask, transcripts_task.made(job.results(THEN)), watch))
    except KeyboardInterrupt:
        further = any(one.state in (DONE, PARTLY) for one in outcomes)
        limit = (rounds[-1].then_resources or batch.then.resources).minutes
        code = life.code_of_stopped(told, limit, time.monotonic() - began, came_further=further)
        if code == AGAIN:
            life.say("told to stop: going on in the next run")
        elif code == EXIT_SOME_FAILED:
            life.say(f"{life.NO_FURTHER}: {life.MORE_TIME}")
        return code
    except KuuloError as error:
        finish.say(f"{', '.join(batch.then.tasks)}: {error}")
        ended = chains.ended(outcomes, error)
    finally:
        log.close()
    _tell(job, batch, said, ended)
    return _code(said)


def masters(batch: Batch, said: Mapping[str, Any]) -> list[Path]:
    """The transcripts of a job's recordings that are done, in their order, after those that were there before."""
    done = [
        item.stem
        for item, file in zip(batch.items, said["files"], strict=False)
        if file["state"] in (report.DONE, report.SKIPPED)
    ]
    before = [PurePath(stem) for stem in batch.then.also] if batch.then else []
    return [Results(batch.plan).master(stem) for stem in (*before, *done)]


def _do(
    batch: Batch,
    then: Then,
    said: Mapping[str, Any],
    ask: Ask,
    made: set[Name],
    watch: Callable[[Outcome], None],
) -> list[Outcome]:
    """`made`: results of an earlier run of this. Raises KuuloError."""
    chain, _ = transcripts.here(then)
    found = masters(batch, said)
    overwrite = batch.plan.options["existing"] == "overwrite"
    return ask(chain, found, then, overwrite, made, watch) if found else []


def _code(said: Mapping[str, Any]) -> int:
    return EXIT_SOME_FAILED if overview.undone_of(said) else EXIT_OK


def _tell(job: Folder, batch: Batch, said: dict[str, Any], ended: list[dict[str, Any]]) -> None:
    """In the reports, and by mail."""
    said["then"] = ended
    finish.write(batch.output / REPORT, said)
    finish.write(job.path / REPORT, said)
    if batch.mail and batch.mailer == "sendmail":
        undone = overview.undone_of(said)
        failed = int(said["counts"][report.FAILED]) + undone
        tasks = f"{', '.join(batch.then.tasks)}: {len(ended) - undone} of {len(ended)} done" if batch.then else ""
        mail.tell(batch, job, f"{len(said['files'])} recordings, then {tasks}", failed)
