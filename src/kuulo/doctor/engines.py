"""Engines: those that can be used, those whose environment is broken."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from kuulo import engines
from kuulo.doctor.asking import ask
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, Finding, Looking
from kuulo.engines.base import EngineSpec
from kuulo.environments import health
from kuulo.environments.installed import Environment
from kuulo.errors import KuuloError

FINDS = (
    "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec(sys.argv[1]) else 'no module ' + sys.argv[1])"
)
"""Nothing is imported: some engines take half a minute for that."""


def check(looking: Looking) -> Iterator[Finding]:
    """Every engine that is here. With `deep` those with an environment transcribe a clip."""
    environments, broken = looking.site.environments().all()
    able = 0
    for spec in _specs():
        if spec.name in broken:
            error = broken[spec.name]
            yield Finding(spec.name, PROBLEM, error.what, error.looked_at or "", error.do or "")
        elif spec.name in environments:
            finding = _environment(environments[spec.name], spec, deep=looking.deep)
            able += finding.state != PROBLEM and "transcribe" in spec.tasks
            yield finding
        elif engines.installed(spec):
            able += "transcribe" in spec.tasks
            yield Finding(spec.name, OK, f"{_version(spec)}, beside Kuulo")
    for trouble in engines.troubles():
        yield Finding(trouble.name, PROBLEM, trouble.why, f"package {trouble.package}", "mend or uninstall the package")
    if not able:
        yield Finding("transcription", PROBLEM, "no engine that transcribes is installed", "", "pip install kuulo")


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
        with path.open("rb") as image:
            image.read(1)
    except OSError as error:
        do = "let its readers in (chmod), or make it anew"
        return Finding(spec.name, PROBLEM, f"{where}: its image cannot be read: {error.strerror}", str(path), do)
    do = f"kuulo selftest --engine {spec.name}"
    return Finding(spec.name, UNKNOWN, f"{where}: its image can be read; it was not started", str(path), do)


def _version(spec: EngineSpec, environment: Environment | None = None) -> str:
    if environment:
        return environment.packages.get(spec.package, "version unknown")
    try:
        return importlib.metadata.version(spec.package)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"
