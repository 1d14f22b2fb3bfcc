"""Carries out a plan on this machine.

    Preparation (threads): checks, skips what is done, decodes into scratch   -> clips
    Worker (processes): hear clips, several at a time, say events             -> segments, into journals
    Run (one loop): hands clips to workers, keeps journals, writes results when a recording is finished

A worker that dies takes no recording with it: what it had goes to a new worker, one at a time, from the last
checkpoint; a recording that kills its worker twice is given up and reported.
"""

from __future__ import annotations

import dataclasses
import queue
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from kuulo import atomic, audio, engines, laying, naming, report, runtimes, wire, work, workers
from kuulo import roster as rosters
from kuulo.engines.base import SAMPLE_RATE
from kuulo.errors import CannotRun, InputFailed, KuuloError
from kuulo.plan import DIARIZE, PACK_LONGEST_MS, Plan
from kuulo.preparation import Preparation, advice
from kuulo.report import Outcome, Report
from kuulo.results import Results
from kuulo.roster import Match
from kuulo.work import Given, Work
from kuulo.workers import Aside, Worker

WINDOW_MS = 30_000
PACK_GAP_MS = 1_000
"""Silence between recordings that share a window: enough for Whisper to end a segment."""

TRIES = 2
LESS_MEMORY = "less memory is needed with a smaller model or --workers 1"


class Watcher(Protocol):
    """Who is told how a run goes. Called from one thread."""

    def begins(self, works: Sequence[Work]) -> None: ...
    def ready(self, device: str, compute_type: str | None) -> None: ...
    def hears(self, work: Work) -> None: ...
    def progress(self, work: Work) -> None: ...
    def ends(self, work: Work) -> None: ...
    def note(self, text: str) -> None: ...


class Run:
    """One run of a plan over recordings. `go` does it all; `report` is filled on the way."""

    def __init__(
        self,
        plan: Plan,
        recordings: Sequence[audio.Recording],
        failures: Sequence[tuple[str, InputFailed]],
        watcher: Watcher,
        log: Path | None = None,
    ) -> None:
        """With `log`, a file, this is a part of a greater whole, which keeps the account: no report is written."""
        self.plan = plan
        self.results = Results(plan)
        self.watcher = watcher
        self._reports = log is None
        self._log_path = log or self.results.folder / ".kuulo" / "log.txt"
        self.report = Report(
            engine=plan.engine,
            model=plan.model.name if plan.model else None,
            why=plan.why,
            output=naming.shown(self.results.folder),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            workers=plan.workers,
        )
        self.works = [
            self._work(i, r, s) for i, (r, s) in enumerate(zip(recordings, self._stems(recordings), strict=True))
        ]
        self.report.outcomes = [w.outcome for w in self.works] + [
            Outcome(naming.shown(path), report.FAILED, why=error.what, do=error.do) for path, error in failures
        ]
        self.scratch = Path()
        self.log: IO[bytes]
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._to_hear: deque[Given] = deque()
        self._short: list[Work] = []
        self._hearing: list[Worker] = []
        self._detector = Aside(self, _detection(), runtimes.of(None))
        self._diarizer = self._aside_diarizer()
        self._open = len(self.works)
        self._unprepared = len(self.works)
        self._packs = 0
        self._batch_size: int | None = None

    def _stems(self, recordings: Sequence[audio.Recording]) -> Sequence[Any]:
        if all(recording.stem for recording in recordings):
            return [recording.stem for recording in recordings]
        return naming.stems([(r.path, r.base) for r in recordings], self.results.belongs_to_another)

    def _work(self, number: int, recording: audio.Recording, stem: Any) -> Work:
        outcome = Outcome(naming.shown(recording.path), started=self.report.started)
        return Work(f"r{number}", recording.path, stem, outcome, part=recording.part, begun=recording.begun)

    # ------------------------------------------------------------------ beginning and end

    def go(self) -> Report:
        """Transcribe everything. Raises CannotRun when nothing could be; a KeyboardInterrupt leaves what is finished,
        and journals of the rest."""
        began = time.monotonic()
        self.results.make_folder()
        try:
            self.scratch = Path(tempfile.mkdtemp(prefix="kuulo-", dir=self.plan.options["scratch"])).absolute()
        except OSError as error:
            raise CannotRun(f"no scratch folder can be made: {error}", do="name another with --scratch") from error
        self.report.log = naming.shown(self._log_path)
        preparation = Preparation(
            self.plan,
            self.results,
            self.scratch,
            expected=lambda: self.post(self._expected),
            answer=lambda one, skipped, error: self.post(self._prepared, one, skipped, error),
        )
        self._preparation = preparation
        try:
            with self._log_path.open("ab") as self.log:
                self.watcher.begins(self.works)
                preparation.start(self._order(), self.plan.workers)
                while self._open:
                    self._posted.get()()
                for worker in self._all_workers():
                    worker.end()
        finally:
            workers.stop(self._all_workers())
            preparation.stop()
            for one in self.works:
                if one.journal:
                    one.journal.close()
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.report.elapsed_ms = round((time.monotonic() - began) * 1000)
            if self._reports:
                self._write_report()
        return self.report

    def _order(self) -> list[Work]:
        """Longest first, so that no long recording is left at the end, and what is decoded together is alike."""
        for one in self.works:
            try:
                one.length_ms = (audio.probe(one.path).duration_ms or 0) if str(one.path) != "-" else 0
            except KuuloError:
                one.length_ms = 0  # its preparation will say what is wrong
        return sorted(self.works, key=lambda w: -w.length_ms)

    def _all_workers(self) -> list[Worker]:
        return [*self._hearing, *self._asides()]

    def _asides(self) -> list[Worker]:
        return [aside.worker for aside in (self._detector, self._diarizer) if aside and aside.worker]

    def _aside_diarizer(self) -> Aside | None:
        """Who tells speakers apart beside the recognition."""
        chosen = self.plan.diarizer
        if chosen is None:
            return None
        path = str(chosen.model.path) if chosen.model else None
        told = self.plan.speaker_options(engines.spec(chosen.engine))
        raw = dict(self.plan.options["speaker_option"] or {})
        task = wire.Task(DIARIZE, chosen.engine, chosen.model_name, path, told, raw)
        return Aside(self, task, runtimes.of(chosen.environment))

    def _write_report(self) -> None:
        try:
            atomic.write_json(self.results.folder / "report.json", self.report.to_json())
        except OSError as error:
            self.watcher.note(f"report.json cannot be written: {error}")

    def post(self, what: Callable[..., None], *arguments: Any) -> None:
        """Have `what` called by the loop. From any thread."""
        self._posted.put(lambda: what(*arguments))

    # ------------------------------------------------------------------ prepared recordings become clips

    def _expected(self) -> None:
        """A recording is being decoded: its engine may load meanwhile."""
        if not self._hearing:
            self._start_worker()

    def _prepared(self, one: Work, skipped: bool, error: KuuloError | None) -> None:
        self._unprepared -= 1
        if error is not None:
            self._failed(one, error.what, error.do)
        elif skipped:
            one.outcome.state = report.SKIPPED
            self._ended(one)
        else:
            self._begin(one)
        if not self._unprepared:
            self._pack()
        self._hand_out()

    def _begin(self, one: Work) -> None:
        try:
            one.resume()
        except OSError as error:
            self._failed(one, f"nothing can be written to the output folder: {error.strerror}", advice(error))
            return
        if self._diarizer and one.turns is None and not (one.part and not one.is_turns):
            mono = Given(wire.Clip(one.id, str(one.pcm), one.samples), [one])
            self._diarizer.add(work.by_channel(one) if self.plan.by_channel else mono)
        if one.is_turns:
            self.watcher.hears(one)
            if one.turns is not None:
                self._finish(one)
            return
        if not one.samples:  # a part beyond the recording's end
            self._finish(one)
            return
        if self.plan.job == DIARIZE and self.plan.by_channel:
            self._queue(work.by_channel(one))
            return
        if self.plan.options["pack"] and one.length_ms <= PACK_LONGEST_MS and one.heard.state is None:
            if sum(w.length_ms + PACK_GAP_MS for w in self._short) + one.length_ms > WINDOW_MS:
                self._pack()
            self._short.append(one)
        else:
            self._queue(work.alone(one))

    def _pack(self) -> None:
        """The short recordings that wait become one clip."""
        short, self._short = self._short, []
        if len(short) < 2:
            for one in short:
                self._queue(work.alone(one))
            return
        self._packs += 1
        try:
            self._queue(work.packed(f"pack{self._packs}", short, self.scratch, PACK_GAP_MS, SAMPLE_RATE))
        except OSError as error:
            for one in short:
                self._failed(one, f"scratch cannot be written: {error.strerror}", advice(error))

    def _queue(self, given: Given) -> None:
        if not self.plan.options["speech_detection"]:
            self._to_hear.append(given)
            return
        self._detector.add(given)

    # ------------------------------------------------------------------ clips go to workers

    def _hand_out(self) -> None:
        """Give what waits to workers that have room; start workers while there is something for them."""
        self._detector.hand_out()
        if self._diarizer:
            self._diarizer.hand_out()
        starting = sum(not w.ready for w in self._hearing)
        coming = bool(self._to_hear or self._detector.busy)
        while coming and len(self._hearing) < self.plan.workers and starting < max(1, len(self._to_hear)):
            self._start_worker()
            starting += 1
        while self._to_hear:
            free = [w for w in self._hearing if w.ready and len(w.clips) < w.room]
            if not free:
                return
            given = self._to_hear.popleft()
            min(free, key=lambda w: len(w.clips)).give(given)
            for one in given.works:
                self.watcher.hears(one)

    def _start_worker(self, limit: int | None = None) -> None:
        plan = self.plan
        path = str(plan.model.path) if plan.model else None
        options = plan.engine_options() | ({"batch_size": self._batch_size} if self._batch_size else {})
        task = wire.Task(plan.job, plan.engine, plan.model_name, path, options, dict(plan.raw))
        self._hearing.append(Worker(self, task, runtimes.of(plan.environment), limit))

    # ------------------------------------------------------------------ what workers say

    def heard_from(self, worker: Worker, event: Mapping[str, Any]) -> None:
        """One event of a worker."""
        kind = event["type"]
        if kind == "hello":
            worker.hello = dict(event)
        elif kind == "ready":
            self._ready(worker, event)
        elif kind == "fatal":
            worker.finished = True
            raise CannotRun(event["what"], looked_at=event.get("looked_at") or None, do=event.get("do"))
        elif kind == "log":
            self.watcher.note(event["text"])
        elif kind == "done":
            worker.finished = True
        elif worker is self._detector.worker:
            self._detected(worker, kind, event)
        elif self._diarizer and worker is self._diarizer.worker:
            self._told_apart(worker, kind, event)
        else:
            self._about(worker, kind, event)

    def _ready(self, worker: Worker, event: Mapping[str, Any]) -> None:
        worker.is_ready(int(event["parallel"]))
        if worker not in self._asides():
            self.report.device, self.report.compute_type = event["device"], event.get("compute_type")
            self.report.load_ms = max(self.report.load_ms or 0, int(event["load_ms"]))
            self.watcher.ready(event["device"], event.get("compute_type"))
        self._hand_out()

    def _detected(self, worker: Worker, kind: str, event: Mapping[str, Any]) -> None:
        """Speech detection has answered: the clip goes on to be heard."""
        given = worker.clips[event["id"]]
        if kind == "speech":
            ranges = tuple((int(a), int(b)) for a, b in event["turns"])
            self._to_hear.append(Given(dataclasses.replace(given.clip, speech=ranges), given.works))
            return
        if kind == "file_failed":
            for one in given.works:
                self._failed(one, f"speech detection: {event['what']}", event.get("do"))
        del worker.clips[event["id"]]
        self._hand_out()

    def _told_apart(self, worker: Worker, kind: str, event: Mapping[str, Any]) -> None:
        """Who spoke when: the recording is finished, if it is heard too."""
        (one,) = worker.clips[event["id"]].works
        if kind == "turns":
            one.told_apart_by = worker.hello
            self._take_turns(one, event)
            self._keep_turns(one)
            return
        del worker.clips[event["id"]]
        if one.outcome.state == report.STOPPED:
            if kind == "file_failed":
                self._failed(one, f"speakers: {event['what']}", event.get("do"))
            elif one.heard_by is not None or one.is_turns:
                self._finish(one)
        self._hand_out()

    def _take_turns(self, one: Work, event: Mapping[str, Any]) -> None:
        """Raises UsageError when the voices cannot be compared with the roster's: so it is with every recording."""
        one.take_turns(event)
        if self.plan.roster and one.turns:
            rosters.check_encoder(self.plan.roster, one.encoder)

    def _keep_turns(self, one: Work) -> None:
        """For a run that goes on after this one was killed. Not with a roster: names need the voices, which are not
        kept, so then speakers are told apart again."""
        if one.outcome.state != report.STOPPED or self.plan.roster:
            return
        try:
            one.keep_turns()
        except OSError as error:
            self._failed(one, f"nothing can be written to the output folder: {error.strerror}", advice(error))

    def _about(self, worker: Worker, kind: str, event: Mapping[str, Any]) -> None:
        """An event about a recording."""
        given, one = worker.find(str(event["id"]))
        if given is None or one is None:
            return
        if kind == "file_failed" and _gpu_is_full(event) and worker.task.options.get("batch_size", 1) > 1:
            self._take_smaller_batches(worker)
            return
        if one.outcome.state == report.STOPPED:
            try:
                self._take(worker, one, kind, event)
            except OSError as error:  # the journal cannot be written
                self._failed(one, f"nothing can be written to the output folder: {error.strerror}", advice(error))
        if kind in ("file_done", "file_failed"):
            self._over(worker, given)

    def _take(self, worker: Worker, one: Work, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "file_failed":
            self._failed(one, event["what"], event.get("do"))
        elif kind == "file_done":
            one.outcome.engine_ms = int(event["engine_ms"])
            one.heard_by, one.batch_size = worker.hello, self._batch_size
            if self._diarizer is None or one.turns is not None or one.part:
                self._finish(one)
        elif kind == "turns":
            self._take_turns(one, event)
        else:
            one.take(kind, dict(event))
            self.watcher.progress(one)

    def _over(self, worker: Worker, given: Given) -> None:
        """Room for another clip, when nothing of this one is open."""
        if any(one.outcome.state == report.STOPPED and one.heard_by is None for one in given.works):
            return
        del worker.clips[given.clip.id]
        if given.clip.parts:
            Path(given.clip.pcm).unlink(missing_ok=True)
        self._hand_out()

    def gone(self, worker: Worker) -> None:
        """A worker's output has ended. Without `done` it has died."""
        if worker.finished:
            return
        died = worker.death()
        if worker in self._asides() or not worker.ready:
            when = "" if worker.ready else " before it was ready"
            raise CannotRun(
                f"{worker.task.engine}: the worker {died}{when}",
                looked_at=f"{self.report.log}\n{self._last_log_lines()}",
                do=LESS_MEMORY if "memory" in died else "see the log",
            )
        self._hearing.remove(worker)
        for given in worker.clips.values():
            for one in given.works:
                self._try_again(one, died)
        self._start_worker(limit=1)
        self._hand_out()

    def _try_again(self, one: Work, died: str) -> None:
        if one.outcome.state != report.STOPPED or one.heard_by is not None:
            return
        one.tries += 1
        if one.tries >= TRIES:
            lacking = "memory" in died
            one.outcome.cause = report.MEMORY if lacking else None
            self._failed(one, f"the engine {died}, twice", LESS_MEMORY if lacking else "see the log")
            return
        self._go_on(one)
        self.watcher.note(f"{one.outcome.source}: the engine {died}; going on from {one.done_ms / 1000:.0f} s")

    def _take_smaller_batches(self, worker: Worker) -> None:
        """The GPU's memory is not enough for so many windows together: all that the worker has goes to another, with
        half as many."""
        self._batch_size = worker.task.options["batch_size"] // 2
        self.watcher.note(f"the GPU's memory is full: going on with --batch-size {self._batch_size}")
        self._hearing.remove(worker)
        worker.finished = True
        workers.kill(worker)
        unfinished = [one for given in worker.clips.values() for one in given.works if one.heard_by is None]
        worker.clips.clear()
        for one in unfinished:
            if one.outcome.state == report.STOPPED:
                self._go_on(one)
        self._start_worker()
        self._hand_out()

    def _go_on(self, one: Work) -> None:
        """Another worker takes it up where its journal ends."""
        assert one.journal is not None
        one.journal.close()
        one.heard = one.journal.read()
        one.resume()
        self._to_hear.appendleft(work.alone(one))

    def _last_log_lines(self) -> str:
        self.log.flush()
        text = Path(self.log.name).read_bytes()[-4000:].decode("utf-8", "replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-8:])

    # ------------------------------------------------------------------ a recording ends

    def _finish(self, one: Work) -> None:
        """Heard to its end: write its results."""
        known = laying.recognise(self.plan, one)
        try:
            if one.part:
                self._keep_part(one, known)
                return
            laying.lay(self.plan, one, known)
            transcript = self.results.transcript(one, self.report.device, self.report.compute_type)
            self.results.write(one, transcript)
        except KuuloError as error:
            self._failed(one, error.what, error.do)
            return
        except OSError as error:
            self._failed(one, f"its results cannot be written: {error.strerror or error}", advice(error))
            return
        assert one.journal is not None
        one.journal.remove()
        one.outcome.state = report.DONE
        one.outcome.language, one.outcome.segments = transcript.language, len(transcript.segments)
        self._ended(one)

    def _keep_part(self, one: Work, known: Mapping[str, Match]) -> None:
        """A part is at its end: its journal is kept until all of the recording is joined. Raises OSError."""
        assert one.journal is not None
        if one.turns is not None and self.plan.roster:
            one.journal.write_turns(one.turns, one.told_apart_by)
        one.journal.write(
            {
                "type": "end",
                "offset_ms": one.offset_ms,
                "length_ms": one.length_ms,
                "hello": one.heard_by or {},
                "device": self.report.device,
                "compute_type": self.report.compute_type,
                "batch_size": one.batch_size,
                "engine_ms": one.outcome.engine_ms,
                "encoder": one.encoder,
                "known": {name: dataclasses.asdict(match) for name, match in known.items()},
                "warning": one.outcome.warning,
            }
        )
        one.outcome.state = report.DONE
        one.outcome.language, one.outcome.segments = one.language, len(one.segments)
        self._ended(one)

    def _failed(self, one: Work, what: str, do: str | None) -> None:
        one.outcome.state, one.outcome.why, one.outcome.do = report.FAILED, what, do
        self._ended(one)

    def _ended(self, one: Work) -> None:
        self._preparation.forget(one)
        if one.journal is not None:
            one.journal.close()
        one.done_ms = one.length_ms
        self._open -= 1
        self.watcher.ends(one)


def _gpu_is_full(event: Mapping[str, Any]) -> bool:
    """Whether a recording failed for lack of a GPU's memory, in the words of PyTorch, CTranslate2 and ONNX Runtime."""
    what = str(event["what"]).lower()
    return "out of memory" in what and ("cuda" in what or "hip" in what or "gpu" in what)


def _detection() -> wire.Task:
    """The task of speech detection."""
    return wire.Task("detect-speech", engines.specs("detect-speech")[0].name, "its own", None)
