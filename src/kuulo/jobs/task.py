"""One task of a job, on its node: hears its pieces as any run does, and says in the job's folder how it goes.

A task may be killed at any moment and be started again, here or elsewhere: it goes on where journals end. It is told by
SIGUSR1 that its time is nearly over or that others need the node: then it stops in good order and ends with the exit
code AGAIN, which asks the scheduler to queue it again, unless it came no further since it was started.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from kuulo import audio, machine, naming, report, site, speeds
from kuulo.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, CannotRun, KuuloError
from kuulo.jobs import plan_file
from kuulo.jobs.batch import WHOLE, WORDS, Batch, Item, Piece
from kuulo.jobs.folder import IN_WORK, LEFT, Folder, PieceState, TaskLog
from kuulo.memory import Peak
from kuulo.parts import Part
from kuulo.plan import Plan, share_out
from kuulo.run import Run
from kuulo.schedulers.base import AGAIN
from kuulo.work import Work

SAY_EVERY_S = 10.0
KILLED_TWICE = "its task was killed twice at the same place"


def run(folder: Path, round_: int, number: int) -> int:
    """Do what is left of a task; the exit code. Raises CannotRun when the job's folder cannot be used."""
    batch = plan_file.read(folder)
    if not 0 <= number < len(batch.tasks):
        raise CannotRun(f"the job has no task {number}", looked_at=str(folder))
    pieces = batch.tasks[number]
    known = Folder(folder).task(number, len(pieces)).pieces
    try:
        log = TaskLog(folder, number)
    except OSError as error:
        raise CannotRun(f"the job's folder cannot be written to: {error.strerror}", looked_at=str(folder)) from error
    try:
        return _Task(batch, pieces, known, log, round_, folder / "tasks" / f"{number}.log").go()
    finally:
        log.close()


class _Task:
    def __init__(
        self,
        batch: Batch,
        pieces: Sequence[Piece],
        known: Sequence[PieceState],
        log: TaskLog,
        round_: int,
        engine_log: Path,
    ) -> None:
        self._batch, self._pieces, self._known, self._log = batch, pieces, known, log
        self._round, self._engine_log = round_, engine_log
        self._memory = Peak()
        self._began = time.monotonic()

    def go(self) -> int:
        todo = [n for n, piece in enumerate(self._known) if _is_to_do(piece, self._round)]
        plan = here(self._batch.plan, len(todo))
        self._starts(plan)
        hopeless = [n for n in todo if self._known[n].tries >= 2 and self._known[n].round == self._round]
        for n in hopeless:
            self._log.say("ends", piece=n, state=report.FAILED, why=KILLED_TWICE, do="see the log", **self._source(n))
            _print(f"failed: {self._source(n)['source']}: {KILLED_TWICE}")
        todo = [n for n in todo if n not in hopeless]
        if not todo:
            return self._finished(EXIT_SOME_FAILED if hopeless else EXIT_OK)
        recordings = [self._recording(n) for n in todo]
        watcher = Teller(self._log, todo, self._batch, self._pieces)
        job = Run(plan, recordings, [], watcher, log=self._engine_log)
        told = _listen()
        try:
            job.go()
        except KeyboardInterrupt:
            again = told.signal == signal.SIGUSR1
            return self._stopped(again, watcher.came_further(job.works), job)
        except KuuloError as error:
            cause = report.MEMORY if "memory" in error.what else None
            self._finished(error.exit_code, job, why=error.what, do=error.do, cause=cause)
            raise
        failed = hopeless or job.report.count(report.FAILED)
        return self._finished(EXIT_SOME_FAILED if failed else EXIT_OK, job)

    def _starts(self, plan: Plan) -> None:
        array = os.environ.get("SLURM_ARRAY_JOB_ID")
        id_ = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
        self._log.say(
            "starts",
            round=self._round,
            host=socket.gethostname(),
            node=os.environ.get("SLURMD_NODENAME", ""),
            id=id_,
            pid=os.getpid(),
            restart=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
            workers=plan.workers,
            threads=plan.threads,
            cores=machine.cores(),
            gpus=machine.gpus(),
            memory_bytes=machine.memory_bytes(),
        )

    def _stopped(self, again: bool, progressed: bool, job: Run) -> int:
        if not again:
            return self._finished(EXIT_INTERRUPTED, job, why="it was told to stop")
        if progressed:
            _print("the time is nearly over: going on in the next run of this task")
            return self._finished(AGAIN, job, why="its time was over")
        return self._finished(
            EXIT_SOME_FAILED,
            job,
            why="the time limit was over before anything was heard",
            do="more time: --time with kuulo jobs retry",
        )

    def _finished(self, code: int, job: Run | None = None, **fields: Any) -> int:
        done = job.report if job else None
        self._log.say(
            "finished",
            code=code,
            round=self._round,
            elapsed_ms=round((time.monotonic() - self._began) * 1000),
            load_ms=done.load_ms if done else None,
            cores=machine.cores(),
            processor=speeds.gpu() if done and str(done.device).startswith("cuda") else speeds.node(),
            audio_ms=done.audio_ms if done else 0,
            device=done.device if done else None,
            compute_type=done.compute_type if done else None,
            peak_bytes=self._memory.stop(),
            **{k: v for k, v in fields.items() if v is not None},
        )
        return code

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
        self._say("begins", piece=self._number(work), done_ms=work.done_ms)

    def progress(self, work: Work) -> None:
        number, now = self._number(work), time.monotonic()
        if now - self._last.get(number, 0.0) >= SAY_EVERY_S:
            self._last[number] = now
            self._say("progress", piece=number, done_ms=work.done_ms)

    def ends(self, work: Work) -> None:
        outcome = work.outcome
        self._any_ended = True
        self._say("ends", piece=self._number(work), **outcome.to_json())
        if outcome.state == report.FAILED:
            _print(f"failed: {outcome.source}: {outcome.why}")
        elif outcome.warning:
            _print(f"{outcome.source}: {outcome.warning}")

    def note(self, text: str) -> None:
        _print(text)

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
            _print(f"the job's folder cannot be written to: {error.strerror}")

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


@dataclasses.dataclass
class _Told:
    signal: int = signal.SIGINT


def _listen() -> _Told:
    """SIGTERM and SIGUSR1 stop the run as Ctrl-C does; which it was is in what is given back."""
    told = _Told()
    both = (signal.SIGTERM, signal.SIGUSR1)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in both:
            signal.signal(each, signal.SIG_IGN)
        told.signal = number
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for each in both:
            signal.signal(each, stop)
    return told


def _print(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()
