"""How fast an engine with a model is: what was measured, here or by the site, else careful published figures.

An observation is of a whole task with all its workers: seconds of sound in a second, without loading. `kuulo calibrate`
makes them, and finished jobs do. They lie in the user's table, `speeds.json` in the state folder, and in the site's,
which the settings name. An estimate says what it is made from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kuulo import atomic
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
    """What a task took. `place`: the partition or the machine; `node`: its processor or GPU. `at`: when, ISO 8601."""

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
    """How fast it will be, carefully: the lower quartile of the speeds that were measured in that place, else
    elsewhere, else what is published."""
    same = [one for table in tables for one in table.observations if _is_alike(one.work, work)]
    near = [one for one in same if one.place == place]
    if found := near or same:
        return _measured(found, work, "there" if near else f"on {found[-1].place or 'another machine'}")
    return published(work, model_bytes)


def without(both: Pace, turns: Pace) -> Pace:
    """The words alone, of a task that was measured with both on the same cores: with the turns it is as measured."""
    left = 1 / both.speed - 1 / turns.speed
    memory = max(both.memory_bytes - turns.memory_bytes, both.memory_bytes // 2)
    return replace(both, speed=1 / left if left > 0 else 2 * both.speed, memory_bytes=memory)


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

# Times real time of the model large on a GPU (large-v2, beam 5; faster-whisper's README, RTX 3070 Ti, 13 min of sound:
# openai-whisper 2 min 23 s, transformers 1 min 52 s, whisper.cpp 1 min 5 s, faster-whisper 1 min 3 s and 17 s with
# batches of 8; insanely-fast-whisper's README names 92 for an A100, whisperX's 60 to 70; both as faster-whisper's
# batches here; whisper-diarization: 15, the safe value in the source of AaltoRSE/speech2text).
GPU_LARGE: Mapping[str, float] = {
    "faster-whisper": 12.4, "insanely-fast-whisper": 46, "openai-whisper": 5.5, "transformers": 7.0,
    "whisper-cpp": 12.0, "whisper-diarization": 15, "whisperx": 46,
}  # fmt: skip
GPU_BATCHED: Mapping[str, float] = {"faster-whisper": 46}

# The model small on eight cores of an i7-12700K (the same README: openai-whisper 6 min 58 s, whisper.cpp 2 min 5 s,
# faster-whisper int8 1 min 42 s, 51 s with batches of 8). The others: no figures, taken as openai-whisper.
CPU_SMALL: Mapping[str, float] = {
    "faster-whisper": 7.6, "openai-whisper": 1.9, "sherpa-onnx": 1.9, "transformers": 1.9, "whisper-cpp": 6.2,
}  # fmt: skip
CPU_BATCHED: Mapping[str, float] = {"faster-whisper": 15}
CPU_CORES = 8

# Speeds beside the model large (openai-whisper's README, A100, English).
RELATIVE: Mapping[str, float] = {"tiny": 10, "base": 7, "small": 4, "medium": 2, "turbo": 8, "large": 1}

# Telling speakers apart: pyannote's README, H100: 31 to 37 s for an hour; resemblyzer: 1 s of one core for a minute,
# bench/speakers.py; sherpa-onnx names none.
TURNS: Mapping[tuple[str, str], float] = {
    ("pyannote", "cuda"): 97,
    ("resemblyzer", "cpu"): 60,
    ("channels", "cpu"): 100,
}

CAREFUL = 0.5
"""Published figures come from fast, quiet machines."""

SLOWEST = 0.5
LOAD_S = 30.0
"""To load a large model from a shared file system for the first time."""


def published(work: Work, model_bytes: int) -> Pace:
    """What papers and documents say, halved; a guess where they say nothing."""
    memory = 700_000_000 + 2 * model_bytes
    if work.model == "" or (work.engine, work.device) in TURNS:
        speed = TURNS.get((work.engine, work.device))
        source = PUBLISHED if speed else GUESS
        why = f"{source}: {work.engine}" if speed else f"a guess: nothing is known of {work.engine}'s speed"
        return Pace(CAREFUL * (speed or 2.0), 5.0, FILE_S, memory, source, why)
    size = next((name for name in RELATIVE if name in work.model), None)
    batched = work.batch_size > 1
    if work.device == "cpu":
        figure = (CPU_BATCHED if batched else {}).get(work.engine) or CPU_SMALL.get(work.engine)
        known = figure and figure * RELATIVE[size or "large"] / RELATIVE["small"] * scale(work, CPU_CORES)
    else:
        figure = (GPU_BATCHED if batched else {}).get(work.engine) or GPU_LARGE.get(work.engine)
        known = figure and figure * RELATIVE[size or "large"]
    if known and size:
        return Pace(CAREFUL * known, LOAD_S, FILE_S, memory, PUBLISHED, f"published figures of {work.engine}, halved")
    guess = known or SLOWEST
    unknown = work.model if known else work.engine
    return Pace(CAREFUL * guess, LOAD_S, FILE_S, memory, GUESS, f"a guess: no figures are known of {unknown}")


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
