"""Engines: those that can be used, those whose environment is broken."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from kuulo import access, engines
from kuulo.doctor.asking import ask
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, Finding, Looking
from kuulo.engines.base import EngineSpec
from kuulo.environments import health
from kuulo.environments.installed import Environment
from kuulo.errors import KuuloError
from kuulo.runtimes import image_file

FINDS = (
    "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec(sys.argv[1]) else 'no module ' + sys.argv[1])"
)
"""Nothing is imported: some engines take half a minute for that."""


def check(looking: Looking) -> Iterator[Finding]:
    """Every engine that is here. With `deep` those with an environment transcribe a clip."""
    environments, broken = looking.site.environments().all()
    may = access.allowed(looking.site.centre, "engines", access.own_groups())
    able = 0
    for spec in _specs():
        finding = _engine(spec, environments.get(spec.name), broken.get(spec.name), deep=looking.deep)
        if finding is None:
            continue
        if may is not None and spec.name not in may and access.is_chosen(spec):
            finding = dataclasses.replace(finding, found=f"{finding.found}; this site does not offer it to you")
        else:
            able += finding.state != PROBLEM and "transcribe" in spec.tasks
        yield finding
    for trouble in engines.troubles():
        yield Finding(trouble.name, PROBLEM, trouble.why, f"package {trouble.package}", "mend or uninstall the package")
    if not able:
        do = "kuulo engines install faster-whisper; at a centre, ask whom it names"
        yield Finding("transcription", PROBLEM, "no engine that transcribes can be used", "kuulo engines", do)


def _engine(
    spec: EngineSpec, environment: Environment | None, broken: KuuloError | None, *, deep: bool
) -> Finding | None:
    """None for one that is not here."""
    if broken:
        return Finding(spec.name, PROBLEM, broken.what, broken.looked_at or "", broken.do or "install it again")
    if environment:
        return _environment(environment, spec, deep=deep)
    return Finding(spec.name, OK, f"{_version(spec)}, beside Kuulo") if engines.installed(spec) else None


def _specs() -> list[EngineSpec]:
    """All that people may have, each once; not those that are a part of Kuulo."""
    found = [spec for spec in engines.every() if spec.name not in engines.HIDDEN and spec.package != "kuulo"]
    return list({spec.name: spec for spec in found}.values())


def _environment(environment: Environment, spec: EngineSpec, *, deep: bool) -> Finding:
    where, folder = f"{_version(spec, environment)} ({environment.variant})", str(environment.folder)
    do = f"kuulo engines check {spec.name}, kuulo engines install {spec.name}"
    if deep:
        try:
            return Finding(spec.name, OK, f"{where}: {health.check(environment)}", folder)
        except KuuloError as error:
            return Finding(spec.name, PROBLEM, f"{where}: {error.what}", error.looked_at or folder, do)
    if environment.image_path is not None:
        return _image(environment.image_path, spec, where)
    answer = ask([str(environment.interpreter), "-I", "-c", FINDS, spec.module], environ={"PATH": "/usr/bin:/bin"})
    if not answer.ok:
        return Finding(spec.name, PROBLEM, f"{where}: its Python: {answer.why}", folder, do)
    heard = environment.heard or f"never tried: kuulo engines check {spec.name}"
    return Finding(spec.name, OK, f"{where}, when it was installed: {heard}", folder)


def _image(path: Path, spec: EngineSpec, where: str) -> Finding:
    try:
        kind = image_file.kind(path)
    except KuuloError as error:
        do = error.do or "let its readers in (chmod), or make it anew"
        return Finding(spec.name, PROBLEM, f"{where}: {error.what}", error.looked_at or str(path), do)
    do = f"kuulo selftest --engine {spec.name}"
    return Finding(spec.name, UNKNOWN, f"{where}: its image ({kind}) is whole; it was not started", str(path), do)


def _version(spec: EngineSpec, environment: Environment | None = None) -> str:
    if environment:
        return environment.version(spec.package) or "version unknown"
    try:
        return importlib.metadata.version(spec.package)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"
