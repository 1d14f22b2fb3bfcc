"""The environments that tests run engines in: those of $KUULO_TEST_ENVIRONMENTS, where somebody installed some, then
that of llama.cpp, which `make test` builds from source beforehand, for minutes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kuulo.environments.installed import VARIABLE, Environments

_NAMED = os.environ.get("KUULO_TEST_ENVIRONMENTS")
ENVIRONMENTS = Environments((*([Path(_NAMED)] if _NAMED else []), Path(sys.prefix, "environments")))
IN_ENVIRONMENTS = {VARIABLE: os.pathsep.join(map(str, ENVIRONMENTS.folders))}
"""What leads the command line there."""
