"""One task of a job that asks a language model, on its node. It goes on where its journal ends."""

from __future__ import annotations

import dataclasses
import time

from kuulo import naming
from kuulo.errors import CannotRun
from kuulo.jobs import life, prompts
from kuulo.jobs.batch import Prompts
from kuulo.jobs.folder import PieceState, TaskLog
from kuulo.jobs.life import Life
from kuulo.jobs.prompts import Way
from kuulo.jobs.share_task import ShareTask
from kuulo.llm import batch as batches
from kuulo.llm import pace, session
from kuulo.llm.batch import Batch, Journal, Ledger
from kuulo.llm.session import Talk


class PromptsTask(ShareTask):
    """Asks what is left of a share of prompts."""

    def __init__(self, job: Prompts, known: PieceState, log: TaskLog, run_: Life, round_: int, number: int) -> None:
        (self._share,) = job.tasks[number]
        super().__init__(known, log, run_, round_, number, self._share.called("prompts"))
        self._job = job
        self._said = time.monotonic()
        self._before: int | None = None
        self._done = 0

    @property
    def _came_further(self) -> bool:
        return self._before is not None and self._done > self._before

    def _asked(self) -> int:
        found = prompts.requests(self._job)[self._share.begin : self._share.end]
        plan = prompts.chat_plan(self._job)
        at_once, began = batches.at_once(plan, self._job.concurrency), time.monotonic()
        with session.opened(plan) as talk:
            loaded = time.monotonic()
            way = _way(talk, at_once)
            self._log.say("ready", way=dataclasses.asdict(way), device=pace.device(plan))
            journal = self._journal()
            try:
                requests = prompts.settled(self._job, found, way)
                # the other tasks' answers, which may be gigabytes, are nothing to this one
                kept = batches.kept(self._job.target, {one.digest(way.identity) for one in requests})
                asked = Batch(requests, way.identity, talk.client, at_once, kept)
                lines = asked.go(journal, self._progress)
            finally:
                journal.close()
        ledger = Ledger.of(asked.requests, lines, asked.was_kept)
        again = sum(line["error"] is None and not batches.is_final(line) for line in lines)
        why = f"{again} prompts were not answered: the server failed, or had too much to do" if again else None
        life.say(f"{self._name}: {ledger.answered} answered" + (f"; {why}" if why else ""))
        # of a run that asked all of it: what was kept took none of its time
        tokens = None if asked.was_kept else pace.tokens(ledger.prompt_tokens, ledger.completion_tokens)
        return self._ended(plan, began, loaded, why=why, tokens=tokens, at_once=at_once)

    def _journal(self) -> Journal:
        """Of this task alone: no two processes add to one file. Raises CannotRun."""
        folder = batches.parts(self._job.target)
        journal = Journal(folder / f"{self._number}.partial")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            journal.open()
        except OSError as error:
            raise CannotRun(
                f"the answers cannot be kept: {error.strerror or error}", looked_at=naming.shown(folder)
            ) from error
        return journal

    def _progress(self, done: int, of: int) -> None:
        """What was there before is said first."""
        if self._before is None:
            self._before = done
            self._log.say("begins", piece=0, done=done)
        self._done = done
        if time.monotonic() - self._said >= life.SAY_EVERY_S:
            self._said = time.monotonic()
            self._log.say("progress", piece=0, done=done)


def _way(talk: Talk, at_once: int) -> Way:
    return Way(talk.identity, talk.client.endpoint.model, batches.defaults(talk), talk.note(), at_once)
