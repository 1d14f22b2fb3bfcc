"""Has an installed engine transcribe, or answer, in its environment and offline, through everything that a run goes
through."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kuulo import audio, engines, machine, miniature, naming, plan, report, run, runtimes, site, survey
from kuulo.cli.progress import Quiet
from kuulo.engines.base import EngineSpec
from kuulo.environments.installed import Environment
from kuulo.errors import CannotRun, KuuloError
from kuulo.formats import json as master
from kuulo.llm import tiny
from kuulo.llm.endpoint import CHAT
from kuulo.miniature.writers import WRITERS
from kuulo.models import built_in
from kuulo.models.store import Store
from kuulo.plan import TRANSCRIBE, Facts, Model
from kuulo.site import Site

ANSWERS_S = 300
"""How long a server may take to load the tiny model, and to answer: programs come slowly off some file systems."""

DEVICES = {"cpu": "CPU", "cuda": "GPU"}

ENOUGH = 0.75
"""Share of the clip's words that must be heard. A processor's rounding may cost the miniature one."""


def check(environment: Environment, engine_options: Sequence[str] = ()) -> str:
    """What the engine heard, in a sentence; raises CannotRun when it does not work. `engine_options`:
    KEY=VALUE, what an engine that hears cannot do without.

    Engines that take Whisper models hear the miniature's clip with it, and have to know its words. The others hear the
    same clip, which need not be a voice that they know: there it is enough that they go through it. One for language
    models answers what the model `tiny` was taught. For the others no model is here; they have to be importable."""
    spec = engines.spec(environment.engine)
    if CHAT in spec.tasks and (tiny_ := tiny.model(spec.model_formats)):
        return _answers(environment, spec, tiny_)
    if TRANSCRIBE not in spec.tasks:
        return _imported(environment, spec)
    with tempfile.TemporaryDirectory(prefix="kuulo-check-") as folder:
        home = Path(folder)
        said = _heard(environment, spec, _model(spec, home), home, engine_options)
    if not spec.model_formats:
        return "it went through a clip of speech"
    expected = miniature.CLIP_WORDS.split()
    right = sum(word in said.split() for word in expected)
    if right < ENOUGH * len(expected):
        raise CannotRun(
            f"{spec.name} heard {right} of {len(expected)} words of the clip that it was tried on",
            looked_at=f"said: {miniature.CLIP_WORDS}; heard: {said}",
            do="please report this, with the output of `kuulo engines list --json`",
        )
    return f"it heard {right} of {len(expected)} words of a clip with the model {miniature.NAME}"


def _answers(environment: Environment, spec: EngineSpec, model: Model) -> str:
    from kuulo.llm import trying

    with tempfile.TemporaryDirectory(prefix="kuulo-check-") as folder:
        facts = _facts(environment, spec, model)
        trial = trying.prepare(spec, model, facts, Path(folder), timeout_s=ANSWERS_S, settings={})
        said = tiny.Said(trial.ask(tiny.ANSWERS))
    if not said.enough:
        raise CannotRun(
            f"{spec.name} does not compute as it should: it answered {said.words} right with the model {model.name}",
            looked_at=said.worst,
            do="install it where it is to run; else please report this, with `kuulo engines list --json`",
        )
    return f"it answered {said.words} with the model {model.name}, on the {DEVICES[trial.device]}"


def _imported(environment: Environment, spec: EngineSpec) -> str:
    with tempfile.TemporaryDirectory(prefix="kuulo-check-") as folder:
        runtime = runtimes.of(environment)
        runtimes.make_room(runtime, Path(folder))
        program = "import importlib, sys; importlib.import_module(sys.argv[1])"
        done = subprocess.run(
            runtime.python(Path(folder), ["-I", "-c", program, spec.module]),
            env=runtime.environment(Path(folder), os.environ),
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode != 0:
        last = "\n".join(f"    {line}" for line in done.stderr.splitlines()[-8:])
        raise CannotRun(f"{spec.module} cannot be imported in the environment of {spec.name}", looked_at=last)
    what = "language" if CHAT in spec.tasks else "speaker"
    return f"{spec.module} was imported; no {what} model was at hand to try it on"


def _model(spec: EngineSpec, home: Path) -> Model | None:
    formats = [format_ for format_ in spec.model_formats if format_ in WRITERS]
    return survey.model(built_in.write(Store(home / "models"), formats[0])) if formats else None


def _facts(environment: Environment, spec: EngineSpec, model: Model | None) -> Facts:
    """A machine that has this engine alone, and this model whatever it is called."""
    return Facts(
        machine=machine.this(),
        installed={spec.name: True},
        models=[],
        find_model=lambda name, formats: model,
        environments={spec.name: environment},
    )


def _heard(
    environment: Environment, spec: EngineSpec, model: Model | None, home: Path, engine_options: Sequence[str]
) -> str:
    """The clip's words, in lower case and without punctuation."""
    given: dict[str, Any] = {"engine": spec.name, "output": str(home / "out"), "scratch": str(home), "language": "en"}
    given |= {"workers": "1", "engine_option": tuple(engine_options)}
    if model:
        given["model"] = model.name
    settings = site.settle(Site(), given, {})
    facts = _facts(environment, spec, model)
    found = audio.find([str(miniature.CLIP)])
    job = run.Run(plan.resolve(settings, facts), found.recordings, found.failures, Quiet())
    try:
        job.go()
    except CannotRun as error:
        raise _with_log(error, home) from error
    (work,) = job.works
    if work.outcome.state != report.DONE:
        raise _with_log(CannotRun(f"{spec.name}: {work.outcome.why}", do=work.outcome.do), home)
    text = " ".join(segment.text for segment in master.read_master(job.results.target(work, "json")).segments)
    return "".join(letter for letter in text.lower() if letter.isalpha() or letter.isspace())


def _with_log(error: KuuloError, home: Path) -> CannotRun:
    """The log goes with the check's folder: its last lines are told."""
    log = home / "out" / ".kuulo" / "log.txt"
    lines = log.read_text(errors="replace").splitlines()[-8:] if log.is_file() else []
    looked_at = "\n".join(filter(None, [error.looked_at, *(f"    {naming.shown(Path(line))}" for line in lines)]))
    return CannotRun(error.what, looked_at=looked_at or None, do=error.do)
