"""One task of a job that works on transcripts, on its node. Results that are there are not made again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kuulo.jobs import life, transcripts
from kuulo.jobs.batch import Transcripts
from kuulo.jobs.folder import RESULT, PieceState, TaskLog
from kuulo.jobs.life import Life
from kuulo.jobs.share_task import ShareTask
from kuulo.llm import pace, session
from kuulo.llm.asking import Asker
from kuulo.llm.chain import DONE, PARTLY, SKIPPED, Name, Outcome


def made(results: Mapping[Name, Mapping[str, Any]]) -> set[Name]:
    """Those that are there."""
    return {name for name, one in results.items() if one["state"] in (DONE, SKIPPED)}


class TranscriptsTask(ShareTask):
    """Does what is left of a share of transcripts. `results`: what the task has said of them before."""

    def __init__(
        self,
        job: Transcripts,
        known: PieceState,
        results: Mapping[Name, Mapping[str, Any]],
        log: TaskLog,
        run_: Life,
        round_: int,
        number: int,
    ) -> None:
        (self._share,) = job.tasks[number]
        super().__init__(known, log, run_, round_, number, self._share.called("transcripts"))
        self._job, self._before = job, made(results)
        self._made: list[Outcome] = []

    @property
    def _came_further(self) -> bool:
        return any(one.state in (DONE, PARTLY) for one in self._made)

    def _asked(self) -> int:
        chain, plan = transcripts.here(self._job.what)
        began = time.monotonic()
        with session.opened(plan) as talk:
            loaded = time.monotonic()
            self._log.say("ready", device=pace.device(plan))
            self._log.say("begins", piece=0, done=len(self._before))
            sources = self._job.sources[self._share.begin : self._share.end]
            asker = Asker(talk)
            outcomes = chain.go(
                sources,
                asker,
                talk.note(),
                overwrite=self._job.overwrite,
                but=self._before,
                at_once=self._job.what.concurrency,
                watch=self._watch,
            )
        ended = self._number_of(DONE, SKIPPED)
        why = None if ended == len(outcomes) else f"{len(outcomes) - ended} of {len(outcomes)} results are not there"
        life.say(f"{self._name}: {ended} of {len(outcomes)} results")
        # of a run that made all of them: what was there took none of its time
        whole = not self._number_of(SKIPPED)
        tokens = pace.tokens(talk.usage.prompt, talk.usage.answer) if whole else None
        return self._ended(plan, began, loaded, why=why, tokens=tokens, at_once=self._job.what.concurrency)

    def _watch(self, one: Outcome) -> None:
        self._made.append(one)
        self._log.say(RESULT, **one.to_json())
        self._log.say("progress", piece=0, done=self._number_of(DONE, SKIPPED))
        life.say(f"{one.source}: {one.task} {one.state}" + (f": {one.why}" if one.why else ""))

    def _number_of(self, *states: str) -> int:
        return sum(one.state in states for one in self._made)
