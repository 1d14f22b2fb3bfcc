"""What a job's tasks took: for the next plan, and for who wants to know what the cluster's hours went into. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import speeds
from kuulo.jobs.batch import TURNS, Batch, Prompts, Transcripts
from kuulo.jobs.folder import Folder, Round, TaskState
from kuulo.jobs.plan_file import Written
from kuulo.schedulers.base import Usage
from kuulo.speeds import Observation, Work


def observations(batch: Batch, tasks: Sequence[TaskState], at: str) -> list[Observation]:
    """What can be learnt from a job's tasks. A task that was stopped or that went on says nothing: what it heard in
    which of its lives is not known. Nor does one that told speakers apart of recordings that are cut."""
    plan, found = batch.plan, []
    place = batch.queue.partition or batch.scheduler
    for task in tasks:
        end = task.finished
        pieces = batch.tasks[task.number]
        went_on = any(piece.fields.get("resumed_at_ms") for piece in task.pieces)
        if task.lives != 1 or not end or end["code"] not in (0, 1) or went_on or not end.get("device"):
            continue
        if plan.diarizer and any(piece.kind != "whole" for piece in pieces):
            continue
        if any(piece.kind == TURNS for piece in pieces):
            continue
        work = Work(
            plan.engine,
            plan.model.name if plan.model else "",
            str(end["device"]).partition(":")[0],
            int(end["cores"]),
            plan.diarizer.engine if plan.diarizer else "",
            int(plan.options["batch_size"]),
        )
        one = speeds.observation(
            work,
            audio_s=end["audio_ms"] / 1000,
            elapsed_s=end["elapsed_ms"] / 1000,
            load_s=(end["load_ms"] or 0) / 1000,
            memory_bytes=end["peak_bytes"],
            place=place,
            node=end["processor"],
            at=at,
        )
        if one:
            found.append(one)
    return found


@dataclasses.dataclass(frozen=True)
class Taken:
    """What jobs took. Hours are of sound, of CPU cores and of GPUs that were held, and of waiting before tasks began;
    `time` and `memory` are what was used of what was asked for, 0 to 1, None where it is not known."""

    jobs: int = 0
    tasks: int = 0
    recordings: int = 0
    failed: int = 0
    audio_h: float = 0.0
    cpu_h: float = 0.0
    gpu_h: float = 0.0
    waited_h: float = 0.0
    used_s: float = 0.0
    asked_s: float = 0.0
    used_bytes: float = 0.0
    asked_bytes: float = 0.0
    prompts: int = 0
    results: int = 0

    @property
    def time(self) -> float | None:
        return self.used_s / self.asked_s if self.asked_s else None

    @property
    def memory(self) -> float | None:
        return self.used_bytes / self.asked_bytes if self.asked_bytes else None

    def to_json(self) -> dict[str, Any]:
        said = {name: round(v, 3) if isinstance(v, float) else v for name, v in dataclasses.asdict(self).items()}
        return {**said, "time_used_of_asked": self.time, "memory_used_of_asked": self.memory}


def total(several: Sequence[Taken]) -> Taken:
    """All together."""
    fields = [field.name for field in dataclasses.fields(Taken)]
    return Taken(**{name: sum(getattr(one, name) for one in several) for name in fields})


def taken(
    job: Folder,
    batch: Written,
    tasks: Sequence[TaskState],
    said: Mapping[str, Any] | None,
    accounts: Sequence[Usage],
) -> Taken:
    """What one job took: by the scheduler's accounts where there are some, else by what its tasks say. `said`: its
    report."""
    rounds = job.rounds()
    files = said.get("files", []) if said else []
    runs = [one for one in accounts if one.elapsed_s > 0] or _runs(tasks, rounds)
    memory = [one for one in runs if one.memory_bytes and one.memory_asked_bytes]
    timed = [one for one in runs if one.limit_s]
    return Taken(
        jobs=1,
        tasks=len(batch.tasks),
        recordings=len(batch.items) + len(batch.refused) if isinstance(batch, Batch) else 0,
        prompts=batch.number if isinstance(batch, Prompts) else 0,
        results=batch.number if isinstance(batch, Transcripts) else len((said or {}).get("then", ())),
        failed=int(said["counts"]["failed"]) if said else 0,
        audio_h=sum(file.get("audio_ms", 0) for file in files if file["state"] == "done") / 3_600_000,
        cpu_h=sum(one.elapsed_s * (one.cpus or 0) for one in runs) / 3600,
        gpu_h=sum(one.elapsed_s * one.gpus for one in runs) / 3600,
        waited_h=sum(one.waited_s or 0.0 for one in runs) / 3600,
        used_s=sum(one.elapsed_s for one in timed),
        asked_s=sum(one.limit_s or 0.0 for one in timed),
        used_bytes=sum(one.memory_bytes or 0 for one in memory),
        asked_bytes=sum(one.memory_asked_bytes or 0 for one in memory),
    )


def _runs(tasks: Sequence[TaskState], rounds: Sequence[Round]) -> list[Usage]:
    """The lives of tasks that ended in good order, as accounts would have them."""
    import datetime

    by_number = {one.number: one for one in rounds}
    found = []
    for task in tasks:
        for end in task.ends:
            asked = by_number.get(end["round"])
            if asked is None:
                continue
            began = end["at"] - end["elapsed_ms"] / 1000
            submitted = datetime.datetime.fromisoformat(asked.submitted).timestamp() if asked.submitted else began
            first = not any(e["round"] == end["round"] and e["at"] < end["at"] for e in task.ends)
            found.append(
                Usage(
                    id=asked.array,
                    task=task.number,
                    state="done" if end["code"] == 0 else "failed",
                    elapsed_s=end["elapsed_ms"] / 1000,
                    waited_s=max(0.0, began - submitted) if first else 0.0,
                    limit_s=asked.resources.minutes * 60.0,
                    cpus=asked.resources.cpus,
                    gpus=asked.resources.gpus,
                    memory_bytes=end["peak_bytes"],
                    memory_asked_bytes=asked.resources.memory_mb << 20,
                )
            )
    return found
