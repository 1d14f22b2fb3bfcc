"""`kuulo shims`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def shims() -> None:
    """Small commands with the names of whisper, whisperx and others, which call `kuulo as`.

    None is there unless you install it, and no real program is replaced.
    """


@shims.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, metavar="[NAME]...")
def install(folder: Path, names: tuple[str, ...]) -> int:
    """Write them into FOLDER: all, or those that are named."""
    from kuulo import naming
    from kuulo.commands import shims as work

    for shim in work.install(folder, names):
        also = f" (there is a real one: {naming.shown(shim.hides)})" if shim.hides else ""
        click.echo(f"{naming.shown(shim.path)}{also}")
    return 0


@shims.command(name="list")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def list_(folder: Path | None) -> int:
    """Show those in FOLDER, or those on the PATH."""
    from kuulo import naming
    from kuulo.commands import shims as work

    for shim in work.find(folder):
        click.echo(naming.shown(shim.path))
    return 0


@shims.command()
@click.argument("folder", type=click.Path(path_type=Path))
def remove(folder: Path) -> int:
    """Take those in FOLDER away. What else is there stays."""
    from kuulo import naming
    from kuulo.commands import shims as work

    for shim in work.remove(folder):
        click.echo(f"removed {naming.shown(shim.path)}")
    return 0
