"""The images that a site wants: from what each is made, and which are to be made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from kuulo import engines, plan
from kuulo.cli import COMMANDS
from kuulo.deploy import building
from kuulo.deploy import definition as definitions
from kuulo.deploy.building import Contents
from kuulo.deploy.definition import Definition
from kuulo.environments import bundle as bundles
from kuulo.environments import health, installed, recipe
from kuulo.environments.installed import Environment
from kuulo.environments.sources import Sources
from kuulo.errors import UsageError
from kuulo.site import Site


def folder(site: Site) -> Path:
    """Where images are built: the site's folder, or the user's environments."""
    return site.centre.images or site.environments().writable


def known(engine: str) -> None:
    """Raises UsageError for a name of no engine, or of one without a recipe."""
    plan.known_engine(engine, task=None)
    recipe.read(engine)


def wanted(
    site: Site,
    engine: str,
    *,
    variant: str | None = None,
    bundle: Path | None = None,
    base: str | None = None,
    bootstrap: str | None = None,
) -> tuple[Definition, Contents]:
    """The image that is asked for, here or in the site's file, and what is copied into it. Raises UsageError."""
    known(engine)
    said = site.centre.image
    chosen = recipe.read(engine)
    packages = bundle or (Path(said["bundle"]) if "bundle" in said else None)
    parts = [bundles.read(packages, name) for name in (engine, definitions.COMMAND_LINE.engine)] if packages else []
    picked = chosen.variant(parts[0].variant if parts else variant or said.get("variant"), gpu=True)
    locks = [part.lock for part in parts] or [picked.lock, definitions.COMMAND_LINE.variants[recipe.ANY].lock]
    texts = dict(zip(("engine", "kuulo"), (lock.read_text(encoding="utf-8") for lock in locks), strict=True))
    definition = definitions.define(
        engines.spec(engine),
        chosen,
        picked,
        definitions.base(
            bootstrap or said.get("bootstrap"), base or said.get("base"), apptainer=bool(shutil.which("apptainer"))
        ),
        Sources(bundle=parts[0] if parts else None),
        texts,
        sorted(COMMANDS),
    )
    programs = definitions.shims(engine, chosen.program)
    return definition, Contents(texts, programs, building.wheels(parts) if parts else [])


def to_build(site: Site) -> list[str]:
    """The engines of `[image]` whose image is not there, or was made from something else. Raises KuuloError."""
    names = site.centre.image.get("engines", ())
    if names and site.centre.images is None:
        raise UsageError(
            "the site's file does not say where images are",
            looked_at=f"engines in [image]: {', '.join(names)}",
            do='write images = "/appl/kuulo/images" on top',
        )
    return [name for name in names if not _is_fresh(folder(site), name, wanted(site, name)[0])]


def _is_fresh(images: Path, engine: str, definition: Definition) -> bool:
    """Whether the engine's image is there and has the labels that it would have now."""
    try:
        state = json.loads((images / engine / installed.STATE).read_bytes())
        labels = json.loads((images / engine / state["build"] / building.LABELS).read_bytes())
        there = (images / engine / state["build"] / state["image"]).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return there and bool(labels == definition.labels)


def build(site: Site, engine: str, tell: Callable[[str], None]) -> Environment:
    """The image of an engine, heard and in use. Raises KuuloError."""
    tell(f"building the image of {engine}")
    definition, contents = wanted(site, engine)
    made = building.build(folder(site), definition, contents, health.check, starter=site.centre.container, shown=False)
    tell(f"  {made.heard}")
    return made
