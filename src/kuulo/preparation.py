"""Everything that a recording needs before an engine hears it: checks, digest, journal, decoding into scratch.

Runs in threads beside the recognition, so that decoding costs no time; how far ahead it may get is bounded by the
space that decoded audio takes in scratch.
"""

from __future__ import annotations

import errno
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kuulo import audio, channels, naming, parts
from kuulo.engines.base import SAMPLE_RATE
from kuulo.errors import InputFailed, KuuloError
from kuulo.journal import Journal
from kuulo.parts import TURNS, WORDS
from kuulo.plan import DIARIZE, Plan
from kuulo.results import Results
from kuulo.work import CHANNELS, Work
from kuulo.worker import SPEECH

BY_VOICE = "tell them apart by their voices: --speakers auto, or the number"

AHEAD_BYTES = 2 << 30
"""Decoded audio that may lie in scratch (2 GiB is 9 hours)."""

THREADS = 4


class Preparation:
    """Prepares recordings in threads. Called from them: `expected()` when a recording is not done already, and
    `answer(work, skipped, error)` for each in the end."""

    def __init__(
        self,
        plan: Plan,
        results: Results,
        scratch: Path,
        *,
        expected: Callable[[], None],
        answer: Callable[[Work, bool, KuuloError | None], None],
    ) -> None:
        self._plan = plan
        self._results = results
        self._scratch = scratch
        self._expected = expected
        self._answer = answer
        self._stop = threading.Event()
        self._bytes = 0
        self._space = threading.Condition()
        self._todo: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, works: Sequence[Work], threads: int) -> None:
        for work in works:
            self._todo.put(work)
        for _ in range(min(THREADS, max(1, threads), len(works))):
            thread = threading.Thread(target=self._serve, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the threads, in the middle of a recording if need be."""
        self._stop.set()
        with self._space:
            self._space.notify_all()
        for thread in self._threads:
            thread.join(timeout=1.0)

    def forget(self, work: Work) -> None:
        """The recording is dealt with: its decoded audio goes."""
        if work.pcm is not None:
            for ending in ("", SPEECH, CHANNELS):
                work.pcm.with_name(work.pcm.name + ending).unlink(missing_ok=True)
        with self._space:
            self._bytes -= self._size(work)
            work.samples = 0
            self._space.notify_all()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                work = self._todo.get_nowait()
            except queue.Empty:
                return
            skipped, failure = False, None
            try:
                skipped = self._prepare(work)
            except KuuloError as error:
                failure = error
            except OSError as error:
                failure = InputFailed(error.strerror or str(error), do=advice(error))
            except Exception as error:  # a fault of ours or of a decoder is this recording's, not the others'
                failure = InputFailed(f"{type(error).__name__}: {error}", do="please report this")
            self._answer(work, skipped, failure)

    def _prepare(self, work: Work) -> bool:
        """True when the recording is done already."""
        work.began = time.monotonic()
        if str(work.path) == "-":
            work.path = self._standard_input()
        audio.check_file(work.path)
        facts = work.path.stat()
        work.bytes, work.modified_ns = facts.st_size, facts.st_mtime_ns
        if self._results.is_done(work):
            return True
        self._expected()
        work.sha256 = work.sha256 or audio.sha256(work.path)
        work.key = self._plan.key_for(work.sha256)
        work.journal = Journal(self._results.folder, work.stem, work.key, work.part.name if work.part else "")
        if self._plan.options["existing"] == "resume" or work.begun:
            work.heard = work.journal.read()
        if work.heard.end is not None:
            return True
        self._decode(work)
        return False

    def _decode(self, work: Work) -> None:
        expected = work.length_ms * SAMPLE_RATE * 4 // 1000
        with self._space:
            while self._bytes > 0 and self._bytes + expected > AHEAD_BYTES and not self._stop.is_set():
                self._space.wait()
            self._bytes += expected
        work.pcm = self._scratch / f"{work.id}.f32"
        try:
            decoded = self._decode_mono(work, work.pcm)
            work.samples = decoded.samples
            doubt = self._decode_channels(work) if self._plan.by_channel and not _has_words_alone(work) else None
        finally:
            with self._space:
                self._bytes += self._size(work) - expected
        work.offset_ms = decoded.offset_ms
        work.length_ms = -(-decoded.samples * 1000 // SAMPLE_RATE)
        work.outcome.audio_ms = work.length_ms
        if decoded.warning:
            work.outcome.warn(decoded.warning)
        if doubt:
            work.outcome.warn(f"{doubt}: --speakers auto tells voices apart")
        if self._asks_for_voices and not _has_words_alone(work) and _has_own_channels(work.path):
            work.outcome.warn("its channels have different speakers: --speakers channels takes each for one")

    def _decode_mono(self, work: Work, pcm: Path) -> audio.Decoded:
        """Decode what is asked for of the recording, or its part."""
        first, last, part = self._plan.options["from"], self._plan.options["to"], work.part
        if part is None or part.kind == TURNS:
            return audio.decode(work.path, pcm, from_ms=first, to_ms=last, stop=self._stop)
        first = first if part.from_ms is None else part.decode_from_ms
        last = last if part.to_ms is None else part.to_ms
        try:
            decoded = audio.decode(work.path, pcm, from_ms=first, to_ms=last, stop=self._stop)
        except audio.EndsBefore:
            if part.from_ms is None:
                raise
            return parts.empty(part)
        return decoded if self._stop.is_set() else parts.trim(part, pcm, decoded)

    @property
    def _asks_for_voices(self) -> bool:
        """Whether speakers are told apart, and not by their channels."""
        plan = self._plan
        return (plan.diarizer is not None or plan.job == DIARIZE) and not plan.by_channel

    def _decode_channels(self, work: Work) -> str | None:
        """Decode all channels too, and say why they may be no speakers' own. Raises InputFailed where they are not."""
        asked = self._plan.options
        path = work.channels_pcm
        decoded = audio.decode(
            work.path, path, from_ms=asked["from"], to_ms=asked["to"], stop=self._stop, layout=audio.OWN
        )
        if decoded.channels < 2:
            raise InputFailed("it has one channel, and --speakers channels takes each for a speaker", do=BY_VOICE)
        levels = channels.levels(path, decoded.samples, decoded.channels)
        if channels.same(levels):
            raise InputFailed("all its channels hold the same, so they tell no speakers apart", do=BY_VOICE)
        work.channels, work.samples = decoded.channels, min(work.samples, decoded.samples)
        return channels.doubt(levels)

    def _size(self, work: Work) -> int:
        """Bytes that its decoded audio takes in scratch."""
        return work.samples * 4 * (1 + (work.channels if self._plan.by_channel else 0))

    def _standard_input(self) -> Path:
        path = self._scratch / naming.STDIN_NAME
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        return path


def _has_words_alone(work: Work) -> bool:
    """Whether it is a part, whose speakers are told apart elsewhere."""
    return work.part is not None and work.part.kind == WORDS


def _has_own_channels(path: Path) -> bool:
    return audio.probe(path).channels > 1 and channels.differ(audio.levels(path, audio.OWN))


def advice(error: OSError) -> str | None:
    """What to do about an operating system's error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: free some space, or name another folder with --scratch or --output"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "check the permissions"
    return None
