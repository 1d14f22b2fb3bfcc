"""How a job of the portal goes: `status.json` in the session's folder, from which its card is drawn.

It has names of files and numbers, and no word of a transcript. It is written whole or not at all. Of a job that was
killed it says "running": the card knows from the portal that the job is over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from kuulo import atomic, naming, report
from kuulo.errors import KuuloError
from kuulo.llm.chain import PARTLY
from kuulo.report import Outcome, Report

FILE = "status.json"
SCHEMA = 1
STARTING, RUNNING, DONE, FAILED, STOPPED, REFUSED = "starting", "running", "done", "failed", "stopped", "refused"
"""Of the whole. FAILED: of some recordings nothing was made; REFUSED: nothing was begun."""

Row = dict[str, Any]

IN_WORK, WAITING = "in work", "waiting"
EVERY_S = 2.0
SHOWN = 100
"""Recordings that the card names; of more it has the numbers."""


def link(path: Path | str) -> dict[str, str]:
    """A path for people, and for an address (RFC 3986), whatever its bytes."""
    whole = Path(path).absolute()
    return {"name": naming.shown(whole.name), "shown": naming.shown(whole), "url": quote(os.fsencode(whole))}


def row(
    name: str, outcome: Outcome, results: Sequence[Path] = (), *, begun: bool = False, percent: int | None = None
) -> Row:
    """What the card says of a recording, which it calls so, and whose results are at these paths."""
    state = outcome.state if outcome.state != report.STOPPED else (IN_WORK if begun else WAITING)
    said: Row = {"name": name, "state": state}
    if state == IN_WORK and percent is not None:
        said["percent"] = percent
    if state in (report.DONE, report.SKIPPED):
        said["results"] = [link(path) for path in results]
    said |= {fact: text for fact in ("why", "do", "warning") if (text := getattr(outcome, fact))}
    return said


def row_of_task(one: Mapping[str, Any], names: str) -> Row:
    """What the card says of a task of a language model on a transcript, by the report. `names`: of all tasks, for what
    ended them all."""
    source = f"{PurePath(one['source']).stem}: {one['task']}" if "source" in one else names
    said: Row = {"name": source, "state": one["state"]}
    # A name whose bytes are no text stands there in another way than on the disk: the folder has a link.
    said["results"] = [link(path) for path in one.get("outputs", ()) if Path(path).exists()]
    said |= {fact: one[fact] for fact in ("why", "do") if one.get(fact)}
    return {**said, "warning": "; ".join(one["notes"])} if one.get("notes") else said


ORDER = (report.FAILED, PARTLY, IN_WORK, report.DONE, report.SKIPPED, WAITING)


def most_telling(rows: Sequence[Row]) -> list[Row]:
    """The rows that are shown: of many, those that failed first, then those in work; in their order."""
    chosen = sorted(range(len(rows)), key=lambda n: ORDER.index(rows[n]["state"]))[:SHOWN]
    return [rows[n] for n in sorted(chosen)]


class Status:
    """The file. What cannot be written is no reason to stop: the results are elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.said: dict[str, Any] = {"schema": SCHEMA, "state": STARTING}
        self._written = 0.0

    @property
    def due(self) -> bool:
        """Whether it was last written some time ago."""
        return time.monotonic() - self._written >= EVERY_S

    def write(self, **said: Any) -> None:
        """Write it, with what is new."""
        self.said |= said
        self._written = time.monotonic()
        try:
            atomic.write_json(self.path, {**self.said, "updated": int(time.time())})
        except OSError:
            return

    def refused(self, error: KuuloError) -> None:
        """Nothing could be begun."""
        facts = {"what": error.what, "looked_at": error.looked_at, "do": error.do}
        self.write(state=REFUSED, error={name: fact for name, fact in facts.items() if fact})

    def ended(
        self, made: Report, rows: Sequence[Row], then: Mapping[str, Any] | None = None, *, stopped: bool = False
    ) -> None:
        """The run's own report is what counts, and what became of the tasks that followed (`following`)."""
        failed = made.count(report.FAILED) or (then and {report.FAILED, PARTLY} & then["counts"].keys())
        state = STOPPED if stopped else FAILED if failed else DONE
        told = {"then": then} if then else {}
        self.write(state=state, elapsed_s=round(made.elapsed_ms / 1000), **counted(rows), **told)

    def mail(self, address: str) -> EmailMessage:
        """The mail about what became of it. Pure. It has numbers and no names of files: mail leaves the house."""
        numbers = _numbers(self.said)
        if then := self.said.get("then"):
            numbers += f"; {then['tasks']}: {_numbers(then) or 'nothing was done'}"
        made = EmailMessage()
        made["To"] = address
        made["Subject"] = f"Kuulo: {SUBJECTS.get(self.said['state'], 'it ended before it was done')}"
        made.set_content(f"{numbers or 'no recording was begun'}.\n\nThe card of the session in the portal has more.\n")
        return made


def _numbers(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{number} {state}" for state, number in said.get("counts", {}).items())


def following(names: str, followed: Sequence[Row], number: int) -> dict[str, Any]:
    """Of tasks of a language model, `number` in all: those that have ended."""
    return {"tasks": names, **counted(followed), "total": max(number, len(followed))}


SUBJECTS = {
    DONE: "all done",
    FAILED: "some recordings failed",
    REFUSED: "nothing was done",
    STOPPED: "stopped before the end",
}
"""Of the mail, by what became of it."""


def counted(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows that are shown, and the numbers of all."""
    states = [each["state"] for each in rows]
    return {
        "files": most_telling(rows),
        "total": len(rows),
        "counts": {state: states.count(state) for state in ORDER if state in states},
    }
