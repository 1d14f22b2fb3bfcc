"""What every target of a deployment is rendered from, and into what: Deployment -> {path: File}, without looking at
anything else."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kuulo import engines
from kuulo.engines.base import EngineSpec
from kuulo.environments.installed import Environment
from kuulo.llm.endpoint import CHAT
from kuulo.models.manifest import ModelRef
from kuulo.plan import DIARIZE, TRANSCRIBE
from kuulo.site import Site


@dataclass(frozen=True)
class File:
    """A file that is rendered."""

    text: str
    mode: int = 0o644


Files = Mapping[str, File]
"""By path below the folder of the target, with `/` between the parts."""


def usable(environments: Container[str]) -> tuple[EngineSpec, ...]:
    """The engines of every task that can be used, each once: those of these environments, and such as are installed
    beside Kuulo."""
    every = {spec.name: spec for task in (TRANSCRIBE, DIARIZE, CHAT) for spec in engines.specs(task)}
    return tuple(s for s in every.values() if s.home in environments or engines.installed(s))


@dataclass(frozen=True)
class Deployment:
    """A version that is deployed. `folder`: where all of it is in the end. `engines` and `models`: what there is, also
    what is for some groups alone, the best first. `environments`: engine -> the build that this version uses."""

    site: Site
    version: str
    folder: Path
    engines: tuple[EngineSpec, ...] = ()
    models: tuple[ModelRef, ...] = ()
    environments: Mapping[str, Environment] = field(default_factory=dict)

    @property
    def program(self) -> Path:
        """The command `kuulo` of this version."""
        return self.folder / "bin" / "kuulo"

    @property
    def name(self) -> str:
        """What help and messages call the centre."""
        return self.site.centre.name or "this site"
