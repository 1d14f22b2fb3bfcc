"""The program that runs in an engine's environment: `python -m kuulo.worker`.

It reads one task and then clips from standard input and writes events to standard output, as `wire.py` says. The
model is loaded once; a clip that fails does not stop the others; an engine that can work on several clips at a
time (`Session.parallel`) gets them in as many threads. Standard library alone at the top; parses on Python 3.9.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import queue
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Set, Tuple

from kuulo import engines, wire
from kuulo.engines.base import SAMPLE_RATE, Checkpoint, Language, Progress, Session, Unusable
from kuulo.transcript import Segment, Word
from kuulo.wire import Clip, Task

PROMPT_CHARACTERS = 1000
"""How much of a section's text the next section is told. Whisper's prompt holds 223 tokens, mostly less."""

LOOK_BACK_MS = 60_000
"""A long recording's sections end at the quietest place in this much audio before their longest end."""

SLACK_MS = 300
"""A segment's times may be off by this much: what it shares of a neighbouring clip is no speech of that clip."""

SPEECH = ".speech"
"""Ending of the file with a clip's speech alone, beside its samples."""

Send = Callable[..., None]


def main() -> int:
    """Do what standard input says; 0 when `done` was sent."""
    out = _private_stdout()
    lock = threading.Lock()

    def send(kind: str, **fields: Any) -> None:
        line = wire.encode(kind, fields)
        with lock:
            out.write(line)
            out.flush()

    task = wire.task_from(wire.decode(sys.stdin.buffer.readline()))
    try:
        module = engines.module(task.engine)
        send("hello", **_identity(module.SPEC))
        began = time.monotonic()
        session = module.load(task)
    except (Unusable, ImportError, KeyError) as error:
        return _fatal(send, task, error)
    parallel = max(1, session.parallel)
    send(
        "ready",
        device=session.device,
        compute_type=session.compute_type,
        load_ms=_since(began),
        parallel=parallel,
    )
    clips: "queue.Queue[Optional[Clip]]" = queue.Queue()
    hear = _Hearing(task, session, module.SPEC.section_ms, send)
    threading.Thread(target=_read_clips, args=(clips, parallel, hear), daemon=True).start()
    threads = [threading.Thread(target=_serve, args=(clips, hear)) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    send("done")
    return 0


def _private_stdout() -> Any:
    """A copy of standard output for events; whatever an engine prints goes to standard error instead."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return out


def _fatal(send: Send, task: Task, error: BaseException) -> int:
    traceback.print_exception(type(error), error, error.__traceback__)
    send(
        "fatal",
        what=f"{task.engine}: {error}",
        looked_at=task.model_path or "",
        do=getattr(error, "do", "") or "see the log",
    )
    return 1


def _identity(spec: Any) -> Dict[str, Any]:
    packages = {}
    for name in (spec.package, *spec.packages):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "wire": wire.WIRE,
        "engine": spec.name,
        "engine_version": packages.pop(spec.package, "unknown"),
        "python": platform.python_version(),
        "environment": _environment_digest(),
        "packages": packages,
    }


def _environment_digest() -> str:
    """SHA-256 over Python's version and the names and versions of all installed distributions. Equal digests mean
    equal software; their folders' names say it (PEP 376), so nothing is opened."""
    names = {entry.name for folder in sys.path if os.path.isdir(folder) for entry in os.scandir(folder)}
    installed = sorted(name for name in names if name.endswith((".dist-info", ".egg-info")))
    return hashlib.sha256("\n".join([platform.python_version(), *installed]).encode()).hexdigest()


def _read_clips(clips: "queue.Queue[Optional[Clip]]", parallel: int, hear: "_Hearing") -> None:
    """Put clips into the queue as they come, and one None for each thread at the end."""
    for line in sys.stdin.buffer:
        message = wire.decode(line)
        if message["type"] == "end":
            for _ in range(parallel):
                clips.put(None)
            return
        if message["type"] == "forget":
            hear.forgotten.add(message["id"])
        else:
            clips.put(wire.clip_from(message))
    # The parent is gone. There is nobody to tell and nothing worth finishing: results are the parent's to keep.
    os._exit(1)


def _serve(clips: "queue.Queue[Optional[Clip]]", hear: "_Hearing") -> None:
    while True:
        clip = clips.get()
        if clip is None:
            return
        hear.clip(clip)


class _Forgotten(Exception):
    """Nobody wants this clip any more."""


class _Hearing:
    """What is done with a clip: its ids' events are sent, whatever happens."""

    def __init__(self, task: Task, session: Session, section_ms: Optional[int], send: Send) -> None:
        self._task = task
        self._session = session
        self._section_ms = session.section_ms or section_ms
        self._send = send
        self.forgotten: Set[str] = set()

    def clip(self, clip: Clip) -> None:
        ids = [part[0] for part in clip.parts] or [clip.id]
        began = time.monotonic()
        try:
            samples = _open(clip)
            if self._task.task == "detect-speech":
                detect: Any = self._session
                self._send("speech", id=clip.id, turns=detect.detect(samples))
            elif self._task.task == "diarize":
                session: Any = self._session
                found = session.diarize(samples)
                turns = [turn.to_json() for turn in found.turns]
                self._send("turns", id=clip.id, turns=turns, voices=found.voices, encoder=found.encoder)
            elif clip.parts:
                self._packed(clip, samples)
            else:
                self._alone(clip, samples)
        except _Forgotten:
            self._send("file_failed", id=clip.id, what="nobody wants it any more", do=None)
            return
        except Exception as error:
            traceback.print_exc()
            what = _what(error)
            for id_ in ids:
                self._send("file_failed", id=id_, what=what, do=_advice(error))
            return
        finally:
            self.forgotten.discard(clip.id)
        for id_ in ids:
            self._send("file_done", id=id_, engine_ms=_since(began) // len(ids))

    def _alone(self, clip: Clip, samples: Any) -> None:
        if clip.id in self.forgotten:
            raise _Forgotten
        for kind, fields in self._said(clip, samples):
            if clip.id in self.forgotten:
                raise _Forgotten
            self._send(kind, id=clip.id, **fields)

    def _packed(self, clip: Clip, samples: Any) -> None:
        """Several recordings in one clip: each part hears of its own words, on its own clock."""
        for kind, fields in self._said(clip, samples):
            if kind == "segment":
                for id_, segment in hand_out(fields["segment"], clip.parts):
                    self._send("segment", id=id_, segment=segment.to_json())
            elif kind == "language":
                for id_, _, _ in clip.parts:
                    self._send(kind, id=id_, **fields)

    def _said(self, clip: Clip, samples: Any) -> Iterator[Tuple[str, Dict[str, Any]]]:
        """Events without ids. Times are on the clip's clock."""
        clock: Callable[[int, bool], int] = _same
        session = self._session.told(clip.options) if clip.options else self._session
        carries = {**self._task.options, **(clip.options or {})}.get("condition_on_previous_text") is not False
        if clip.speech is not None:
            if not clip.speech:
                return
            from kuulo import speech

            samples, kept = speech.keep(samples, clip.speech, clip.pcm + SPEECH)
            clock = kept.original
        state = dict(clip.state or {})
        for start, end in self._sections(samples):
            if start < state.get("section_ms", 0):
                continue
            inner = state.get("engine") if start == state.get("section_ms") else None
            if inner is None:
                inner = {k: state[k] for k in ("prompt", "language") if k in state} or None
            text: List[str] = [state.get("said", state.get("prompt", ""))]
            for kind, fields in self._section(session, samples[_index(start) : _index(end)], inner, start, clock):
                if kind == "checkpoint":
                    said = "".join(text)[-PROMPT_CHARACTERS:]
                    point = {**state, "section_ms": start, "engine": fields["state"], "said": said}
                    fields = {"at_ms": fields["at_ms"], "state": point}
                elif kind == "segment":
                    text.append(fields["segment"].text)
                elif kind == "language":
                    state.setdefault("language", fields["language"])
                if kind == "segment" and not clip.parts:
                    fields = {"segment": fields["segment"].to_json()}
                yield kind, fields
            state = {"section_ms": end, **({"language": state["language"]} if "language" in state else {})}
            if carries:
                state["prompt"] = "".join(text)[-PROMPT_CHARACTERS:]
            if _index(end) < len(samples):
                yield "checkpoint", {"at_ms": clock(end, True), "state": dict(state)}

    def _sections(self, samples: Any) -> List[Tuple[int, int]]:
        length_ms = -(-len(samples) * 1000 // SAMPLE_RATE)
        if not self._section_ms or length_ms <= self._section_ms:
            return [(0, length_ms)]
        from kuulo import speech

        return speech.quiet_cuts(samples, self._section_ms, min(LOOK_BACK_MS, self._section_ms // 2))

    def _section(
        self,
        session: Session,
        samples: Any,
        state: Optional[Mapping[str, Any]],
        offset_ms: int,
        clock: Callable[[int, bool], int],
    ) -> Iterator[Tuple[str, Dict[str, Any]]]:
        for said in session.transcribe(samples, dict(state) if state else None):
            if isinstance(said, Segment):
                yield "segment", {"segment": _on_clock(said.shifted(offset_ms), clock)}
            elif isinstance(said, Language):
                yield "language", {"language": said.code, "confidence": said.confidence}
            elif isinstance(said, Checkpoint):
                at = clock(offset_ms + said.at_ms, True)
                yield "checkpoint", {"at_ms": at, "state": said.state}
            elif isinstance(said, Progress):
                yield "progress", {"done_ms": clock(offset_ms + said.done_ms, True)}


def _open(clip: Clip) -> Any:
    import numpy as np

    shape = (clip.samples, clip.channels) if clip.channels > 1 else (clip.samples,)
    return np.memmap(clip.pcm, dtype="<f4", mode="r", shape=shape)


def _index(ms: int) -> int:
    return ms * 16


def _same(ms: int, end: bool) -> int:
    return ms


def _on_clock(segment: Segment, clock: Callable[[int, bool], int]) -> Segment:
    import dataclasses

    words = tuple(
        dataclasses.replace(w, start_ms=clock(w.start_ms, False), end_ms=clock(w.end_ms, True)) for w in segment.words
    )
    start, end = clock(segment.start_ms, False), clock(segment.end_ms, True)
    return dataclasses.replace(segment, start_ms=start, end_ms=max(start, end), words=words)


def hand_out(segment: Segment, parts: Tuple[Tuple[str, int, int], ...]) -> List[Tuple[str, Segment]]:
    """The pieces of a packed clip's segment, each with the id of the part it belongs to and on its clock.

    A segment that reaches into one part alone belongs to it, whole: the times of segments are surer than those of
    words. Of one that reaches into several, each word belongs to the part that its middle is in or nearest to, and
    never to an earlier part than the word before it."""
    reached = [p for p in parts if _overlap(segment, p) > SLACK_MS]
    if len(reached) < 2 or not segment.words:
        middle = (segment.start_ms + segment.end_ms) / 2
        part = (
            max(reached, key=lambda p: _overlap(segment, p))
            if reached
            else min(parts, key=lambda p: _distance(middle, p))
        )
        return [(part[0], _in_part(segment, part))]
    parts = tuple(reached)
    pieces: List[Tuple[Tuple[str, int, int], List[Word]]] = []
    first = 0
    for word in segment.words:
        middle = (word.start_ms + word.end_ms) / 2
        first = min(range(first, len(parts)), key=lambda i: _distance(middle, parts[i]))
        if not pieces or pieces[-1][0] is not parts[first]:
            pieces.append((parts[first], []))
        pieces[-1][1].append(word)
    if len(pieces) == 1:
        return [(pieces[0][0][0], _in_part(segment, pieces[0][0]))]
    return [(part[0], _in_part(segment.piece(words), part)) for part, words in pieces]


def _overlap(segment: Segment, part: Tuple[str, int, int]) -> int:
    _, start, end = part
    return min(segment.end_ms, end) - max(segment.start_ms, start)


def _distance(ms: float, part: Tuple[str, int, int]) -> float:
    _, start, end = part
    return max(start - ms, 0.0, ms - end)


def _in_part(segment: Segment, part: Tuple[str, int, int]) -> Segment:
    _, start, end = part
    return segment.retimed(lambda ms: min(max(ms, start), end) - start)


def _what(error: BaseException) -> str:
    """A sentence of the engine's own, else the error's type before what it says."""
    if isinstance(error, Unusable):
        return error.what
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _advice(error: BaseException) -> str:
    if isinstance(error, Unusable) and error.do:
        return error.do
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "less memory is needed with a smaller model, --workers 1, or a smaller --batch-size"
    return "see the log"


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


if __name__ == "__main__":
    sys.exit(main())
