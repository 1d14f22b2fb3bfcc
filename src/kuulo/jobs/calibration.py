"""Measures how fast an engine with a model is on a kind of node: a job like any other, over sound of a known length."""

from __future__ import annotations

import dataclasses
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from kuulo import audio, plan, survey
from kuulo import site as sites
from kuulo.engines.base import SAMPLE_RATE
from kuulo.errors import CannotRun
from kuulo.jobs import measuring, overview, planning, submission
from kuulo.jobs.batch import Batch, Item
from kuulo.jobs.folder import Folder, now, tasks_of
from kuulo.jobs.survey import Looked
from kuulo.site import Site
from kuulo.speeds import Observation

LOOK_EVERY_S = 1.0


def measure(
    files: Site, given: Mapping[str, Any], recordings: Sequence[Path], minutes: float, asked: Mapping[str, Any],
    progress: Callable[[str], None],
) -> Observation:  # fmt: skip
    """One measurement. `given`: the options, as for `kuulo submit`; `asked`: its flags. Each worker gets `minutes` of
    sound, from the recordings, again and again. Raises KuuloError."""
    folder = files.jobs_folder().new()
    output = folder.path / "results"
    resolved = plan.resolve(sites.settle(files, {**given, "output": str(output)}), survey.facts(files))
    output.mkdir()
    told = {**asked, "cut": False, "task_time": "60000"}
    draft = planning.batch(files, files.jobs(), resolved, Looked(), told)
    workers = draft.plan.options["workers"] or 1
    items = [_sound(folder, recordings, minutes, number) for number in range(workers)]
    batch = planning.batch(files, files.jobs(), resolved, Looked(items), told)
    submission.new(folder, batch)
    _wait(folder, progress)
    return _result(folder, batch)


def _sound(folder: Folder, recordings: Sequence[Path], minutes: float, number: int) -> Item:
    """A recording of so many minutes in the job's folder; each one of its own, since equal ones would be read from
    memory."""
    path = folder.path / f"sound-{number}.wav"
    wanted = round(minutes * 60 * SAMPLE_RATE)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        while out.tell() < wanted:
            for recording in recordings:
                out.writeframes(_samples(recording)[: 2 * (wanted - out.tell())])
    facts = path.stat()
    return Item(path, PurePath(path.stem), round(minutes * 60_000), facts.st_size, facts.st_mtime_ns)


def _samples(recording: Path) -> bytes:
    """A recording and half a second of silence, 16 bits."""
    import tempfile

    import numpy as np

    with tempfile.TemporaryDirectory() as place:
        pcm = Path(place) / "pcm"
        audio.decode(recording, pcm)
        samples = (np.fromfile(pcm, "<f4") * 32767).astype("<i2")
    return samples.tobytes() + bytes(SAMPLE_RATE)


def _wait(folder: Folder, progress: Callable[[str], None]) -> None:
    while (one := overview.look(folder)).state not in overview.OVER:
        progress(f"{folder.name}: {one.state}" + (f" ({one.reason})" if one.reason else ""))
        time.sleep(LOOK_EVERY_S)


def _result(folder: Folder, batch: Batch) -> Observation:
    tasks = tasks_of(folder, [len(task) for task in batch.tasks])
    found = measuring.observations(batch, tasks, now())
    failed = [f for f in (folder.report() or {"files": []})["files"] if f["state"] == "failed"]
    if failed or not found:
        why = failed[0].get("why") if failed else "too little was heard without a stop"
        raise CannotRun(
            f"nothing was measured: {why}", looked_at=f"kuulo jobs logs {folder.name}", do="or with more --minutes"
        )
    for path in folder.path.glob("sound-*"):
        path.unlink()
    return dataclasses.replace(found[0], by="calibrate")
