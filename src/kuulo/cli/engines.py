"""`kuulo engines`."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kuulo.environments.installed import Environment, Environments
    from kuulo.environments.recipe import Recipe, Variant


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def engines(context: click.Context, as_json: bool) -> None:
    """Which engines there are, which are installed, and what they can do.

    They are listed in order of preference: without --engine, the first installed one that has the model is used. After
    those that recognise words come those that tell speakers apart (--speaker-engine), then those for language models.

    An engine is installed beside Kuulo (pip), or in an environment of its own, where its packages cannot get into
    the way of another's. `kuulo engines install` makes one; it is used from then on.
    """
    if context.invoked_subcommand is None:
        _list(as_json)


@engines.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_(as_json: bool) -> None:
    """The same as `kuulo engines`."""
    _list(as_json)


def _list(as_json: bool) -> None:
    from kuulo import engines as table

    environments, broken = _environments().all()
    rows = _rows(environments, broken)
    troubles = [str(trouble) for trouble in (*table.troubles(), *broken.values())]
    if as_json:
        click.echo(json.dumps({"engines": rows, "troubles": troubles}, indent=1))
        return
    _show(rows)
    for row in rows:
        if not row["version"] and row["name"] not in broken:
            by = f"kuulo engines install {row['home']}" if row["installable"] else f"pip install {row['install']}"
            click.echo(f"{row['name']}: {by}")
    for trouble in troubles:
        click.echo(click.style(trouble, fg="yellow"), err=True)


def _show(rows: list[dict[str, Any]]) -> None:
    """Two lines for each engine: a row of a table, and what the engine is."""
    table = [("engine", "version", "where", "devices", "models")]
    for row in rows:
        devices, models = ", ".join(row["devices"]), ", ".join(row["model_formats"]) or "its own"
        table.append((row["name"], row["version"] or "not installed", _where(row), devices, models))
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    for number, line in enumerate(table):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        if number == 0:
            click.echo(click.style(text, bold=True))
            continue
        click.echo(text)
        click.echo(click.style(f"    {rows[number - 1]['summary']}", dim=True))


def _where(row: dict[str, Any]) -> str:
    if row["environment"]:
        unchecked = "" if row["environment"]["heard"] else ", unchecked"
        kind = "image" if row["environment"]["image"] else "environment"
        return f"{kind} ({row['environment']['variant']}{unchecked})"
    return "beside Kuulo" if row["version"] else ""


def _rows(environments: Mapping[str, Environment], broken: Container[str]) -> list[dict[str, Any]]:
    from kuulo import engines as table
    from kuulo.environments import recipe

    rows = []
    every = {spec.name: spec for task in ("transcribe", "diarize", "chat") for spec in table.specs(task)}
    for spec in every.values():
        version, environment = None, environments.get(spec.home)
        if environment:
            version = environment.version(spec.package) or "unknown"
        elif spec.name not in broken and table.installed(spec):
            try:
                version = importlib.metadata.version(spec.package)
            except importlib.metadata.PackageNotFoundError:  # its module is here, from somewhere else
                version = "unknown"
        rows.append(
            {
                "name": spec.name,
                "version": version,
                "tasks": list(spec.tasks),
                "summary": spec.summary,
                "devices": list(spec.devices),
                "model_formats": list(spec.model_formats),
                "options": sorted(spec.options),
                "licence": spec.licence,
                "url": spec.url,
                "install": spec.install,
                "home": spec.home,
                "installable": recipe.has(spec.home),
                "environment": environment.to_json() if environment else None,
            }
        )
    return rows


def _environments() -> Environments:
    from kuulo import site

    return site.load().environments()


_VARIANT = click.option(
    "--variant",
    type=click.Choice(["cpu", "cuda"]),
    help="For which machines. Without it: cuda where a GPU is visible. On a login node without one: --variant cuda.",
)
_PYTHON = click.option("--python", metavar="PATH|VERSION", help="Python of the environment. None is ever fetched.")
_INDEX = click.option("--index", metavar="URL", help="Package index instead of PyPI; it must have everything.")
_FIND_LINKS = click.option(
    "--find-links", multiple=True, metavar="FOLDER|URL", help="Wheels beside the index; may be given several times."
)


@engines.command()
@click.argument("name")
@_VARIANT
@_PYTHON
@_INDEX
@_FIND_LINKS
@click.option(
    "--from", "bundle", type=click.Path(path_type=Path), metavar="BUNDLE",
    help="Folder that `kuulo engines bundle` wrote. No network is used.",
)  # fmt: skip
@click.option(
    "--lock", type=click.Path(path_type=Path), metavar="FILE",
    help="Packages of your own choice, as pip's requirements, instead of Kuulo's lock.",
)  # fmt: skip
@click.option(
    "--unchecked", is_flag=True,
    help="Do not have it transcribe, where it cannot: on a login node, an engine that needs a GPU.",
)  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def install(
    name: str,
    variant: str | None,
    python: str | None,
    index: str | None,
    find_links: tuple[str, ...],
    bundle: Path | None,
    lock: Path | None,
    unchecked: bool,
    quiet: bool,
) -> None:
    """Make an environment for an engine, have it transcribe a clip or answer, and use it from then on.

    The packages are those of Kuulo's lock, each with its digest. One that is there already is replaced when the new one
    works; until then it stays in use.

    \b
    kuulo engines install openai-whisper
    kuulo engines install faster-whisper --variant cuda
    kuulo engines install whisper-cpp --from /media/stick/bundle
    """
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.environments import bundle as bundles
    from kuulo.environments import health
    from kuulo.environments.install import install as make
    from kuulo.environments.sources import Sources
    from kuulo.errors import UsageError

    if bundle and (index or find_links or lock or variant):
        raise UsageError("--from brings its own packages", do="leave --index, --find-links, --lock and --variant out")
    stop_when_told()
    recipe = _recipe(name)
    part = bundles.read(bundle, name) if bundle else None
    chosen = _variant(recipe, part.variant if part else variant)
    sources = Sources(index, find_links, part)
    environments = _environments()
    check = None if unchecked else health.check
    made = make(environments, recipe, chosen, check, sources, python=python, lock=lock, shown=not quiet)
    click.echo(f"{name} {_version(made)} ({made.variant}) is installed, and used from now on")
    click.echo(f"  {made.heard or f'not checked: kuulo engines check {name}, where it can run'}")
    click.echo(f"  {made.folder}")
    if recipe.note:
        click.echo(f"  {recipe.note}")


@engines.command()
@click.argument("name")
@_VARIANT
@_PYTHON
@_INDEX
@_FIND_LINKS
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
    help="The bundle; other engines may be in it already.",
)  # fmt: skip
def bundle(
    name: str, variant: str | None, python: str | None, index: str | None, find_links: tuple[str, ...], output: Path
) -> None:
    """Fetch all that an engine's environment is made of into a folder, for a machine without a network.

    \b
    kuulo engines bundle openai-whisper -o bundle        where there is a network
    kuulo engines install openai-whisper --from bundle   where there is none
    """
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.environments import bundle as bundles
    from kuulo.environments.sources import Sources

    stop_when_told()
    recipe = _recipe(name)
    chosen = _variant(recipe, variant)
    made = bundles.write(output, recipe, chosen, Sources(index, find_links).pip_flags(chosen), python)
    click.echo(f"{name} ({made.variant}, Python {made.python}, {made.machine}) is in {output}")
    click.echo(f"  kuulo engines install {name} --from {output}")


@engines.command()
@click.argument("name")
@click.option("--engine-option", "engine_options", multiple=True, metavar="KEY=VALUE",
              help="What the engine cannot do without, as whisper-diarization's hf_home. May be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def check(name: str, engine_options: tuple[str, ...], as_json: bool) -> None:
    """Have an engine's environment transcribe a clip, or answer, offline."""
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.environments import health

    stop_when_told()
    environment = _installed(name)
    said = health.check(environment, engine_options)
    if as_json:
        click.echo(json.dumps({"engine": name, "said": said, "environment": environment.to_json()}, indent=1))
        return
    click.echo(f"{name} {_version(environment)} works: {said}")


@engines.command()
@click.argument("name")
def path(name: str) -> None:
    """The folder of an engine's environment, a virtual environment like any other."""
    click.echo(_installed(name).folder)


@engines.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> None:
    """Remove an engine's environment. Programs that use it at this moment may fail."""
    from kuulo.environments import installed
    from kuulo.errors import CannotRun, UsageError

    _recipe(name)
    home = _environments().writable / name
    if not home.is_dir():
        raise UsageError(f"{name} has no environment here", looked_at=str(home), do="kuulo engines list")
    if not yes:
        click.confirm(f"Remove {home}?", abort=True, err=True)
    try:
        installed.remove(home)
    except OSError as error:
        raise CannotRun(f"it cannot be removed: {error.strerror}", looked_at=str(error.filename or home)) from error
    click.echo(f"removed {home}")


def _recipe(name: str) -> Recipe:
    from kuulo import plan
    from kuulo.environments import recipe
    from kuulo.errors import UsageError

    spec = plan.known_engine(name, task=None)
    if not recipe.has(name):
        raise UsageError(
            f"no environment is known for {name}",
            looked_at=", ".join(recipe.names()),
            do=f"pip install {spec.install}, beside Kuulo",
        )
    return recipe.read(name)


def _variant(recipe: Recipe, name: str | None) -> Variant:
    from kuulo import machine

    return recipe.variant(name, gpu=machine.gpus() > 0)


def _installed(name: str) -> Environment:
    from kuulo.errors import EngineMissing

    _recipe(name)
    environments = _environments()
    found = environments.find(name)
    if found is None:
        raise EngineMissing(
            f"{name} has no environment",
            looked_at=", ".join(str(folder) for folder in environments.folders),
            do=f"kuulo engines install {name}",
        )
    return found


def _version(environment: Environment) -> str:
    from kuulo import engines as table

    return environment.version(table.spec(environment.engine).package) or ""
