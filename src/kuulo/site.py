"""Settings, in layers. What comes later in this list wins:

    1. built in (options.py)
    2. the site's file: $KUULO_SITE, else /etc/kuulo/site.toml
    3. the user's file: $XDG_CONFIG_HOME/kuulo/config.toml
    4. the environment: KUULO_MODEL, KUULO_LANGUAGE, ...
    5. flags

A site may also force a value: then nobody else can set another. Both files are TOML. `[defaults]`, `[llm]` (see
llm/options.py) and `[jobs]` (see jobs/settings.py) may be in either; all else is the site file's alone, whose keys are
in `site_file.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuulo import options, settings_file, site_file
from kuulo.errors import UsageError
from kuulo.site_file import SiteFile

if TYPE_CHECKING:
    from kuulo.environments.installed import Environments
    from kuulo.jobs.folder import Jobs
    from kuulo.jobs.settings import JobSettings

SITE_FILE = Path("/etc/kuulo/site.toml")
PINNED = "pinned"


@dataclass(frozen=True)
class Site:
    """What the files say. `user` and `defaults` are values by option name, parsed. `centre`: what else the site's file
    says."""

    site_file: Path | None = None
    user_file: Path | None = None
    centre: SiteFile = field(default_factory=SiteFile)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    forced: Mapping[str, Any] = field(default_factory=dict)
    user: Mapping[str, Any] = field(default_factory=dict)
    user_jobs: Mapping[str, Any] = field(default_factory=dict)
    user_llm: Mapping[str, Any] = field(default_factory=dict)

    def jobs(self) -> JobSettings:
        """What is said of jobs. Raises UsageError."""
        from kuulo.jobs import settings as jobs

        return jobs.settings(self.centre.jobs, self.user_jobs, f"{self.site_file or ''} {self.user_file or ''}".strip())

    def speeds_file(self) -> Path:
        """The user's table of what was measured."""
        return user_state_folder() / "speeds.json"

    def jobs_folder(self) -> Jobs:
        """The user's jobs."""
        from kuulo.jobs import settings as jobs
        from kuulo.jobs.folder import Jobs

        return Jobs(jobs.jobs_folder(self.jobs(), os.environ, user_state_folder()))

    def model_stores(self) -> Any:
        """The model stores, as `models.stores.Stores`."""
        from kuulo.models import stores

        return stores.stores_from(os.environ, self.centre.stores, user_data_folder(), user_cache_folder())

    def environments(self) -> Environments:
        """The engines' environments."""
        from kuulo.environments import installed

        # A deployed version has its builds named beside its site file: those that it was tested with.
        pinned = [self.site_file.parent / PINNED] if self.site_file else []
        folders = [*pinned, *self.centre.environments, *filter(None, [self.centre.images])]
        return installed.environments_from(os.environ, folders, user_data_folder())


@dataclass(frozen=True)
class Settings:
    """Every option's value and who decided it: "built in", "site", "user", "environment", "flag" or "forced"."""

    values: Mapping[str, Any]
    origin: Mapping[str, str]

    def given(self) -> dict[str, Any]:
        """The options that somebody decided."""
        return {k: v for k, v in self.values.items() if self.origin[k] != "built in"}


def load(environ: Mapping[str, str] = os.environ) -> Site:
    """The site's and the user's files, where there are any; raises UsageError for a file that is not understood."""
    named = environ.get("KUULO_SITE")
    path = Path(named) if named else SITE_FILE
    user_file = user_config_folder() / "config.toml"
    said = settings_file.read(path, site_file.KEYS, required=bool(named))
    user = settings_file.read(user_file, {"defaults", "jobs", "llm"}, required=False)
    return Site(
        site_file=path if said is not None else None,
        user_file=user_file if user is not None else None,
        centre=site_file.parse(said or {}, path),
        defaults=site_file.defaults(said or {}, path, environ),
        forced=settings_file.values(said or {}, "forced", path),
        user=settings_file.values(user or {}, "defaults", user_file),
        user_jobs=settings_file.table(user or {}, "jobs", user_file),
        user_llm=settings_file.llm_values(user or {}, user_file),
    )


def settle(site: Site, flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Every option's value from all layers. `flags` has those that were typed. Raises UsageError for a value that
    cannot be, and for one that is not the site's when the site forces it."""
    layers = (
        ("site", site.defaults),
        ("user", site.user),
        ("environment", from_environment(environ)),
        ("flag", flags),
    )
    return settled(options.OPTIONS, layers, site.forced, str(site.site_file))


def settled(
    table: Sequence[options.Option],
    layers: Sequence[tuple[str, Mapping[str, Any]]],
    forced: Mapping[str, Any] | None = None,
    by: str = "",
) -> Settings:
    """The value of every option of a table: that of the last layer that has one, or what is `forced` `by` a file."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for option in table:
        values[option.name], origin[option.name] = options.parse(option, option.default), "built in"
        for layer, given in layers:
            if option.name in given:
                values[option.name] = options.parse(option, given[option.name])
                origin[option.name] = layer
        if forced and option.name in forced:
            wanted = forced[option.name]
            if origin[option.name] in ("environment", "flag") and values[option.name] != wanted:
                raise UsageError(
                    f"{option.flags[0].split('/')[0]} is set by this site to {wanted!r} and cannot be "
                    f"{values[option.name]!r}",
                    looked_at=by,
                )
            values[option.name], origin[option.name] = wanted, "forced"
    return Settings(values, origin)


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The options that KUULO_* variables set. An empty variable sets nothing."""
    return {o.name: environ[o.variable] for o in options.OPTIONS if environ.get(o.variable)}


def user_config_folder() -> Path:
    """Where the user's settings are."""
    import platformdirs

    return platformdirs.user_config_path("kuulo")


def user_data_folder() -> Path:
    """Where the user's models are, in its folder `models`."""
    import platformdirs

    return platformdirs.user_data_path("kuulo")


def user_state_folder() -> Path:
    """Where jobs and what was measured are kept."""
    import platformdirs

    return platformdirs.user_state_path("kuulo")


def user_cache_folder() -> Path:
    """Where what can be made again is kept."""
    import platformdirs

    return platformdirs.user_cache_path("kuulo")
