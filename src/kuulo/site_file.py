"""The site's file: every key that it may have. What people read of it (`kuulo site init`, the reference) is made from
the tables here.

    name = "Example Centre"                 # how messages and help call the centre
    stores = ["/appl/kuulo/models"]
    images = "/appl/kuulo/images"

    [deploy]
    folder = "/appl/kuulo"
    modules = "/appl/modulefiles"

    [jobs.cpu]
    partition = "batch"
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo import settings_file
from kuulo.errors import UsageError


@dataclass(frozen=True)
class Key:
    """A key. `kind`: text, path, paths, names, number, choice or table. `example` is TOML. A path is absolute."""

    kind: str
    help: str
    example: str = ""
    choices: tuple[str, ...] = ()


TOP: Mapping[str, Key] = {
    "name": Key("text", "How messages and help call the centre.", '"Example Centre"'),
    "contact": Key("text", "Whom users ask: an address or a page.", '"support@example.org"'),
    "url": Key("text", "The centre's own page about Kuulo.", '"https://docs.example.org/kuulo"'),
    "stores": Key("paths", "Read-only model stores, looked into before the user's.", '["/appl/kuulo/models"]'),
    "environments": Key(
        "paths", "Engines in virtual environments, looked into after the user's.", '["/appl/kuulo/environments"]'
    ),
    "images": Key("path", "Engines in container images (`kuulo image build`).", '"/appl/kuulo/images"'),
    "container": Key(
        "choice",
        "What starts images. Without it: the first of these that is found.",
        '"apptainer"',
        ("apptainer", "singularity", "charliecloud"),
    ),
    "scratch": Key(
        "paths",
        "Where a run keeps what it needs for a while: the first that is there and whose variables are set. Without it: "
        "the system's temporary folder.",
        '["/local/$SLURM_JOB_ID", "/scratch/$USER"]',
    ),
    "engines": Key("names", "The engines that everybody may use. Without it: all.", '["faster-whisper"]'),
    "models": Key("names", "The models of the stores that everybody may use. Without it: all.", '["medium"]'),
    "speeds": Key("path", "What `kuulo calibrate` measured on the nodes.", '"/appl/kuulo/speeds.json"'),
    "groups": Key("table", "What members of a Unix group may use beside that: `[groups.NAME]`."),
    "defaults": Key("table", "Options' values, which users may change."),
    "llm": Key("table", "Values of the options of language models, which users may change."),
    "forced": Key("table", "Options' values, which nobody can change."),
    "jobs": Key("table", "Where `kuulo submit` sends its work."),
    "image": Key("table", "From what images are made."),
    "deploy": Key("table", "Where `kuulo deploy` puts what it makes."),
    "module": Key("table", "The modules."),
    "portal": Key("table", "The apps of Open OnDemand. Without it there are none."),
}
"""The keys on top."""

GROUP: Mapping[str, Key] = {
    "engines": Key("names", "Engines that its members may use too.", '["pyannote"]'),
    "models": Key("names", "Models that its members may use too.", '["speaker-diarization-community-1"]'),
}
"""The keys of `[groups.NAME]`."""

TABLES: Mapping[str, Mapping[str, Key]] = {
    "image": {
        "engines": Key("names", "The engines that `kuulo deploy apply` makes images of.", '["faster-whisper"]'),
        "bootstrap": Key(
            "choice",
            "What the base of the images is: an image of a registry, an image or archive that is here, or a Debian "
            "that is fetched.",
            '"docker"',
            ("docker", "localimage", "debootstrap"),
        ),
        "base": Key(
            "text",
            "The base: a reference (docker), a path (localimage), or a release (debootstrap).",
            '"debian:12-slim"',
        ),
        "bundle": Key(
            "path", "Packages that `kuulo image bundle` fetched: no network is used.", '"/appl/kuulo/bundle"'
        ),
        "variant": Key(
            "choice", "For which machines. Without it: cuda where the engine has it.", '"cuda"', ("cpu", "cuda")
        ),
    },
    "deploy": {
        "folder": Key("path", "Versions, side by side, in its folder `versions`.", '"/appl/kuulo"'),
        "modules": Key("path", "A folder of the users' MODULEPATH.", '"/appl/modulefiles"'),
        "keep": Key("number", "How many versions stay.", "5"),
        "commands": Key(
            "names", "Commands with other programs' names (`kuulo shims`) that the module brings.", '["whisper"]'
        ),
    },
    "module": {
        "name": Key("text", "The name of the module.", '"kuulo"'),
        "diarization": Key("text", "The name of a module of its own for telling speakers apart.", '"kuulo-speakers"'),
        "systems": Key("names", "For which module systems: lmod, tcl, or both. Without it: lmod.", '["lmod", "tcl"]'),
        "family": Key("text", "The family: two modules of one are never loaded together.", '"kuulo"'),
        "conflicts": Key("names", "Modules that cannot be loaded beside it.", '["whisper"]'),
        "depends": Key("names", "Modules that are loaded with it.", '["apptainer"]'),
        "message": Key("text", "A line to show when it is loaded, beside what to type.", '"News: ..."'),
    },
    "portal": {
        "folder": Key("path", "The portal's folder of apps.", '"/var/www/ood/apps/sys"'),
        "cluster": Key("text", "What the portal calls the cluster.", '"mycluster"'),
        "title": Key("text", "The app's title.", '"Transcribe recordings"'),
        "category": Key("text", "Where the portal's menu has it.", '"Interactive Apps"'),
        "models": Key(
            "names", "The models that the form offers. Without it: all that everybody may use.", '["medium"]'
        ),
        "languages": Key("names", "The languages that the form has on top.", '["fi", "sv", "en"]'),
        "files": Key("path", "Where the file picker begins. Without it: the user's home.", '"/scratch"'),
        "hours": Key("number", "The most hours that a job may ask for.", "24"),
        "account": Key(
            "choice",
            "auto: the form asks on whose account the job runs, of those that the user has. Without it: as in [jobs].",
            '"auto"',
            ("auto",),
        ),
    },
}
"""The keys of the tables that have no checks elsewhere."""

KEYS = frozenset(TOP)


@dataclass(frozen=True)
class SiteFile:
    """What the site's file says, checked. `groups`: Unix group -> engines and models that its members may use too;
    `image`, `deploy`, `module`, `portal`: the tables as they are, with paths as text."""

    name: str = ""
    contact: str = ""
    url: str = ""
    stores: tuple[Path, ...] = ()
    environments: tuple[Path, ...] = ()
    images: Path | None = None
    container: str | None = None
    scratch: tuple[str, ...] = ()
    engines: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    speeds: Path | None = None
    groups: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    jobs: Mapping[str, Any] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    deploy: Mapping[str, Any] = field(default_factory=dict)
    module: Mapping[str, Any] = field(default_factory=dict)
    portal: Mapping[str, Any] = field(default_factory=dict)
    llm: Mapping[str, Any] = field(default_factory=dict)


def parse(data: Mapping[str, Any], path: Path) -> SiteFile:
    """What a file says, whose keys on top are known. Raises UsageError, which names the file and the key."""
    said = _table(data, TOP, "", path)
    groups = settings_file.table(data, "groups", path)
    for group in groups:
        settings_file.table(groups, group, path)
    return SiteFile(
        name=said.get("name", ""),
        contact=said.get("contact", ""),
        url=said.get("url", ""),
        stores=tuple(Path(p) for p in said.get("stores", ())),
        environments=tuple(Path(p) for p in said.get("environments", ())),
        images=Path(said["images"]) if "images" in said else None,
        container=said.get("container"),
        scratch=said.get("scratch", ()),
        engines=said.get("engines"),
        models=said.get("models"),
        speeds=Path(said["speeds"]) if "speeds" in said else None,
        groups={name: _table(entries, GROUP, f"groups.{name}", path) for name, entries in groups.items()},
        jobs=settings_file.table(data, "jobs", path),
        llm=settings_file.llm_values(data, path),
        **{name: _table(settings_file.table(data, name, path), keys, name, path) for name, keys in TABLES.items()},
    )


def defaults(data: Mapping[str, Any], path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """The values that options have here, by name: `[defaults]`, and the scratch folder. Raises UsageError."""
    values = settings_file.values(data, "defaults", path)
    found = scratch(_table(data, TOP, "", path).get("scratch", ()), environ)
    return ({"scratch": str(found)} if found else {}) | values


def scratch(candidates: tuple[str, ...], environ: Mapping[str, str]) -> Path | None:
    """The first of these folders that is there, whose variables ($USER, ${USER}) are set."""
    for candidate in candidates:
        names = re.findall(r"\$(?:\{(\w+)\}|(\w+))", candidate)
        if all(environ.get(braced or bare) for braced, bare in names):
            path = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: environ[m[1] or m[2]], candidate)
            if os.path.isdir(path):  # noqa: PTH112 - one that cannot be looked at is none
                return Path(path)
    return None


def _table(data: Mapping[str, Any], keys: Mapping[str, Key], where: str, path: Path) -> dict[str, Any]:
    """The values of a table, but its tables. Raises UsageError."""
    unknown = sorted(set(data) - set(keys))
    if unknown:
        raise UsageError(
            f"[{where}] in the site file has no key {unknown[0]!r}",
            looked_at=str(path),
            do=f"its keys are {', '.join(keys)}",
        )
    return {name: _value(keys[name], value, _called(where, name), path)
            for name, value in data.items() if keys[name].kind != "table"}  # fmt: skip


def _called(where: str, name: str) -> str:
    return f"{name} in [{where}]" if where else name


def _value(key: Key, value: Any, called: str, path: Path) -> Any:
    """A value of the kind that a key has. Raises UsageError."""
    wrong = f"{called} in the site file: "
    do = f"for example {called.partition(' ')[0]} = {key.example}"
    if key.kind == "number":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{wrong}{value!r} is not a whole number from 1 on", looked_at=str(path), do=do)
        return value
    if key.kind in ("paths", "names"):
        if not isinstance(value, list) or not all(_is_text(v) for v in value):
            raise UsageError(f"{wrong}it is not a list of {key.kind}", looked_at=str(path), do=f"{do}, also for one")
        if key.kind == "paths" and called != "scratch":
            for each in value:
                _absolute(each, wrong, path, do)
        return tuple(value)
    if not _is_text(value):
        raise UsageError(f"{wrong}it is not a text", looked_at=str(path), do=do)
    if key.choices and value not in key.choices:
        raise UsageError(f"{wrong}{value!r} is none of {', '.join(key.choices)}", looked_at=str(path), do=do)
    if key.kind == "path":
        _absolute(value, wrong, path, do)
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not any(ord(c) < 32 or ord(c) == 127 for c in value)


def _absolute(text: str, wrong: str, path: Path, do: str) -> None:
    if not text.startswith("/"):
        raise UsageError(f"{wrong}{text!r} is not an absolute path", looked_at=str(path), do=do)
