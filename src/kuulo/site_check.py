"""What is wrong with a site's file, beyond what reading it finds: names that nobody has, folders that are not there,
values that contradict each other. Whether the machine can do what it says is `kuulo doctor --site`'s."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kuulo import commands, engines
from kuulo.errors import KuuloError
from kuulo.models.store import Store
from kuulo.models.stores import Stores
from kuulo.site import Site

PROBLEM, WARNING = "problem", "warning"


@dataclass(frozen=True)
class Finding:
    """`where`: the key, with its table."""

    kind: str
    where: str
    what: str
    do: str = ""


def check(site: Site) -> list[Finding]:
    """All findings, in the file's order."""
    return [*_folders(site), *_engines(site), *_models(site), *_groups(site), *_jobs(site), *_deploy(site)]


def _folders(site: Site) -> Iterator[Finding]:
    centre = site.centre
    named = [
        *(("stores", path) for path in centre.stores),
        *(("environments", path) for path in centre.environments),
        *(("images", path) for path in [centre.images] if path),
    ]
    for key, path in named:
        if not path.is_dir():
            yield Finding(WARNING, key, f"{path} is not there", "make it, or leave it out")
        elif shut := closed(path):
            yield Finding(PROBLEM, key, f"users cannot read {shut}", f"chmod o+rx {shut}, or to the users' group")
    if centre.scratch and "scratch" not in site.defaults:
        looked = ", ".join(centre.scratch)
        yield Finding(WARNING, "scratch", f"none of these is there for this user on this machine: {looked}")


def closed(path: Path) -> Path | None:
    """The outermost folder on the way, links followed, that neither everybody nor a group may enter."""
    path = path.resolve()
    for folder in (*reversed(path.parents), path):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if 0o005 & ~mode and 0o050 & ~mode:
            # It is enough to pass through what lies above.
            if folder != path and mode & 0o011:
                continue
            return folder
    return None


def _engines(site: Site) -> Iterator[Finding]:
    lists: list[tuple[str, tuple[str, ...]]] = [("engines", site.centre.engines or ())]
    lists += [(f"engines in [groups.{name}]", may.get("engines", ())) for name, may in site.centre.groups.items()]
    lists += [("engines in [image]", site.centre.image.get("engines", ()))]
    lists += [(f"engine in [{t}]", (str(v["engine"]),)) for t, v in _tables(site) if v.get("engine")]
    known = engines.names()
    for where, names in lists:
        for name in names:
            if name not in known:
                yield Finding(PROBLEM, where, f"there is no engine {name!r}", f"engines: {', '.join(known)}")


def _tables(site: Site) -> list[tuple[str, dict[str, object]]]:
    return [("defaults", dict(site.defaults)), ("forced", dict(site.forced))]


def _models(site: Site) -> Iterator[Finding]:
    stores = Stores(tuple(Store(folder, writable=False) for folder in site.centre.stores))
    has = {ref.name for ref in stores.list()}
    for trouble in stores.troubles():
        yield Finding(PROBLEM, "stores", f"{trouble.path}: {trouble.problem}", "kuulo models verify")
    lists = [("models", site.centre.models or ()), ("models in [portal]", site.centre.portal.get("models", ()))]
    lists += [(f"models in [groups.{name}]", may.get("models", ())) for name, may in site.centre.groups.items()]
    for where, names in lists:
        for name in names:
            if name not in has:
                yield Finding(PROBLEM, where, f"no store of the site has {name!r}", f"kuulo models pull {name}")
    allowed = site.centre.models
    for table, values in _tables(site):
        wanted = values.get("model")
        if wanted and allowed is not None and wanted not in allowed:
            yield Finding(PROBLEM, f"model in [{table}]", f"{wanted!r} is not among `models`, so nobody may use it")


def _groups(site: Site) -> Iterator[Finding]:
    for name in site.centre.groups:
        try:
            grp.getgrnam(name)
        except KeyError:
            yield Finding(WARNING, f"[groups.{name}]", "this machine has no such group", "getent group")


def _jobs(site: Site) -> Iterator[Finding]:
    try:
        site.jobs()
    except KuuloError as error:
        yield Finding(PROBLEM, "[jobs]", error.what, error.do or "")


def _deploy(site: Site) -> Iterator[Finding]:
    centre = site.centre
    if not centre.deploy:
        return
    if "folder" not in centre.deploy:
        yield Finding(PROBLEM, "[deploy]", "it has no folder", 'folder = "/appl/kuulo"')
    for name in centre.deploy.get("commands", ()):
        try:
            commands.program(name)
        except KuuloError as error:
            yield Finding(PROBLEM, "commands in [deploy]", error.what, error.do or "")
    unknown = [name for name in centre.module.get("systems", ()) if name not in ("lmod", "tcl")]
    for name in unknown:
        yield Finding(PROBLEM, "systems in [module]", f"{name!r} is neither lmod nor tcl")
    if centre.portal and "folder" not in centre.portal:
        yield Finding(PROBLEM, "[portal]", "it has no folder", 'folder = "/var/www/ood/apps/sys"')
    folder = Path(centre.deploy.get("folder", "/"))
    if folder.exists() and not os.access(folder, os.W_OK):
        yield Finding(WARNING, "folder in [deploy]", f"you cannot write to {folder}", "deploy as who owns it")
