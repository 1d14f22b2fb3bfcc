"""What the app is rendered from when nobody deploys: this Kuulo, the engines that are here, and the site's models."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import kuulo
from kuulo.deploy.base import Deployment, usable
from kuulo.site import Site


def deployment(site: Site) -> Deployment:
    """A Deployment whose program is the command `kuulo` that runs now. Raises KuuloError."""
    environments, broken = site.environments().all()
    found = tuple(spec for spec in usable(environments) if spec.home not in broken)
    return Deployment(
        site,
        kuulo.__version__,
        _program().parent.parent,
        found,
        tuple(site.model_stores().list()),
    )


def _program() -> Path:
    """The command `kuulo` of this interpreter, else the one on the PATH."""
    beside = Path(sys.executable).with_name("kuulo")
    found = shutil.which("kuulo")
    return beside if beside.exists() or not found else Path(found).absolute()
