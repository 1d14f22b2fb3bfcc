"""How a run goes, for people: on standard error.

On a terminal: a bar for each recording in work and one for the whole, with the speed as times real time and the
time left. Elsewhere (a job's log): a line a minute, and one for each recording. Never a word of a transcript.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kuulo.report import DONE, FAILED, SKIPPED, STOPPED, Report

if TYPE_CHECKING:
    from kuulo.llm.chain import Outcome as Followed
    from kuulo.plan import Plan
    from kuulo.work import Work

LINE_EVERY_SECONDS = 60.0
BARS = 8
DRAW_EVERY_SECONDS = 0.1


def watcher(*, quiet: bool) -> Lines:
    """Who shows the progress, for where standard error goes."""
    if quiet:
        return Quiet()
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """A line a minute, and one when a recording ends."""

    def __init__(self) -> None:
        self.works: Sequence[Work] = ()
        self.began = time.monotonic()
        self.hearing_since: float | None = None
        self.done_before_ms = 0
        self._last_line = time.monotonic()

    # -- what run.Watcher asks

    def begins(self, works: Sequence[Work]) -> None:
        self.works = works

    def ready(self, device: str, compute_type: str | None) -> None:
        if self.hearing_since is None:
            self.hearing_since = time.monotonic()
            self.done_before_ms = self.done_ms()

    def hears(self, work: Work) -> None: ...

    def progress(self, work: Work) -> None:
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            self.say(self.overall())

    def ends(self, work: Work) -> None:
        outcome = work.outcome
        if outcome.state == FAILED:
            self.say(f"failed: {outcome.source}: {outcome.why}")
        elif outcome.warning:
            self.say(f"{outcome.source}: {outcome.warning}")

    def note(self, text: str) -> None:
        self.say(text)

    # -- what the command asks

    def chosen(self, plan: Plan) -> None:
        """Say which engine runs, and why."""
        model = f", model {plan.model.name}" if plan.model else ""
        self.say(f"{plan.engine}{model}: {plan.why}")
        for note in plan.notes:
            self.say(note)

    def close(self) -> None: ...

    def stopped(self, report: Report) -> None:
        """Say what was kept, after Ctrl-C."""
        before = f" ({report.count(SKIPPED)} were before)" if report.count(SKIPPED) else ""
        self.say(
            f"stopped: {report.count(DONE)} of {len(report.outcomes)} recordings finished{before}; what was heard of "
            "the others is kept. To go on, give the same command again."
        )

    def summary(self, report: Report) -> None:
        """The table at the end."""
        self.show(table(report))
        self.say(closing_line(report))

    def followed(self, one: Followed) -> None:
        """What became of a task of a language model on a transcript."""

    def over(self, ended: Sequence[Mapping[str, Any]]) -> None:
        """What became of all of them, as the report has it."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show(self, what: Any) -> None:
        from rich.console import Console

        width = None if sys.stderr.isatty() else 120
        Console(stderr=True, width=width, highlight=False).print(what)

    # -- numbers

    def done_ms(self) -> int:
        return sum(w.done_ms for w in self.works)

    def total_ms(self) -> int:
        return sum(w.length_ms for w in self.works)

    def speed(self) -> float | None:
        """Seconds of audio heard in a second, since the model was ready."""
        if self.hearing_since is None:
            return None
        seconds = time.monotonic() - self.hearing_since
        return (self.done_ms() - self.done_before_ms) / 1000 / seconds if seconds > 0 else None

    def overall(self) -> str:
        done, total, speed = self.done_ms(), self.total_ms(), self.speed()
        finished = sum(w.outcome.state != STOPPED for w in self.works)
        parts = [f"{finished} of {len(self.works)} recordings", f"{clock(done)} of {clock(total)} heard"]
        if speed:
            parts += [f"{speed:.1f} x real time", f"{clock(round((total - done) / speed))} left"]
        return ", ".join(parts)


class Quiet(Lines):
    """Failures alone."""

    def begins(self, works: Sequence[Work]) -> None: ...
    def progress(self, work: Work) -> None: ...
    def note(self, text: str) -> None: ...
    def chosen(self, plan: Plan) -> None: ...
    def stopped(self, report: Report) -> None: ...
    def summary(self, report: Report) -> None: ...


class Bars(Lines):
    """Rich's progress bars."""

    def __init__(self) -> None:
        super().__init__()
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._whole: Any = None
        self._last_drawn = 0.0

    def begins(self, works: Sequence[Work]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        super().begins(works)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[at]}", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
            refresh_per_second=5,
        )
        self._bars.start()
        self._whole = self._bars.add_task("preparing", total=None, at="")

    def ready(self, device: str, compute_type: str | None) -> None:
        super().ready(device, compute_type)
        kind = f", {compute_type}" if compute_type else ""
        self._bars.update(self._whole, description=f"whole ({device}{kind})")

    def hears(self, work: Work) -> None:
        if work.id not in self._tasks and len(self._tasks) < BARS:
            self._tasks[work.id] = self._bars.add_task(shorten(work.outcome.source), total=work.length_ms, at="")

    def progress(self, work: Work) -> None:
        at = f"{clock(work.done_ms)} of {clock(work.length_ms)}"
        now = time.monotonic()
        if now - self._last_drawn < DRAW_EVERY_SECONDS and work.outcome.state == STOPPED:
            return
        self._last_drawn = now
        if work.id in self._tasks:
            self._bars.update(self._tasks[work.id], completed=work.done_ms, total=work.length_ms, at=at)
        self._bars.update(self._whole, completed=self.done_ms(), total=self.total_ms() or None, at=self.overall())

    def ends(self, work: Work) -> None:
        if work.id in self._tasks:
            self._bars.remove_task(self._tasks.pop(work.id))
        self.progress(work)
        super().ends(work)

    def say(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            super().say(text)

    def close(self) -> None:
        bars, self._bars = self._bars, None
        if bars is not None:
            bars.stop()


def shorten(name: str, width: int = 32) -> str:
    """The end of a long path, which tells recordings apart."""
    return name if len(name) <= width else "…" + name[-(width - 1) :]


def clock(ms: int) -> str:
    """1:02:03, 2:03 or 0:03."""
    seconds = max(0, round(ms / 1000))
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def table(report: Report) -> Any:
    """What became of each recording; of many, those that failed and the first ones."""
    from rich.table import Table
    from rich.text import Text

    most = 30
    shown = sorted(report.outcomes, key=lambda o: o.state != FAILED)[:most] if len(report.outcomes) > most else None
    rows = shown or report.outcomes
    grid = Table(box=None, pad_edge=False)
    for heading in ("recording", "state", "length", "language", "results"):
        grid.add_column(heading, justify="right" if heading == "length" else "left", overflow="fold")
    for outcome in rows:
        length = clock(outcome.audio_ms) if outcome.audio_ms is not None else ""
        results = outcome.why or _together(outcome.outputs)
        if outcome.state == FAILED and outcome.do:
            results += f" ({outcome.do})"
        if outcome.warning:
            results += f" ({outcome.warning})"
        style = {"failed": "red", "done": "green"}.get(outcome.state, "")
        state = Text(outcome.state, style=style)
        grid.add_row(Text(outcome.source), state, length, outcome.language or "", Text(results))
    if shown:
        grid.add_row(f"… and {len(report.outcomes) - most} more, see report.json")
    return grid


def _together(outputs: Sequence[str]) -> str:
    """out/a.json, out/a.srt -> out/a.json .srt"""
    if not outputs:
        return ""
    first = outputs[0]
    stem = first.removesuffix(".json")
    return first + "".join(f" {o[len(stem) :]}" if o.startswith(stem + ".") else f" {o}" for o in outputs[1:])


def closing_line(report: Report) -> str:
    """One line that says it all."""
    counts = [f"{report.count(s)} {s}" for s in (DONE, SKIPPED, FAILED) if report.count(s)]
    seconds = report.elapsed_ms / 1000
    line = f"{', '.join(counts) or 'nothing to do'} in {seconds:.1f} s"
    if report.audio_ms and seconds:
        line += f"; {clock(report.audio_ms)} of audio, {report.audio_ms / 1000 / seconds:.1f} x real time"
    return line
