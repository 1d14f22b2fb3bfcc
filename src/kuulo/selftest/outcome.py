"""What became of a self-test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import kuulo
from kuulo.errors import EXIT_CANNOT_RUN, EXIT_OK, EXIT_SOME_FAILED

SCHEMA = 1
PASSED, FAILED, LEFT_OUT = "passed", "failed", "left out"


@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline. `name`: engine, speech detection, words, speakers, formats, answers, GPU."""

    name: str
    ok: bool
    found: str
    looked_at: str = ""
    do: str = ""


@dataclass(frozen=True)
class Outcome:
    """A pipeline: an engine with a model, and who tells speakers apart. `device` as the engine calls it."""

    engine: str
    model: str
    where: str
    state: str
    speaker_engine: str = ""
    device: str = ""
    seconds: float = 0.0
    stages: tuple[Stage, ...] = ()

    @property
    def failures(self) -> list[Stage]:
        return [stage for stage in self.stages if not stage.ok]


@dataclass(frozen=True)
class Node:
    """A machine. `place` and `kind`: of one on the cluster, which table of the site's file its job is of, and what the
    node has. `why`, `do`: when nothing was tried at all."""

    host: str
    outcomes: tuple[Outcome, ...] = ()
    place: str = ""
    kind: str = ""
    job: str = ""
    why: str = ""
    looked_at: str = ""
    do: str = ""

    @property
    def passed(self) -> int:
        return sum(outcome.state == PASSED for outcome in self.outcomes)

    @property
    def failed(self) -> int:
        return sum(outcome.state == FAILED for outcome in self.outcomes)

    @property
    def ok(self) -> bool:
        return bool(self.passed) and not self.failed and not self.why


def exit_code(nodes: Sequence[Node]) -> int:
    """0: all passed; 1: some did; 3: none."""
    if nodes and all(node.ok for node in nodes):
        return EXIT_OK
    return EXIT_SOME_FAILED if any(node.passed for node in nodes) else EXIT_CANNOT_RUN


def to_json(nodes: Sequence[Node]) -> dict[str, Any]:
    """Documented in docs/selftest.md."""
    return {
        "schema": SCHEMA,
        "kuulo": kuulo.__version__,
        "ok": exit_code(nodes) == EXIT_OK,
        "nodes": [{**asdict(node), "ok": node.ok} for node in nodes],
    }


def from_json(data: dict[str, Any], like: Node) -> Node:
    """The first node of what a job wrote, with the place of `like`. Raises KeyError, TypeError or ValueError."""
    if data["schema"] > SCHEMA:
        raise ValueError(f"schema {data['schema']} is of a newer Kuulo")
    said = data["nodes"][0]
    outcomes = tuple(
        Outcome(**{**row, "stages": tuple(Stage(**stage) for stage in row["stages"])}) for row in said["outcomes"]
    )
    told = {key: said[key] for key in ("host", "why", "looked_at", "do")}
    return replace(like, outcomes=outcomes, **told)
