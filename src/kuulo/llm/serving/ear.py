"""A recognising worker that keeps its model loaded between recordings.

Recordings are heard together, as many at a time as the engine wants. Options in the engine's `by_clip` may differ from
recording to recording; for others the model is loaded anew, when nobody is being heard. A recording whose worker dies
is heard once more from its last checkpoint, alone, so that one that kills workers takes no other with it.

All of it is in one event loop; the worker's thread posts into that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from kuulo import runtimes, wire, workers
from kuulo.errors import CannotRun, InputFailed
from kuulo.plan import Plan
from kuulo.workers import Worker

TRIES = 2
GONE = "gone"
AGAIN = "again"
"""An event of ours: the worker has died, and the recording is heard from its checkpoint on. `keep` segments stand."""


class Ear:
    """Hears with the engine and the model of a plan. `scratch` is its own."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self.plan = plan
        self.scratch = scratch
        self.log: IO[bytes] = (scratch / "engine.log").open("ab")
        self.device = ""
        self.hello: Mapping[str, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._worker: Worker | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._fixed: dict[str, Any] = {}
        self._users = 0
        self._turn = asyncio.Lock()  # first come, first served
        self._left = asyncio.Condition()
        self._events: dict[str, asyncio.Queue[Mapping[str, Any]]] = {}
        self._ids = itertools.count(1)

    async def open(self) -> None:
        """Load the model. Raises CannotRun."""
        async with self._use(self.plan.engine_options(), alone=False):
            pass

    def close(self) -> None:
        self._stop()
        self.log.close()

    async def hear(self, pcm: Path, samples: int, options: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        """The events `language`, `segment` and `again` about decoded samples. Raises InputFailed, CannotRun."""
        state, kept, said = None, 0, 0
        for tries in range(1, TRIES + 1):
            if tries > 1:
                yield {"type": AGAIN, "keep": kept}
                said = kept
            async with self._use(options, alone=tries > 1) as worker:
                clip = wire.Clip(f"c{next(self._ids)}", str(pcm), samples, state=state, options=self._by_clip(options))
                async for event in self._given(worker, clip):
                    kind = event["type"]
                    if kind == "file_done":
                        return
                    if kind == "file_failed":
                        raise InputFailed(str(event["what"]), do=event.get("do"))
                    if kind == "checkpoint":
                        state, kept = event["state"], said
                    elif kind in ("language", "segment"):
                        said += kind == "segment"
                        yield event
        raise CannotRun(f"the engine died over it, {TRIES} times", do="the server's log has more")

    async def _given(self, worker: Worker, clip: wire.Clip) -> AsyncIterator[Mapping[str, Any]]:
        """A clip's events, to the last one, or until the worker is gone."""
        queue = self._events[clip.id] = asyncio.Queue()
        over = False
        if worker is self._worker:
            worker.say(wire.encode_clip(clip))
        else:
            queue.put_nowait({"type": GONE})
        try:
            while not over and (event := await queue.get())["type"] != GONE:
                over = event["type"] in ("file_done", "file_failed")
                yield event
        finally:
            del self._events[clip.id]
            if not over and worker is self._worker:  # nobody listens any more
                worker.say(wire.encode_forget(clip.id))

    def _by_clip(self, options: Mapping[str, Any]) -> dict[str, Any] | None:
        return {name: options[name] for name in self.plan.spec.by_clip if name in options} or None

    # ------------------------------------------------------------------ the worker

    @asynccontextmanager
    async def _use(self, options: Mapping[str, Any], *, alone: bool) -> AsyncIterator[Worker]:
        """A worker with the model loaded for these options; with nobody else, if it must be."""
        fixed = {name: value for name, value in options.items() if name not in self.plan.spec.by_clip}
        await self._turn.acquire()
        try:
            async with self._left:
                await self._left.wait_for(
                    lambda: not self._users or (not alone and self._worker is not None and fixed == self._fixed)
                )
            if self._worker is None or fixed != self._fixed:
                await self._start(options, fixed)
            worker = self._worker
            assert worker is not None
            self._users += 1
        except BaseException:
            self._turn.release()
            raise
        if not alone:
            self._turn.release()
        try:
            yield worker
        finally:
            self._users -= 1
            if alone:
                self._turn.release()
            async with self._left:
                self._left.notify_all()

    async def _start(self, options: Mapping[str, Any], fixed: dict[str, Any]) -> None:
        await asyncio.to_thread(self._stop)
        plan = self.plan
        path = str(plan.model.path) if plan.model else None
        task = wire.Task(plan.job, plan.engine, plan.model_name, path, dict(options), dict(plan.raw))
        self._ready = self._loop.create_future()
        self._worker, self._fixed = Worker(self, task, runtimes.of(plan.environment)), fixed
        await self._ready

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
            workers.stop([worker])

    # ------------------------------------------------------------------ what the worker says

    def post(self, what: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(what, *arguments)

    def heard_from(self, worker: Worker, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "hello":
            self.hello = event
        elif kind == "ready":
            self.device = str(event["device"])
            if not self._ready.done():
                self._ready.set_result(None)
        elif kind == "fatal":
            self._fail(CannotRun(event["what"], looked_at=event.get("looked_at") or None, do=event.get("do")))
        elif str(event.get("id")) in self._events:
            self._events[str(event["id"])].put_nowait(event)

    def gone(self, worker: Worker) -> None:
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            worker.process.stdin.close()
        if worker is not self._worker:
            return
        self._worker = None
        self._fail(CannotRun(f"{self.plan.engine}: the worker {worker.death()} before it was ready"))
        for queue in self._events.values():
            queue.put_nowait({"type": GONE})

    def _fail(self, error: CannotRun) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
