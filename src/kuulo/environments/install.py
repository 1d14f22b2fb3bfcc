"""Makes an engine's environment: a virtual environment from a lock, by uv, in use when it has transcribed.

Beside `models/pull.py` the only code that uses the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import kuulo
from kuulo.environments import installed, uv
from kuulo.environments.installed import Environment, Environments
from kuulo.environments.recipe import Recipe, Variant
from kuulo.environments.sources import Sources
from kuulo.errors import CannotRun

HealthCheck = Callable[[Environment], str]
"""Has the engine transcribe and says what came of it; raises KuuloError when it cannot."""


def install(
    environments: Environments,
    chosen: Recipe,
    variant: Variant,
    check: HealthCheck | None,
    sources: Sources,
    *,
    python: str | None = None,
    lock: Path | None = None,
    shown: bool = True,
) -> Environment:
    """The environment, in use. `check`: None where the engine cannot run, as one without its GPU. `python`: a path or
    version instead of the recipe's; `lock`: packages instead of the variant's. Raises KuuloError; an older environment
    stays in use then."""
    home = environments.writable / chosen.engine
    bundle = sources.bundle
    used = lock or (bundle.lock if bundle else variant.lock)
    try:
        locked = used.read_bytes()
    except OSError as error:
        raise CannotRun(f"the lock cannot be read: {error.strerror}", looked_at=str(used)) from error
    digest = hashlib.sha256(locked).hexdigest()
    build = home.absolute() / f"{digest[:12]}-{secrets.token_hex(3)}"
    try:
        installed.sweep(home)
        installed.begin(build)
        interpreter = uv.make(build, python or (bundle.python if bundle else chosen.python))
        # A lock has all that is wanted. A file of the user's own may be a plain list of requirements.
        hashes = ["--require-hashes", "--no-deps"] if b"--hash" in locked else []
        from_where = sources.flags(variant)
        words = ["pip", "install", "--python", str(interpreter), *from_where, *hashes, "-r", str(used)]
        uv.run(words, shown=shown, environ=variant.building(os.environ))
        environment = Environment(
            engine=chosen.engine,
            folder=build,
            variant=variant.name if not lock else "own",
            lock_sha256=digest,
            python=uv.version(interpreter),
            packages=uv.packages(interpreter),
            installed=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            kuulo=kuulo.__version__,
        )
        if check:
            environment = dataclasses.replace(environment, heard=check(environment))
        installed.put_in_use(environment)
    except OSError as error:
        _undo(build)
        raise CannotRun(
            f"the environment cannot be made: {error.strerror or error}",
            looked_at=str(home),
            do=f"name another folder with {installed.VARIABLE}",
        ) from error
    except BaseException:  # also when interrupted: what is half built goes
        _undo(build)
        raise
    return environment


def _undo(build: Path) -> None:
    shutil.rmtree(build, ignore_errors=True)
    with contextlib.suppress(OSError):  # an older build may be beside it
        build.parent.rmdir()
