"""Several things at a time, each in a thread: what a server with several slots is asked."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def answers(todo: Sequence[T], ask: Callable[[T, threading.Event], R], at_once: int) -> Iterator[tuple[T, R]]:
    """Each thing and what `ask` gives of it, as it comes, of so many threads. `ask` is told by the event that nobody
    waits any more. What it raises ends the run, and is raised when all before it was given."""
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    for one in todo:
        waiting.put(one)
    found: queue.SimpleQueue[tuple[T, R] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                one = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                found.put((one, ask(one, stop)))
            except BaseException as error:
                found.put(error)
                return

    # Daemons: when the run is stopped, nobody waits for answers that are under way.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(todo)))]
    for thread in threads:
        thread.start()
    try:
        for _ in todo:
            got = found.get()
            if isinstance(got, BaseException):
                raise got
            yield got
    finally:
        stop.set()
