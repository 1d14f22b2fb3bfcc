"""`kuulo image`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from kuulo.environments.installed import Environment
    from kuulo.site import Site

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def image() -> None:
    """Container images of engines, for Apptainer, Singularity and charliecloud.

    An image has an engine's locked packages and Kuulo's command line, and no models. Once it is built, runs use it.
    """


def _made_from(function: F) -> F:
    """The options that say from what an image is made; the site's file has them too, in [image]."""
    for option in (
        click.option(
            "--variant", type=click.Choice(["cpu", "cuda"]), help="For which machines. Without it: cuda, if any."
        ),
        click.option(
            "--from", "bundle", type=click.Path(path_type=Path), metavar="BUNDLE",
            help="Folder that `kuulo image bundle` wrote. No network is used for packages.",
        ),
        click.option(
            "--base", metavar="BASE", help="A reference (docker), a path (localimage), or a release (debootstrap).",
        ),
        click.option(
            "--bootstrap", type=click.Choice(["docker", "localimage", "debootstrap"]),
            help="What the base is. Without it: docker where Apptainer is, else debootstrap; localimage for a path.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


@image.command()
@click.argument("engine")
@_made_from
@click.option("--format", "format_", type=click.Choice(["sif", "squashfs"]), help="Without it: what is at hand makes.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE",
    help="Into a file of its own (.sif or .squashfs), instead of the folder of images.",
)  # fmt: skip
@click.option(
    "--unchecked", is_flag=True,
    help="Do not have it transcribe, where it cannot: on a login node, an engine that needs a GPU.",
)  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def build(
    engine: str, format_: str | None, output: Path | None, unchecked: bool, quiet: bool, **made_from: Any
) -> None:
    """Build an engine's image, have it transcribe a clip, and use it from then on.

    With Apptainer, or else with charliecloud and squashfs-tools. An older image is replaced when the new one works.

    \b
    kuulo image build faster-whisper --variant cuda
    kuulo image build whisper-cpp --base base.tar --from bundle
    kuulo image build whisper-cpp --bootstrap debootstrap -o whisper-cpp.sif
    """
    from kuulo import site
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.deploy import building, images
    from kuulo.environments import health

    stop_when_told()
    files = site.load()
    definition, contents = images.wanted(files, engine, **made_from)
    check = None if unchecked else health.check
    how: dict[str, Any] = {"format_": format_, "starter": files.centre.container, "shown": not quiet}
    if output:
        made = building.build_file(output, definition, contents, check, **how)
    else:
        made = building.build(images.folder(files), definition, contents, check, **how)
    assert made.image_path is not None
    size = made.image_path.stat().st_size
    click.echo(f"{engine} {definition.labels['kuulo.engine.version']} ({made.variant}) is built: {size / 1e6:.0f} MB")
    click.echo(f"  {made.heard or f'not checked: kuulo image test {engine}, where it can run'}")
    click.echo(f"  {made.image_path}")


@image.command()
@click.argument("engine")
@_made_from
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Write it there, as image.def, with the files that it copies.",
)  # fmt: skip
def definition(engine: str, output: Path | None, **made_from: Any) -> None:
    """The definition file, as `apptainer build` takes it.

    \b
    kuulo image definition faster-whisper --base debian:12-slim
    kuulo image definition faster-whisper -o faster-whisper
    cd faster-whisper && apptainer build faster-whisper.sif image.def
    """
    from kuulo import site
    from kuulo.deploy import building, images
    from kuulo.errors import CannotRun

    wanted, contents = images.wanted(site.load(), engine, **made_from)
    if output is None:
        click.echo(wanted.text(), nl=False)
        return
    try:
        output.mkdir(parents=True)
        building.lay_out(output, wanted, contents)
    except OSError as error:
        raise CannotRun(
            f"the definition cannot be written: {error.strerror}", looked_at=str(error.filename), do="name a new folder"
        ) from error
    click.echo(f"cd {output} && apptainer build {engine}.sif image.def")


@image.command()
@click.argument("engine")
@click.option("--variant", type=click.Choice(["cpu", "cuda"]), help="For which machines.")
@click.option("--python", metavar="PATH|VERSION", help="A Python of the base's version, such as 3.11.")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="The bundle.")
def bundle(engine: str, variant: str | None, python: str | None, output: Path) -> None:
    """Fetch the packages of an image into a folder, for `kuulo image build --from` where there is no network.

    \b
    kuulo image bundle faster-whisper --variant cuda --python 3.11 -o bundle
    """
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.deploy.definition import COMMAND_LINE
    from kuulo.environments import bundle as bundles
    from kuulo.environments import recipe
    from kuulo.environments.sources import Sources

    stop_when_told()
    for chosen, name in ((recipe.read(engine), variant), (COMMAND_LINE, None)):
        part = chosen.variant(name, gpu=True)
        made = bundles.write(output, chosen, part, Sources().pip_flags(part), python)
        click.echo(f"{chosen.engine} ({made.variant}, Python {made.python}, {made.machine}) is in {output}")
    click.echo(f"  kuulo image build {engine} --from {output}")


@image.command()
@click.argument("engine")
@click.option("--image", "file", type=click.Path(path_type=Path), metavar="FILE", help="Instead of the one in use.")
@click.option("--gpu", is_flag=True, help="Also fail when no GPU can be used from inside.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def test(engine: str, file: Path | None, gpu: bool, as_json: bool) -> None:
    """Have an image transcribe a clip, offline: as a run does, and by its own %test.

    \b
    kuulo image test faster-whisper
    kuulo image test faster-whisper --gpu
    """
    from kuulo import site
    from kuulo.cli.transcribe import stop_when_told
    from kuulo.deploy import building
    from kuulo.environments import health
    from kuulo.runtimes.container import works_on_gpu

    stop_when_told()
    files = site.load()
    starter = files.centre.container
    found = building.of_file(engine, file, starter) if file else _built(files, engine)
    said = {"engine": engine, "image": str(found.image_path)}
    if gpu:  # it takes no time
        said["gpu"] = works_on_gpu(found, starter)
    said["heard"] = health.check(found)
    said["test"] = building.inside(found, ["/bin/sh", "/.singularity.d/test"], starter).strip()
    if as_json:
        click.echo(json.dumps(said, indent=1))
        return
    click.echo(f"{engine} in {said['image']} works: {said['heard']}")
    click.echo(f"  its %test: {said['test']}")
    if gpu:
        click.echo(f"  GPU: {said['gpu']}")


@image.command()
@click.argument("engine")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def inspect(engine: str, as_json: bool) -> None:
    """What an image is: labels, digests, packages, what it heard, and how large it is."""
    from kuulo import site
    from kuulo.deploy import building

    found = _built(site.load(), engine)
    said = building.told(found)
    if as_json:
        click.echo(json.dumps(said, indent=1))
        return
    for name in ("image", "bytes", "sha256", "python", "heard"):
        click.echo(f"{name}: {said[name]}")
    for name, value in said["labels"].items():
        click.echo(f"{name}: {value}")
    click.echo("packages: " + ", ".join(f"{name} {version}" for name, version in sorted(said["packages"].items())))


@image.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_(as_json: bool) -> None:
    """The engines that have an image here."""
    from kuulo import site

    found, broken = site.load().environments().all()
    images = {name: one for name, one in found.items() if one.image_path}
    if as_json:
        rows = [{**one.to_json(), "path": str(one.image_path)} for one in images.values()]
        click.echo(json.dumps({"images": rows, "troubles": [str(error) for error in broken.values()]}, indent=1))
        return
    for name, one in images.items():
        click.echo(f"{name}  {one.variant}  Kuulo {one.kuulo}  {one.installed}  {one.image_path}")
    for error in broken.values():
        click.echo(click.style(str(error), fg="yellow"), err=True)
    if not images:
        click.echo("no images; to make one: kuulo image build ENGINE")


def _built(files: Site, engine: str) -> Environment:
    from kuulo.deploy import images
    from kuulo.environments.installed import Environments
    from kuulo.errors import EngineMissing

    images.known(engine)
    folders = Environments((images.folder(files), *files.environments().folders))
    for folder in folders.folders:
        found = Environments((folder,)).find(engine)
        if found and found.image_path:
            return found
    raise EngineMissing(
        f"{engine} has no image here",
        looked_at=", ".join(str(folder) for folder in folders.folders),
        do=f"kuulo image build {engine}",
    )
