"""Carries out one pipeline: a known clip through a run like any other, and what came out of it. What a language model
answers is in `answering.py`."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kuulo import audio, engines, formats, machine, miniature, plan, report
from kuulo import site as sites
from kuulo.cli.progress import Quiet
from kuulo.doctor.page import shown
from kuulo.errors import CannotRun, KuuloError
from kuulo.formats import json as master
from kuulo.run import Run
from kuulo.selftest import answering, watching
from kuulo.selftest.outcome import FAILED, LEFT_OUT, PASSED, Outcome, Stage
from kuulo.selftest.pipelines import Pipeline
from kuulo.site import Site
from kuulo.transcript import Transcript

ENOUGH = 0.75
"""Share of the clip's words that the miniature must hear. A processor's rounding may cost it one."""

ENOUGH_OF_OTHERS = 0.25
"""The same of a model that knows people's voices: the clip's is a synthetic one."""

GPU_CLIPS = 16
"""So often the clip is heard where a GPU is watched: one is over before it is seen."""

LIMIT_S = 1800.0
"""How long a pipeline may take. Large models load for minutes, and a CPU is slow with them."""

LOG_LINES = 6
OF_THE_MACHINE = ("batch_size", "compute_type", "device", "threads")
"""Of the site's settings, those that a trial goes by."""


def scratch(site: Site) -> Path | None:
    """The site's scratch, None for the system's."""
    said = site.forced.get("scratch", site.defaults.get("scratch", site.user.get("scratch")))
    return Path(str(said)).expanduser() if said else None


def carry_out(pipeline: Pipeline, site: Site, folder: Path, *, gpu: bool = False) -> Outcome:
    """What became of it. Everything is written into `folder`, and gone afterwards. Never raises KuuloError."""
    begun = Outcome(
        engine=pipeline.spec.name,
        model=pipeline.model.name if pipeline.model else "its own" if not pipeline.spec.model_formats else "",
        where=pipeline.where,
        state=LEFT_OUT if pipeline.left_out else FAILED,
        speaker_engine=pipeline.speaker_engine,
    )
    if pipeline.left_out:
        return dataclasses.replace(begun, stages=(Stage("engine", True, pipeline.left_out),))
    if pipeline.trouble:
        return dataclasses.replace(begun, stages=(_failed(pipeline.trouble, folder),))
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="trial-", dir=folder))
    watch = watching.Watch()
    try:
        attempt = (answering.Answering if pipeline.answers else Hearing)(pipeline, site, home, gpu=gpu)
        if gpu:
            watch.start()
        try:
            attempt.go()
        finally:
            if gpu:
                watch.stop()
        stages, device = attempt.stages(), attempt.device
        if gpu:
            seen = watching.judge(watch, device, hidden=watching.in_container())
            stages.append(seen if seen.ok else dataclasses.replace(seen, looked_at=_with_log(seen.looked_at, home)))
    except KuuloError as error:
        stages, device = [_failed(error, home)], ""
    finally:
        shutil.rmtree(home, ignore_errors=True)
    state = PASSED if all(stage.ok for stage in stages) else FAILED
    seconds = round(time.monotonic() - began, 2)
    return dataclasses.replace(begun, state=state, device=device, seconds=seconds, stages=tuple(stages))


class Hearing:
    """A run, of as many copies of the clip as it takes. Raises KuuloError."""

    def __init__(self, pipeline: Pipeline, site: Site, home: Path, *, gpu: bool) -> None:
        self._pipeline = pipeline
        self._job = _prepare(pipeline, site, home, GPU_CLIPS if gpu else 1)

    def go(self) -> None:
        _go(self._job)

    def stages(self) -> list[Stage]:
        return _stages(self._pipeline, self._job)

    @property
    def device(self) -> str:
        return self._job.report.device or ""


def _prepare(pipeline: Pipeline, site: Site, home: Path, times: int) -> Run:
    """The run, of so many copies of the clip. Raises KuuloError."""
    clips = [home / f"clip-{number + 1}{miniature.CLIP.suffix}" for number in range(times)]
    for clip in clips:
        shutil.copyfile(miniature.CLIP, clip)
    model = pipeline.model
    facts = dataclasses.replace(pipeline.facts, machine=machine.this())
    if model:
        facts = dataclasses.replace(facts, find_model=_finds(pipeline))
    settings = sites.settle(Site(), _given(pipeline, site, home), {})
    found = audio.find([str(clip) for clip in clips])
    resolve = plan.resolve_diarization if pipeline.alone else plan.resolve
    return Run(resolve(settings, facts), found.recordings, found.failures, Quiet())


def _given(pipeline: Pipeline, site: Site, home: Path) -> dict[str, Any]:
    """The options. Of the site's, those that are about its machines; none that change words."""
    spec = pipeline.spec
    of_machine = [name for name in OF_THE_MACHINE if name in spec.options]
    given: dict[str, Any] = {
        name: layer[name] for layer in (site.defaults, site.forced) for name in of_machine if name in layer
    }
    given |= {"output": str(home / "out"), "scratch": str(home), "workers": 1}
    if pipeline.speaker_engine:
        given |= {"speakers": "auto", "speaker_engine": pipeline.speaker_engine}
    if pipeline.alone:
        of_turns = tuple(name for name in formats.names() if formats.spec(name).shows_turns)
        return {**given, "format": of_turns, **({"speaker_model": pipeline.model.name} if pipeline.model else {})}
    given |= {"engine": spec.name, "format": formats.ALL, "language": "en", "speech_detection": True}
    if pipeline.model:
        given["model"] = pipeline.model.name
    refused = engines.module(spec.name).refuse({"language": "en"})
    return {name: value for name, value in given.items() if name not in refused}


def _finds(pipeline: Pipeline) -> Any:
    """The pipeline's own model, which may be in no store; for speakers' engines as before."""
    own, others = pipeline.model, pipeline.facts.find_model

    def find(name: str, known: Sequence[str]) -> Any:
        return own if own and own.name == name and own.format in known else others(name, known)

    return find


def _go(job: Run) -> None:
    """Carry it out, with an end. Raises CannotRun."""

    def too_long() -> None:
        raise CannotRun(
            f"it was not done within {LIMIT_S / 60:.0f} minutes, and was stopped",
            do="a smaller model? A file system that hangs?",
        )

    timer = threading.Timer(LIMIT_S, job.post, [too_long])
    timer.daemon = True
    timer.start()
    try:
        job.go()
    finally:
        timer.cancel()


def _stages(pipeline: Pipeline, job: Run) -> list[Stage]:
    """What came out of a run that ended. Raises CannotRun when nothing did."""
    bad = next((w.outcome for w in job.works if w.outcome.state != report.DONE), None)
    if bad:
        raise CannotRun(bad.why or bad.state, do=bad.do)
    heard = [master.read_master(job.results.target(work, "json")) for work in job.works]
    device = job.report.device or "unknown"
    loaded = f"on {device}, ready after {(job.report.load_ms or 0) / 1000:.1f} s"
    if pipeline.alone:
        return [Stage("engine", True, loaded), _turns(heard), _formats(job)]
    stages = [
        Stage("engine", True, loaded),
        Stage("speech detection", True, "the clip's speech went through" if _text(heard[0]) else "it ran"),
        _words(pipeline, heard),
    ]
    if pipeline.speaker_engine:
        stages.append(_speakers(heard[0]))
    return [*stages, _formats(job)]


def _words(pipeline: Pipeline, heard: Sequence[Transcript]) -> Stage:
    expected = miniature.CLIP_WORDS.split()
    counts = [sum((Counter(expected) & Counter(_text(one).split())).values()) for one in heard]
    least = min(counts)
    found = f"{least} of {len(expected)}" + (f" in the worst of {len(heard)} clips" if len(heard) > 1 else "")
    if not pipeline.spec.model_formats:  # its voices need not be the clip's
        return Stage("words", True, f"{found}; with its own model none are required")
    wanted = ENOUGH if pipeline.exact else ENOUGH_OF_OTHERS
    if least >= wanted * len(expected):
        return Stage("words", True, found)
    worst = _text(heard[counts.index(least)])
    looked_at = f"said: {miniature.CLIP_WORDS}; heard: {shown(worst) or 'nothing'}"
    do = "kuulo models verify" if not pipeline.exact else "please report this, with `kuulo selftest --json`"
    return Stage("words", False, f"{found}: too few", looked_at, do)


def _speakers(heard: Transcript) -> Stage:
    named = [segment for segment in heard.segments if segment.speaker]
    if named:
        return Stage("speakers", True, f"{len(heard.speakers)}, in {len(named)} of {len(heard.segments)} segments")
    return Stage(
        "speakers",
        False,
        "no segment has a speaker",
        "the master copy",
        "please report this, with `kuulo selftest --json`",
    )


def _turns(heard: Sequence[Transcript]) -> Stage:
    """Of who tells speakers apart, and does nothing else."""
    silent = [one for one in heard if not one.turns]
    if silent:
        found = f"no turn in {len(silent)} of {len(heard)} clips"
        return Stage("speakers", False, found, "the master copy", "kuulo models verify")
    return Stage("speakers", True, f"{len(heard[0].speakers)}, in {len(heard[0].turns)} turns")


def _formats(job: Run) -> Stage:
    """Every format was written, for each clip."""
    wanted = ["json", *job.results.formats]
    targets = {name: [job.results.target(work, name) for work in job.works] for name in wanted}
    missing = sorted(name for name, paths in targets.items() if not all(path.is_file() for path in paths))
    if missing:
        return Stage("formats", False, f"missing: {', '.join(missing)}", "the output folder", "please report this")
    return Stage("formats", True, f"{len(wanted)} were written")


def _text(heard: Transcript) -> str:
    """Lower case, without punctuation."""
    text = " ".join(segment.text for segment in heard.segments).lower()
    return " ".join("".join(letter for letter in text if letter.isalpha() or letter.isspace()).split())


def _failed(error: KuuloError, home: Path) -> Stage:
    return Stage("engine", False, error.what, _with_log(error.looked_at or "", home), error.do or "kuulo doctor")


def _with_log(looked_at: str, home: Path) -> str:
    """And the last lines of the engine's log, which goes with the folder."""
    log = home / "out" / ".kuulo" / "log.txt"
    lines = [shown(line) for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:]] if log.is_file() else []
    return "\n".join(filter(None, [looked_at, *lines]))
