"""How fast an engine with a model is: what was measured, here or by the site, else careful published figures.

An observation is of a whole task with all its workers: seconds of sound in a second, without loading (of a language
model: tokens, as llm/pace.py counts them). `kuulo calibrate` makes them, and finished jobs do. They lie in the user's
table, `speeds.json` in the state folder, and in the site's, which the settings name. An estimate says what it is made
from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kuulo import atomic, engines
from kuulo.errors import CannotRun
from kuulo.jobs.batch import Pace

SCHEMA = 1
KEPT = 20
"""Observations of the same thing that are kept, the newest."""

MEASURED, PUBLISHED, GUESS = "measured", "published", "guess"
LEAST_AUDIO_S = 20.0
"""Of sound, for an observation: of less, starting up is most of it."""


@dataclass(frozen=True)
class Work:
    """What is done: `engine` with `model`, on `device` (cpu or cuda) with `cpus`; `diarizer` tells the speakers apart
    beside it, empty for nobody. An engine that tells speakers apart has no words to do: then it is the engine."""

    engine: str
    model: str
    device: str
    cpus: int
    diarizer: str = ""
    batch_size: int = 1


@dataclass(frozen=True)
class Observation:
    """What a task took; `audio_s`: how much it did, seconds of sound or tokens. `place`: the partition or the machine;
    `node`: its processor or GPU. `at`: when, ISO 8601."""

    work: Work
    speed: float
    load_s: float
    memory_bytes: int
    audio_s: float
    place: str
    node: str
    at: str
    by: str = "job"


@dataclass(frozen=True)
class Table:
    """Observations, the newest last."""

    observations: tuple[Observation, ...] = ()

    def with_(self, made: Sequence[Observation]) -> Table:
        """With more of them; of each kind of work and place the newest are kept."""
        kept: list[Observation] = []
        seen: dict[tuple[Work, str], int] = {}
        for one in reversed([*self.observations, *made]):
            key = (one.work, one.place)
            seen[key] = seen.get(key, 0) + 1
            if seen[key] <= KEPT:
                kept.append(one)
        return Table(tuple(reversed(kept)))


def read(path: Path) -> Table:
    """The table in a file, an empty one where there is none. Raises CannotRun."""
    try:
        said = json.loads(path.read_bytes())
        return Table(tuple(Observation(**{**one, "work": Work(**one["work"])}) for one in said["observations"]))
    except FileNotFoundError:
        return Table()
    except OSError as error:
        raise CannotRun(f"the table of speeds cannot be read: {error.strerror}", looked_at=str(path)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise CannotRun(
            "the table of speeds is damaged", looked_at=str(path), do="remove it: kuulo calibrate makes another"
        ) from error


def write(path: Path, table: Table) -> None:
    """Put it into a file, whole or not at all; of two at the same time the last counts. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"schema": SCHEMA, "observations": [asdict(one) for one in table.observations]}
    atomic.write_json(path, said)


def estimate(work: Work, tables: Sequence[Table], place: str, model_bytes: int) -> Pace:
    """How fast it will be, carefully: as it was measured, else what is published."""
    return measured(work, tables, place) or published(work, model_bytes)


def measured(work: Work, tables: Sequence[Table], place: str) -> Pace | None:
    """The lower quartile of the speeds that were measured in that place, else elsewhere; None where nobody did."""
    same = [one for table in tables for one in table.observations if _is_alike(one.work, work)]
    near = [one for one in same if one.place == place]
    if found := near or same:
        return _measured(found, work, "there" if near else f"on {found[-1].place or 'another machine'}")
    return None


def without(both: Pace, turns: Pace) -> Pace:
    """The words alone, of a task that was measured with both on the same cores: with the turns it is as measured."""
    left = 1 / both.speed - 1 / turns.speed
    memory = max(both.memory_bytes - turns.memory_bytes, both.memory_bytes // 2)
    speed = 1 / left if left > 0 else 2 * both.speed
    return replace(both, speed=speed, memory_bytes=memory, why=f"{both.why}, with speakers")


def least_sure(*paces: Pace | None) -> str:
    """The source of the one that is least to be relied on."""
    return min((pace.source for pace in paces if pace), key=(GUESS, PUBLISHED, MEASURED).index)


def _is_alike(one: Work, other: Work) -> bool:
    return (one.engine, one.model, one.device, one.diarizer, one.batch_size) == (
        other.engine, other.model, other.device, other.diarizer, other.batch_size,
    )  # fmt: skip


def _measured(found: Sequence[Observation], work: Work, where: str) -> Pace:
    speeds = sorted(one.speed * scale(work, one.work.cpus) for one in found)
    loads = sorted(one.load_s for one in found)
    memory = max(one.memory_bytes for one in found)
    times = "once" if len(found) == 1 else f"{len(found)} times"
    why = f"measured {times} {where}"
    return Pace(_quantile(speeds, 0.25), _quantile(loads, 0.75), FILE_S, memory, MEASURED, why)


def scale(work: Work, cpus: int) -> float:
    """How much faster it is with its number of cores than with so many: in proportion with fewer, by the power of 0.8
    with more. A GPU does not mind."""
    if work.device != "cpu" or cpus < 1:
        return 1.0
    ratio = work.cpus / cpus
    return ratio if ratio <= 1 else math.pow(ratio, 0.8)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[round(share * (len(ordered) - 1))]


# ---------------------------------------------------------------------- published figures

FILE_S = 0.3
"""Each recording beside its sound: opening, digest, writing results."""

CPU_CORES = 8
"""Of the machine on which figures for CPUs were made."""

RELATIVE: Mapping[str, float] = {"tiny": 10, "base": 7, "small": 4, "medium": 2, "turbo": 8, "large": 1}
"""Speeds beside the model large (openai-whisper's README, A100, English)."""

CAREFUL = 0.5
"""Published figures come from fast, quiet machines."""

SLOWEST, TURNS = 0.5, 2.0
"""Of words and of turns, where nothing is known."""

LOAD_S = 30.0
"""To load a large model from a shared file system for the first time."""


def published(work: Work, model_bytes: int) -> Pace:
    """What papers and documents say (`EngineSpec.speeds`), halved; a guess where they say nothing."""
    memory = 700_000_000 + 2 * model_bytes
    spec = engines.spec(work.engine) if work.engine in engines.names() else None
    figures = spec.speeds if spec else {}
    figure = (figures.get(f"{work.device} batched") if work.batch_size > 1 else None) or figures.get(work.device)
    if spec and "diarize" in spec.tasks:
        why = f"published figures of {work.engine}, halved" if figure else f"a guess: no figures of {work.engine}"
        return Pace(CAREFUL * (figure or TURNS), 5.0, FILE_S, memory, PUBLISHED if figure else GUESS, why)
    size = next((name for name in RELATIVE if name in work.model), None)
    if figure and work.device == "cpu":
        figure *= RELATIVE[size or "large"] / RELATIVE["small"] * scale(work, CPU_CORES)
    elif figure:
        figure *= RELATIVE[size or "large"]
    if figure and size:
        return Pace(CAREFUL * figure, LOAD_S, FILE_S, memory, PUBLISHED, f"published figures of {work.engine}, halved")
    unknown = work.model if figure else work.engine
    why = f"a guess: no figures are known of {unknown}"
    return Pace(CAREFUL * (figure or SLOWEST), LOAD_S, FILE_S, memory, GUESS, why)


def node() -> str:
    """What this machine computes with on a CPU: its processor's name and number of cores."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def gpu() -> str:
    """The name of this machine's first GPU, as NVIDIA's driver tells; empty without one."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text().splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return ""


def observation(
    work: Work, *, audio_s: float, elapsed_s: float, load_s: float, memory_bytes: int, place: str, at: str, **more: Any
) -> Observation | None:
    """What a task's figures say; None when there was too little sound to say anything."""
    if audio_s < LEAST_AUDIO_S or elapsed_s <= load_s:
        return None
    where = gpu() if work.device != "cpu" else node()
    return Observation(
        work, audio_s / (elapsed_s - load_s), load_s, memory_bytes, audio_s, place, more.pop("node", where), at, **more
    )
