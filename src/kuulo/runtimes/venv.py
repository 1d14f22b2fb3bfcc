"""A worker in an engine's own environment: of the host it has Kuulo's worker files, and nothing else."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import kuulo
from kuulo.environments.installed import Environment
from kuulo.runtimes import here

WORKER = ("__init__.py", "machine.py", "speech.py", "transcript.py", "wire.py", "worker.py", "engines")
"""The files of the package that a worker may import: the standard library does for them, on Python 3.9."""

CARRIED = "worker"
"""The folder in scratch that has them."""

HOSTS = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables that would bring packages of the host."""


class Venv:
    """The Python of an installed environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def command(self, scratch: Path, reads: Sequence[Path]) -> list[str]:
        return self.python(scratch, ["-m", "kuulo.worker"])

    def python(self, scratch: Path, arguments: Sequence[str]) -> list[str]:
        return [str(self._environment.interpreter), *arguments]

    def environment(self, scratch: Path, environ: Mapping[str, str]) -> dict[str, str]:
        own = of_its_own(self._environment, here.worker_environment(scratch, environ))
        return {**own, "PYTHONPATH": str(scratch / CARRIED)}

    def prepare(self, scratch: Path) -> None:
        carry(scratch)


def carry(scratch: Path) -> None:
    """The worker's files into scratch, anew for each run: they are always those of the Kuulo that started it."""
    target = scratch / CARRIED / "kuulo"
    if target.is_dir():
        return
    staged = scratch / f"{CARRIED}-{uuid.uuid4().hex}"
    staged.mkdir()
    source = Path(kuulo.__file__).parent
    for name in WORKER:
        if (source / name).is_dir():
            shutil.copytree(source / name, staged / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / name, staged / name)
    target.parent.mkdir(exist_ok=True)
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir():  # else another worker of this run was first
            raise
        shutil.rmtree(staged)


def for_program(environment: Environment, scratch: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """For an engine's own program, as `here.for_program`."""
    return of_its_own(environment, here.for_program(scratch, environ))


def of_its_own(environment: Environment, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the environment's programs and libraries, and without the host's packages."""
    own = {name: value for name, value in environ.items() if name not in HOSTS}
    programs = str(environment.folder / "bin")
    libraries = [str(path) for path in sorted(environment.folder.glob("lib/python*/site-packages/nvidia/*/lib"))]
    own |= {
        "PATH": os.pathsep.join([programs, environ.get("PATH", os.defpath)]),
        "PYTHONNOUSERSITE": "1",
        "VIRTUAL_ENV": str(environment.folder),
    }
    if libraries:  # CTranslate2 opens CUDA's libraries by name, wherever the loader looks
        own["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, *filter(None, [environ.get("LD_LIBRARY_PATH")])])
    return own
