"""`plan.json`: a job as JSON, whole, so that a task on another machine has nothing left to decide.

File names may hold bytes that are no text; Python keeps them as lone surrogates, which JSON has escapes for.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import kuulo
from kuulo import atomic, options, plan
from kuulo.environments.installed import Environment
from kuulo.errors import CannotRun
from kuulo.jobs.batch import (
    Batch,
    Item,
    Job,
    OnTranscripts,
    Pace,
    Piece,
    Prompts,
    Refused,
    Share,
    Then,
    Transcripts,
)
from kuulo.jobs.folder import PLAN
from kuulo.plan import Diarizer, Model, Plan
from kuulo.schedulers.base import Queue, Resources

SCHEMA = 1
RECORDINGS, PROMPTS, RESULTS = "recordings", "prompts", "results"
"""Kinds of jobs, by what is counted: results are of tasks on transcripts."""

Written = Batch | Prompts | Transcripts


def write(folder: Path, batch: Written) -> None:
    """Write it into the job's folder. Raises OSError."""
    atomic.write_bytes(folder / PLAN, json.dumps(to_json(batch), indent=1).encode("ascii"), mode=0o600)


def read(folder: Path) -> Written:
    """What a job's folder is to be done; raises CannotRun."""
    path = folder / PLAN
    try:
        said = json.loads(path.read_bytes())
    except OSError as error:
        raise CannotRun(
            f"the job's plan cannot be read: {error.strerror}",
            looked_at=str(path),
            do="the job's folder must be on a file system that the compute nodes see: name another with KUULO_JOBS",
        ) from error
    except ValueError as error:
        raise CannotRun("the job's plan is damaged", looked_at=str(path)) from error
    if said.get("schema") != SCHEMA:
        raise CannotRun("the job's plan is of another version of Kuulo", looked_at=str(path), do="submit it again")
    return from_json(said)


def to_json(job: Written) -> dict[str, Any]:
    """The job for a file."""
    match job:
        case Batch():
            own = _recordings(job)
        case Prompts():
            own = _prompts(job)
        case Transcripts():
            own = _results(job)
    return {"schema": SCHEMA, "kuulo": kuulo.__version__, "python": sys.executable, **own, **_queued(job)}


def _queued(job: Job) -> dict[str, Any]:
    return {
        "tasks": [[dataclasses.asdict(piece) for piece in task] for task in job.tasks],
        "resources": dataclasses.asdict(job.resources),
        "queue": dataclasses.asdict(job.queue),
        "finish_queue": dataclasses.asdict(job.finish_queue),
        "scheduler": job.scheduler,
        "at_once": job.at_once,
        "mail": job.mail,
        "mailer": job.mailer,
        "pace": dataclasses.asdict(job.pace) if job.pace else None,
        "refused": [dataclasses.asdict(r) for r in job.refused],
        "notes": list(job.notes),
    }


def _recordings(batch: Batch) -> dict[str, Any]:
    return {
        "kind": RECORDINGS,
        "plan": batch.plan.to_json(),
        "items": [{**dataclasses.asdict(i), "path": str(i.path), "stem": str(i.stem)} for i in batch.items],
        "turns_pace": dataclasses.asdict(batch.turns_pace) if batch.turns_pace else None,
        "then": dataclasses.asdict(batch.then) if batch.then else None,
    }


PROMPTS_ALONE = ("digest", "number", "bytes", "asked", "engine", "model", "model_sha256", "concurrency", "template",
                 "template_sha256", "variables", "any_model", "overwrite")  # fmt: skip


def _prompts(job: Prompts) -> dict[str, Any]:
    return {
        "kind": PROMPTS,
        "source": str(job.source),
        "target": str(job.target),
        **{name: getattr(job, name) for name in PROMPTS_ALONE},
    }


def _results(job: Transcripts) -> dict[str, Any]:
    return {
        "kind": RESULTS,
        "what": dataclasses.asdict(job.what),
        "sources": [str(source) for source in job.sources],
        "records": {str(folder): list(names) for folder, names in job.records.items()},
        "overwrite": job.overwrite,
    }


def from_json(said: Mapping[str, Any]) -> Written:
    """What `to_json` wrote."""
    readers: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Written]] = {
        RECORDINGS: _read_recordings,
        PROMPTS: _read_prompts,
        RESULTS: _read_results,
    }
    return readers[said["kind"]](
        said,
        {
            "resources": Resources(**said["resources"]),
            "queue": _queue(said["queue"]),
            "finish_queue": _queue(said["finish_queue"]),
            "scheduler": said["scheduler"],
            "at_once": said["at_once"],
            "mail": said["mail"],
            "mailer": said["mailer"],
            "pace": Pace(**said["pace"]) if said["pace"] else None,
            "refused": tuple(Refused(**r) for r in said["refused"]),
            "notes": tuple(said["notes"]),
        },
    )


def _read_recordings(said: Mapping[str, Any], queued: Mapping[str, Any]) -> Batch:
    return Batch(
        plan=_plan(said["plan"]),
        items=tuple(Item(**{**i, "path": Path(i["path"]), "stem": PurePath(i["stem"])}) for i in said["items"]),
        tasks=tuple(tuple(Piece(**piece) for piece in task) for task in said["tasks"]),
        turns_pace=Pace(**said["turns_pace"]) if said["turns_pace"] else None,
        then=_then(said["then"]) if said["then"] else None,
        **queued,
    )


def _read_prompts(said: Mapping[str, Any], queued: Mapping[str, Any]) -> Prompts:
    return Prompts(
        source=Path(said["source"]),
        target=Path(said["target"]),
        tasks=tuple(tuple(Share(**piece) for piece in task) for task in said["tasks"]),
        **{name: said[name] for name in PROMPTS_ALONE},
        **queued,
    )


def _read_results(said: Mapping[str, Any], queued: Mapping[str, Any]) -> Transcripts:
    what = said["what"]
    return Transcripts(
        what=OnTranscripts(**{**what, "tasks": tuple(what["tasks"])}),
        sources=tuple(Path(source) for source in said["sources"]),
        records={Path(folder): names for folder, names in said["records"].items()},
        tasks=tuple(tuple(Share(**piece) for piece in task) for task in said["tasks"]),
        overwrite=said["overwrite"],
        **queued,
    )


def _plan(said: Mapping[str, Any]) -> Plan:
    """The Plan that `Plan.to_json` wrote. Raises CannotRun when it is not the same any more: a roster was changed."""
    values = {name: options.parse(options.BY_NAME[name], value) for name, value in said["options"].items()}
    diarizer = said["diarizer"]
    made = Plan(
        engine=said["engine"],
        model=_model(said["model"]),
        why=said["why"],
        options=values,
        given=tuple(said["given"]),
        raw=dict(said["engine_options"]),
        workers=said["workers"],
        threads=said["threads"],
        notes=tuple(said["notes"]),
        environment=_environment(said["environment"]),
        key=said["key"],
        job=said["job"],
        diarizer=Diarizer(
            diarizer["engine"],
            _model(diarizer["model"]),
            diarizer["why"],
            _environment(diarizer["environment"]),
        )
        if diarizer
        else None,
        roster=plan.read_roster(values),
    )
    if plan.key_of(made) != made.key:
        raise CannotRun(
            "what the job was planned with has changed since: other words would come of it",
            looked_at=str(values["roster"] or f"Kuulo {kuulo.__version__}"),
            do="submit it again",
        )
    return made


def _then(said: Mapping[str, Any]) -> Then:
    made = {"resources": Resources(**said["resources"]), "queue": _queue(said["queue"])}
    return Then(**{**said, **made, "tasks": tuple(said["tasks"]), "also": tuple(said["also"])})


def _queue(said: Mapping[str, Any]) -> Queue:
    return Queue(**{**said, "extra": tuple((k, v) for k, v in said["extra"])})


def _model(said: Mapping[str, Any] | None) -> Model | None:
    return Model(**{**said, "path": Path(said["path"])}) if said else None


def _environment(said: Mapping[str, Any] | None) -> Environment | None:
    return Environment(**{**said, "folder": Path(said["folder"])}) if said else None
