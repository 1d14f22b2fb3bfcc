"""What an environment is made from on a machine without a network: a folder to carry there.

    BUNDLE/wheels/             wheels, shared by the engines in the bundle
    BUNDLE/ENGINE/bundle.json  engine, variant, Python, platform
    BUNDLE/ENGINE/VARIANT.lock the lock, with the digests of these very wheels

A package that comes as source alone is built here, for this machine's kind and this Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo import atomic
from kuulo.environments import uv
from kuulo.environments.recipe import LOCK, Recipe, Variant
from kuulo.errors import CannotRun, UsageError

SAYS = "bundle.json"
WHEELS = "wheels"
SCHEMA = 1


@dataclass(frozen=True)
class Bundle:
    """One engine's part of a bundle folder. `python` as 3.11; `machine` as x86_64."""

    folder: Path
    engine: str
    variant: str
    python: str
    machine: str

    @property
    def wheels(self) -> Path:
        return self.folder / WHEELS

    @property
    def lock(self) -> Path:
        return self.folder / self.engine / f"{self.variant}{LOCK}"


def read(folder: Path, engine: str) -> Bundle:
    """The engine's part; raises UsageError when it is not there or not for this machine."""
    path = folder / engine / SAYS
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        bundle = Bundle(folder.absolute(), engine, said["variant"], said["python"], said["machine"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        how = f"kuulo engines bundle {engine} -o FOLDER, where there is a network"
        has = sorted(found.parent.name for found in folder.glob(f"*/{SAYS}"))
        raise UsageError(
            f"this is no bundle with {engine} ({error})",
            looked_at=str(path),
            do="it has " + ", ".join(has) if has else how,
        ) from error
    if bundle.machine != platform.machine():
        raise UsageError(f"the bundle is for {bundle.machine}, and this is {platform.machine()}", looked_at=str(path))
    return bundle


def write(
    folder: Path, chosen: Recipe, variant: Variant, pip_flags: Sequence[str], python: str | None = None
) -> Bundle:
    """Fetches every package of the variant into the folder. `pip_flags`: where from. Raises CannotRun."""
    with tempfile.TemporaryDirectory(prefix="kuulo-bundle-") as scratch:
        interpreter = uv.make(Path(scratch, "venv"), python or chosen.python)
        uv.run(["pip", "install", "--quiet", "--python", str(interpreter), "pip", "setuptools", "wheel"])
        fresh = Path(scratch, "wheels")
        _pip(interpreter, ["wheel", "--no-deps", "--require-hashes", *pip_flags,
                           "--wheel-dir", str(fresh), "--requirement", str(variant.lock)],
             variant.building(os.environ))  # fmt: skip
        version = uv.version(interpreter).rpartition(".")[0]
        made = Bundle(folder.absolute(), chosen.engine, variant.name, version, platform.machine())
        try:
            _keep(made, sorted(fresh.iterdir()))
        except OSError as error:
            raise CannotRun(f"the bundle cannot be written: {error.strerror}", looked_at=str(folder)) from error
    return made


def _keep(bundle: Bundle, wheels: Sequence[Path]) -> None:
    bundle.wheels.mkdir(parents=True, exist_ok=True)
    bundle.lock.parent.mkdir(exist_ok=True)
    for wheel in wheels:
        staged = bundle.wheels / f".{wheel.name}.partial"
        shutil.copyfile(wheel, staged)
        staged.replace(bundle.wheels / wheel.name)
    atomic.write_bytes(bundle.lock, "".join(_locked(wheel) for wheel in wheels).encode())
    said = {"schema": SCHEMA, "engine": bundle.engine, "variant": bundle.variant}
    atomic.write_json(bundle.lock.with_name(SAYS), {**said, "python": bundle.python, "machine": bundle.machine})


def _locked(wheel: Path) -> str:
    """A wheel's lines in the lock. (The name of a wheel: NAME-VERSION-..., PEP 427.)"""
    name, version = wheel.name.split("-")[:2]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version} \\\n    --hash=sha256:{digest}\n"


def _pip(interpreter: Path, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    command = [str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=environ)
    if done.returncode:
        raise CannotRun(f"pip {arguments[0]} failed", looked_at=done.stderr.strip()[-2000:])
