"""From what an engine's environment is made."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo.errors import UsageError

FOLDER = Path(__file__).parent
ANY, CPU, CUDA = "any", "cpu", "cuda"
VARIANTS = (CPU, CUDA)
LOCK = ".lock"


@dataclass(frozen=True)
class Variant:
    """What is installed on one kind of machine. `index`: has what PyPI has not; `without`: packages left out; `build`:
    variables for what is built from source."""

    name: str
    wanted: Path
    lock: Path
    index: str | None = None
    without: tuple[str, ...] = ()
    build: Mapping[str, str] = field(default_factory=dict)

    def building(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`environ` with the variables for building; what it has of them already comes after ours, and so wins."""
        mixed = {name: " ".join(filter(None, [said, environ.get(name, "")])) for name, said in self.build.items()}
        return {**environ, **mixed}


@dataclass(frozen=True)
class Recipe:
    """An engine's environment, not yet made. `python`: versions, as pip writes them."""

    engine: str
    python: str
    variants: Mapping[str, Variant] = field(default_factory=dict)
    program: str | None = None
    note: str = ""

    def variant(self, name: str | None, *, gpu: bool) -> Variant:
        """The variant of that name; without one, that for CUDA where there is a `gpu`. Raises UsageError."""
        if name is None:
            name = CUDA if gpu and CUDA in self.variants else next(iter(self.variants))
        elif ANY in self.variants:  # the same packages serve every machine
            name = ANY
        if name not in self.variants:
            raise UsageError(
                f"the environment of {self.engine} has no variant {name}", looked_at=", ".join(self.variants)
            )
        return self.variants[name]


def names() -> list[str]:
    """The engines that have a recipe."""
    return sorted(path.parent.name for path in FOLDER.glob("*/environment.toml"))


def has(engine: str) -> bool:
    return (FOLDER / engine / "environment.toml").is_file()


def read(engine: str) -> Recipe:
    """The engine's recipe; raises UsageError when there is none."""
    if not has(engine):
        raise UsageError(f"no environment is known for {engine!r}", looked_at=", ".join(names()))
    folder = FOLDER / engine
    said = tomllib.loads((folder / "environment.toml").read_text(encoding="utf-8"))
    wanted = {name: folder / f"{name}.in" for name in VARIANTS}
    if any(path.is_file() for path in wanted.values()):
        variants = {name: _variant(folder, name, path, said.get(name, {})) for name, path in wanted.items()}
    else:
        variants = {ANY: _variant(folder, ANY, folder / "requirements.in", said.get(ANY, {}))}
    return Recipe(engine, said["python"], variants, said.get("program"), said.get("note", ""))


def _variant(folder: Path, name: str, wanted: Path, said: Mapping[str, Any]) -> Variant:
    wanted = wanted if wanted.is_file() else folder / "requirements.in"
    return Variant(
        name, wanted, folder / f"{name}{LOCK}", said.get("index"), tuple(said.get("without", ())), said.get("build", {})
    )


def of_program(program: str) -> str | None:
    """The engine whose environment starts this program."""
    return next((name for name in names() if read(name).program == program), None)


def wanted_digest(variant: Variant) -> str:
    """sha256 of what the lock is made from."""
    joined = hashlib.sha256("\n".join(variant.without).encode())
    for path in sorted({variant.wanted, variant.wanted.with_name("requirements.in")}):
        joined.update(path.read_bytes())
    return joined.hexdigest()
