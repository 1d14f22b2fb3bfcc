"""What every target of a deployment is rendered from, and into what: Deployment -> {path: File}, without looking at
anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kuulo.engines.base import EngineSpec
from kuulo.models.manifest import ModelRef
from kuulo.site import Site


@dataclass(frozen=True)
class File:
    """A file that is rendered."""

    text: str
    mode: int = 0o644


Files = Mapping[str, File]
"""By path below the folder of the target, with `/` between the parts."""


@dataclass(frozen=True)
class Deployment:
    """A version that is deployed. `folder`: where all of it is in the end. `engines` and `models`: what its users find,
    the best first."""

    site: Site
    version: str
    folder: Path
    engines: tuple[EngineSpec, ...] = ()
    models: tuple[ModelRef, ...] = ()

    @property
    def program(self) -> Path:
        """The command `kuulo` of this version."""
        return self.folder / "bin" / "kuulo"
