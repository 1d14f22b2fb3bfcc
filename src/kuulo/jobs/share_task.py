"""One task of a job that asks a language model, on its node, whatever it asks: it starts, is stopped and ends in the
same way."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from kuulo import report, speeds
from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED, KuuloError
from kuulo.jobs import life
from kuulo.jobs.folder import PieceState, TaskLog
from kuulo.jobs.life import Life
from kuulo.llm import pace
from kuulo.llm.plan import ChatPlan


class ShareTask(ABC):
    """`known`: what the task has said of its share before; `name`: what people call the share."""

    def __init__(self, known: PieceState, log: TaskLog, run_: Life, round_: int, number: int, name: str) -> None:
        self._known, self._log, self._life = known, log, run_
        self._round, self._number, self._name = round_, number, name

    @abstractmethod
    def _asked(self) -> int:
        """Ask what is left, and say how it ended; the exit code. Raises KuuloError."""

    @property
    @abstractmethod
    def _came_further(self) -> bool:
        """Whether the next life of the task begins later than this one did."""

    def go(self) -> int:
        """The exit code. Raises KuuloError."""
        self._life.starts()
        if self._known.state == report.DONE:
            return self._life.finished(EXIT_OK)
        if self._known.tries >= 2 and self._known.round == self._round:
            self._log.say("ends", piece=0, state=report.FAILED, why=life.KILLED_TWICE, do="see the log")
            life.say(f"failed: {self._name}: {life.KILLED_TWICE}")
            return self._life.finished(EXIT_SOME_FAILED)
        told = life.listen()
        try:
            return self._asked()
        except KeyboardInterrupt:
            return self._life.stopped(told, came_further=self._came_further)
        except KuuloError as error:
            cause = report.MEMORY if "memory" in error.what else None
            self._life.finished(error.exit_code, why=error.what, do=error.do, cause=cause)
            raise

    def _ended(
        self, plan: ChatPlan, began: float, loaded: float, *, why: str | None, tokens: float | None, at_once: int
    ) -> int:
        """Say that all was asked, and what the next job is planned with; the exit code. `why`: not all was answered."""
        self._log.say("ends", piece=0, state=report.FAILED if why else report.DONE, **({"why": why} if why else {}))
        told: dict[str, Any] = {
            "load_ms": round((loaded - began) * 1000),
            "asked_ms": round((time.monotonic() - loaded) * 1000),
            "device": pace.device(plan),
            "processor": speeds.gpu() if plan.on_gpu else speeds.node(),
            "concurrency": at_once,
            "tokens": tokens,
        }
        return self._life.finished(EXIT_SOME_FAILED if why else EXIT_OK, **told)
