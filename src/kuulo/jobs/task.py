"""One task of a job, on its node: hears its pieces as any run does, and says in the job's folder how it goes. One that
asks a language model is in prompts_task.py, one that works on transcripts in transcripts_task.py.

A task may be killed at any moment and be started again, here or elsewhere: it goes on where journals end. Who stops it
is said in life.py.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kuulo import audio, machine, naming, report, site, speeds
from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED, CannotRun, KuuloError
from kuulo.jobs import life, plan_file
from kuulo.jobs.batch import WHOLE, WORDS, Batch, Item, Piece, Prompts, Transcripts
from kuulo.jobs.folder import IN_WORK, LEFT, Folder, PieceState, TaskLog
from kuulo.parts import Part
from kuulo.plan import Plan, share_out
from kuulo.run import Run
from kuulo.work import Work


def run(folder: Path, round_: int, number: int) -> int:
    """Do what is left of a task; the exit code. Raises CannotRun when the job's folder cannot be used."""
    batch = plan_file.read(folder)
    if not 0 <= number < len(batch.tasks):
        raise CannotRun(f"the job has no task {number}", looked_at=str(folder))
    known = Folder(folder).task(number, len(batch.tasks[number])).pieces
    minutes = next((r.resources.minutes for r in Folder(folder).rounds() if r.number == round_), None)
    try:
        log = TaskLog(folder, number)
    except OSError as error:
        raise CannotRun(f"the job's folder cannot be written to: {error.strerror}", looked_at=str(folder)) from error
    try:
        run_ = life.Life(log, round_, minutes)
        if isinstance(batch, Prompts):
            from kuulo.jobs import prompts_task

            return prompts_task.PromptsTask(batch, known[0], log, run_, round_, number).go()
        if isinstance(batch, Transcripts):
            from kuulo.jobs import transcripts_task

            results = Folder(folder).results(number)
            return transcripts_task.TranscriptsTask(batch, known[0], results, log, run_, round_, number).go()
        engine_log = folder / "tasks" / f"{number}.log"
        return _Task(batch, batch.tasks[number], known, log, run_, round_, engine_log).go()
    finally:
        log.close()


class _Task:
    def __init__(
        self,
        batch: Batch,
        pieces: Sequence[Piece],
        known: Sequence[PieceState],
        log: TaskLog,
        run_: life.Life,
        round_: int,
        engine_log: Path,
    ) -> None:
        self._batch, self._pieces, self._known, self._log = batch, pieces, known, log
        self._round, self._engine_log = round_, engine_log
        self._life = run_

    def go(self) -> int:
        todo = [n for n, piece in enumerate(self._known) if _is_to_do(piece, self._round)]
        plan = here(self._batch.plan, len(todo))
        self._life.starts(workers=plan.workers, threads=plan.threads)
        hopeless = [n for n in todo if self._known[n].tries >= 2 and self._known[n].round == self._round]
        for n in hopeless:
            self._log.say(
                "ends", piece=n, state=report.FAILED, why=life.KILLED_TWICE, do="see the log", **self._source(n)
            )
            life.say(f"failed: {self._source(n)['source']}: {life.KILLED_TWICE}")
        todo = [n for n in todo if n not in hopeless]
        if not todo:
            return self._finished(EXIT_SOME_FAILED if hopeless else EXIT_OK)
        recordings = [self._recording(n) for n in todo]
        watcher = Teller(self._log, todo, self._batch, self._pieces)
        job = Run(plan, recordings, [], watcher, log=self._engine_log)
        told = life.listen()
        try:
            job.go()
        except KeyboardInterrupt:
            return self._life.stopped(told, came_further=watcher.came_further(job.works), **self._measured(job))
        except KuuloError as error:
            cause = report.MEMORY if "memory" in error.what else None
            self._finished(error.exit_code, job, why=error.what, do=error.do, cause=cause)
            raise
        failed = hopeless or job.report.count(report.FAILED)
        return self._finished(EXIT_SOME_FAILED if failed else EXIT_OK, job)

    def _finished(self, code: int, job: Run | None = None, **fields: Any) -> int:
        return self._life.finished(code, **self._measured(job), **fields)

    def _measured(self, job: Run | None) -> dict[str, Any]:
        """What the next job is planned with."""
        done = job.report if job else None
        return {
            "load_ms": (done.load_ms or 0) if done else 0,
            "processor": speeds.gpu() if done and str(done.device).startswith("cuda") else speeds.node(),
            "audio_ms": done.audio_ms if done else 0,
            "device": done.device if done else None,
            "compute_type": done.compute_type if done else None,
        }

    def _source(self, number: int) -> dict[str, str]:
        return {"source": naming.shown(self._batch.items[self._pieces[number].item].path)}

    def _recording(self, number: int) -> audio.Recording:
        piece = self._pieces[number]
        item = self._batch.items[piece.item]
        return audio.Recording(item.path, stem=item.stem, part=part_of(piece), begun=self._known[number].round > 0)


def part_of(piece: Piece) -> Part | None:
    """The part of a recording that a piece is; None for a whole one."""
    if piece.kind == WHOLE:
        return None
    if piece.kind != WORDS:
        return Part(piece.kind)
    last = piece.part == piece.parts - 1
    return Part(piece.kind, piece.from_ms if piece.part else None, None if last else piece.to_ms)


def here(plan: Plan, recordings: int) -> Plan:
    """The plan for this node: as many workers and threads as it gives us, and its scratch."""
    if plan.model and not plan.model.path.exists():
        raise CannotRun(
            f"the model {plan.model.name} is not on this node",
            looked_at=str(plan.model.path),
            do="the store must be on a file system that the compute nodes see",
        )
    wanted = {**plan.options, "workers": min(plan.options["workers"] or 1, max(1, recordings))}
    workers, threads = share_out(plan.spec, plan.model, wanted, machine.this(), max(1, recordings))
    scratch = plan.options["scratch"] or site.load().defaults.get("scratch")
    if scratch:
        scratch = os.path.expandvars(scratch)
        Path(scratch).mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(plan, workers=workers, threads=threads, options={**plan.options, "scratch": scratch})


def _is_to_do(piece: PieceState, round_: int) -> bool:
    """Whether nobody has dealt with it, or only in an earlier round, which failed."""
    return piece.state in (LEFT, IN_WORK) or (piece.state == report.FAILED and piece.round != round_)


class Teller:
    """Says in the task's file how its run goes, and prints what people should see in the scheduler's log."""

    def __init__(self, log: TaskLog, numbers: Sequence[int], batch: Batch, pieces: Sequence[Piece]) -> None:
        self._log, self._numbers, self._batch, self._pieces = log, numbers, batch, pieces
        self._last: dict[int, float] = {}
        self._began_at: dict[int, int] = {}
        self._any_ended = False

    def begins(self, works: Sequence[Work]) -> None:
        for one in works:
            if _is_changed(self._item(one)):
                one.outcome.warn("it was changed after the job was submitted")

    def ready(self, device: str, compute_type: str | None) -> None:
        self._say("ready", device=device, compute_type=compute_type)

    def hears(self, work: Work) -> None:
        self._began_at[self._number(work)] = work.done_ms
        self._say("begins", piece=self._number(work), done=work.done_ms)

    def progress(self, work: Work) -> None:
        number, now = self._number(work), time.monotonic()
        if now - self._last.get(number, 0.0) >= life.SAY_EVERY_S:
            self._last[number] = now
            self._say("progress", piece=number, done=work.done_ms)

    def ends(self, work: Work) -> None:
        outcome = work.outcome
        self._any_ended = True
        self._say("ends", piece=self._number(work), **outcome.to_json())
        if outcome.state == report.FAILED:
            life.say(f"failed: {outcome.source}: {outcome.why}")
        elif outcome.warning:
            life.say(f"{outcome.source}: {outcome.warning}")

    def note(self, text: str) -> None:
        life.say(text)

    def came_further(self, works: Sequence[Work]) -> bool:
        """Whether the next run of the task begins later than this one did."""
        return self._any_ended or any(
            one.journal is not None and one.journal.read().at_ms > self._began_at[self._number(one)]
            for one in works
            if self._number(one) in self._began_at
        )

    def _say(self, kind: str, **fields: Any) -> None:
        """What cannot be written down is no reason to stop: the results are elsewhere."""
        try:
            self._log.say(kind, **fields)
        except OSError as error:
            life.say(f"the job's folder cannot be written to: {error.strerror}")

    def _number(self, work: Work) -> int:
        return self._numbers[int(work.id[1:])]

    def _item(self, work: Work) -> Item:
        return self._batch.items[self._pieces[self._number(work)].item]


def _is_changed(item: Item) -> bool:
    try:
        facts = item.path.stat()
    except OSError:
        return False  # its preparation says what is wrong
    return (facts.st_size, facts.st_mtime_ns) != (item.bytes, item.modified_ns)
