"""From the site's file to the files of a version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from kuulo.deploy import commands, library, module, portal, versions
from kuulo.deploy.base import Deployment, Files, usable
from kuulo.deploy.tree import Entry
from kuulo.deploy.versions import Versions
from kuulo.environments.installed import Environment, Environments
from kuulo.errors import CannotRun, UsageError
from kuulo.models.manifest import ModelRef
from kuulo.models.store import Store
from kuulo.models.stores import Stores
from kuulo.site import Site

APP = "portal/kuulo"
"""The folder in a version that has the portal's app."""

TARGETS: Mapping[str, Callable[[Deployment], Files]] = {
    "modules": module.render,
    APP: lambda made: portal.render(made) if made.site.centre.portal.get("folder") else {},
}
"""What is rendered beside the commands: its folder in a version, and by whom."""


def deployment(site: Site, where: Versions, version: str) -> Deployment:
    """What a version would be now. Raises CannotRun when an engine's environment is broken."""
    environments = of_site(site)
    found = usable(environments)
    return Deployment(
        site=site,
        version=version,
        folder=where.path(version),
        engines=found,
        models=tuple(of_stores(site, [f for s in found for f in s.model_formats])),
        environments=environments,
    )


def of_site(site: Site) -> dict[str, Environment]:
    """The engines' environments in the site's own folders. Raises CannotRun when one is broken."""
    folders = (*site.centre.environments, *filter(None, [site.centre.images]))
    found, broken = Environments(folders).all() if folders else ({}, {})
    for name, error in broken.items():
        raise CannotRun(f"{name}: {error.what}", looked_at=error.looked_at, do=error.do)
    return found


def of_stores(site: Site, formats: list[str]) -> list[ModelRef]:
    """The models in the site's own stores, that of the most preferred engine first where a name is there twice."""
    order = list(dict.fromkeys(formats))
    stores = Stores(tuple(Store(folder, writable=False) for folder in site.centre.stores))
    return sorted(stores.list(), key=lambda m: order.index(m.format) if m.format in order else len(order))


def tree(made: Deployment) -> dict[str, Entry]:
    """All files of a version. Raises CannotRun, UsageError."""
    if made.site.site_file is None:
        raise UsageError("there is no site file", looked_at="$KUULO_SITE, /etc/kuulo/site.toml", do="kuulo site init")
    try:
        found = {**library.tree(made.folder), "site.toml": Entry(made.site.site_file.read_bytes())}
    except OSError as error:
        raise CannotRun(f"a file cannot be read: {error.strerror}", looked_at=str(error.filename)) from error
    for path, data in versions.pinned(made.environments).items():
        found[path] = Entry(data)
    for path, file in commands.render(made, made.folder / library.PYTHON).items():
        found[path] = Entry(file.text.encode("utf-8", "surrogateescape"), file.mode)
    for folder, render in TARGETS.items():
        for path, file in render(made).items():
            found[f"{folder}/{path}"] = Entry(file.text.encode("utf-8", "surrogateescape"), file.mode)
    return found


def builds(made: Deployment) -> list[Path]:
    """The folders of the builds that a version uses."""
    return [environment.folder for environment in made.environments.values()]
