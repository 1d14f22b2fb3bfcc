"""Which recordings go into which task of a job. Pure: the same input gives the same tasks.

Costs are seconds of a task: LPT, longest processing time first, each piece to the task that has least so far (R. L.
Graham, Bounds on multiprocessing timing anomalies, 1969: at most 4/3 of the best, and with many small pieces near it).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from kuulo.jobs.batch import TURNS, WHOLE, WORDS, Item, Pace, Piece

SHORTEST_PART_MS = 10 * 60_000
"""A part of a recording is no shorter: each loses its first words' context, and is decoded from the beginning."""

BYTES_PER_MS = 16
"""Of a recording whose header says no length: 128 kbit/s, as most mp3 have. One that is less dense is longer than
assumed; then its task goes on in a second run."""

LOADS = 10
"""A task is at least so many times as long as loading the model."""


@dataclass(frozen=True)
class Aim:
    """What the tasks should be like: seconds of each, at most so many tasks, none longer than `limit_s`; `cut`: long
    recordings may be cut, which begin `from_ms` into them."""

    task_s: float
    most_tasks: int
    limit_s: float | None = None
    cut: bool = True
    from_ms: int = 0


@dataclass(frozen=True)
class Costs:
    """What a piece costs, in seconds of a task. `turns` is None where nobody tells speakers apart."""

    words: Pace
    turns: Pace | None = None

    def of(self, piece: Piece, length_ms: int) -> float:
        """Of a piece of so much sound."""
        seconds = 0.0 if piece.kind == TURNS else self.words.file_s + length_ms / 1000 / self.words.speed
        if self.turns and piece.kind != WORDS:
            seconds += self.turns.file_s + length_ms / 1000 / self.turns.speed
        return seconds

    @property
    def load_s(self) -> float:
        return max(self.words.load_s, self.turns.load_s if self.turns else 0.0)


def length_ms(item: Item) -> int:
    """How long a recording is, by its header or else by its size."""
    return item.length_ms or max(1, item.bytes // BYTES_PER_MS)


def pack(items: Sequence[Item], costs: Costs, aim: Aim) -> list[tuple[Piece, ...]]:
    """The tasks, longest first, none of them empty."""
    whole = [costs.of(Piece(n), length_ms(item)) for n, item in enumerate(items)]
    number = tasks_for(sum(whole), costs.load_s, aim)
    share = sum(whole) / number
    pieces: list[tuple[float, Piece]] = []
    for n, item in enumerate(items):
        pieces += _pieces(n, item, whole[n], share, costs, aim)
    pieces.sort(key=lambda one: (-one[0], one[1].item, one[1].part))
    loads = [(0.0, task) for task in range(min(number, len(pieces)))]
    tasks: list[list[Piece]] = [[] for _ in loads]
    for cost, piece in pieces:
        load, task = heapq.heappop(loads)
        tasks[task].append(piece)
        heapq.heappush(loads, (load + cost, task))
    return [tuple(task) for task in tasks]


def task_s(task: Sequence[Piece], items: Sequence[Item], costs: Costs) -> float:
    """How long a task takes, with loading."""
    return costs.load_s + sum(costs.of(piece, piece_ms(piece, items)) for piece in task)


def piece_ms(piece: Piece, items: Sequence[Item]) -> int:
    """How much sound a piece has."""
    return piece.to_ms - piece.from_ms if piece.kind == WORDS else length_ms(items[piece.item])


def tasks_for(total_s: float, load_s: float, aim: Aim) -> int:
    """How many tasks there should be for so much work, each of which loads a model."""
    aimed = max(aim.task_s, LOADS * load_s)
    if aim.limit_s is not None:
        aimed = min(aimed, max(1.0, aim.limit_s - load_s))
    return max(1, min(aim.most_tasks, math.ceil(total_s / aimed)))


def _pieces(n: int, item: Item, cost: float, share: float, costs: Costs, aim: Aim) -> list[tuple[float, Piece]]:
    """A recording, or its parts where it is longer than a task's share."""
    length = length_ms(item)
    parts = min(math.ceil(cost / share), length // SHORTEST_PART_MS) if aim.cut and item.length_ms else 1
    if parts < 2 or cost <= share * 1.1:
        return [(cost, Piece(n, WHOLE))]
    ends = [length * part // parts for part in range(parts + 1)]
    made = [
        Piece(n, WORDS, aim.from_ms + ends[part], aim.from_ms + ends[part + 1], part, parts) for part in range(parts)
    ]
    if costs.turns:
        made.append(Piece(n, TURNS, aim.from_ms, aim.from_ms + length, parts, parts))
    return [(costs.of(piece, piece.to_ms - piece.from_ms), piece) for piece in made]
