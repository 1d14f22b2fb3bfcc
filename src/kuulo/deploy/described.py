"""Says what is in an image, from inside, when it has been made: the state of its environment.

python -m kuulo.deploy.described ENGINE VARIANT PYTHONS LOCK_SHA256
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

from packaging.specifiers import SpecifierSet

import kuulo
from kuulo.environments import installed
from kuulo.environments.installed import Environment
from kuulo.runtimes.container import BUILD, ENVIRONMENTS

PACKAGES = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}, sort_keys=True))"
)


def main(engine: str, variant: str, pythons: str, digest: str) -> int:
    """Exit code 1 when the image's Python is none of those that the engine runs on."""
    if platform.python_version() not in SpecifierSet(pythons):
        print(f"{engine} needs Python {pythons}; the base has {platform.python_version()}", file=sys.stderr)  # noqa: T201
        return 1
    folder = Path(ENVIRONMENTS, engine, BUILD)
    asked = [str(folder / "bin" / "python"), "-I", "-c", PACKAGES]
    environment = Environment(
        engine=engine,
        folder=folder,
        variant=variant,
        python=platform.python_version(),
        lock_sha256=digest,
        packages=json.loads(subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout),
        installed=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        kuulo=kuulo.__version__,
    )
    installed.put_in_use(environment)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
