"""`kuulo models bundle` and `unbundle`: models to carry to a machine without a network. They become part of
`kuulo models` in models.py, which adds --format."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kuulo import miniature
from kuulo.errors import CannotRun, ModelMissing, UsageError

if TYPE_CHECKING:
    from kuulo.models.manifest import ModelRef
    from kuulo.models.store import Store
    from kuulo.models.unbundle import Taken


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--output", "-o", required=True, metavar="FILE.tar|FOLDER|-", help="What to write; - is standard output.")
@click.option("--replace", is_flag=True, help="Put it in the place of what is there.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def bundle(names: Sequence[str], output: str, format_: str | None, replace: bool, as_json: bool) -> None:
    """Write models, their manifests and digests into one file or folder, for a machine without a network.

    Without names: all models in the stores. Every file is compared with its digest. What is there already is not
    written again.

    \b
    kuulo models bundle medium -o medium.tar
    kuulo models bundle -o /media/stick/models
    kuulo models bundle medium -o - | ssh cluster kuulo models unbundle -
    """
    from kuulo.cli.models import bar
    from kuulo.models import bundle as bundles

    refs = _refs(names, format_)
    if output == "-":
        if as_json:
            raise UsageError("standard output has the bundle: there is no place for --json")
        _into_pipe(refs)
        return
    path = Path(output)
    with bar("bundling", sum(ref.bytes for ref in refs)) as advance:
        if bundles.is_tar(output) and not path.is_dir():
            new = [bundles.tar_to(path, refs, replace=replace, progress=advance)] * len(refs)
        else:
            new = bundles.folder_to(path, refs, replace=replace, progress=advance)
    _say([(ref.format, ref.name, ref.bytes, done) for ref, done in zip(refs, new, strict=True)], path, as_json)


@click.command()
@click.argument("source", metavar="FILE.tar|FOLDER|-")
@click.option("--replace", is_flag=True, help="Put models in the place of others of the same name.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def unbundle(source: str, replace: bool, as_json: bool) -> None:
    """Take the models of a bundle into your store. A model is put in place when all of it is there and right.

    Models that a store has already are passed over; so one that was cut is simply begun again.
    """
    from kuulo.cli.models import bar, stores
    from kuulo.models import unbundle as taking

    layers = stores()
    into = [*layers.layers[:-1], layers.writable]
    with bar("unbundling", None) as advance:
        if source == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise UsageError("standard input is a terminal, or closed", do="name a file, or pipe one into it")
            taken = taking.from_tar(sys.stdin.buffer, into, "standard input", replace=replace, progress=advance)
        elif Path(source).is_dir():
            taken = taking.from_folders(Path(source), into, replace=replace, progress=advance)
        else:
            taken = _from_file(Path(source), into, replace, advance)
    rows = [(one.row.format, one.row.name, one.row.bytes, one.new) for one in taken]
    _say(rows, layers.writable.folder, as_json)


def _from_file(path: Path, into: Sequence[Store], replace: bool, advance: Callable[..., None]) -> list[Taken]:
    from kuulo.models import unbundle as taking

    try:
        opened = path.open("rb")
    except OSError as error:
        raise ModelMissing(f"the bundle cannot be read: {error.strerror}", looked_at=str(path)) from error
    with opened:
        return taking.from_tar(opened, into, str(path), replace=replace, progress=advance)


def _refs(names: Sequence[str], format_: str | None) -> list[ModelRef]:
    from kuulo.cli.models import chosen, stores

    refs = [ref for ref in chosen(names, format_) if names or ref.name != miniature.NAME]
    if not refs:
        raise ModelMissing("there is no model to bundle", looked_at=str(stores()), do="kuulo models list")
    return refs


def _into_pipe(refs: Sequence[ModelRef]) -> None:
    from kuulo.cli.models import bar
    from kuulo.models import bundle as bundles

    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("standard output is a terminal, or closed", do="pipe it, or give -o FILE.tar")
    try:
        with bar("bundling", sum(ref.bytes for ref in refs)) as advance:
            bundles.write_tar(refs, sys.stdout.buffer, advance)
            sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # what is left cannot be written at the end either
        raise CannotRun(f"the bundle was cut: {error.strerror}", looked_at="standard output") from error
    for ref in refs:
        click.echo(f"{ref.name} ({ref.format}) was written", err=True)


def _say(rows: Sequence[tuple[str, str, int, bool]], where: Path, as_json: bool) -> None:
    from kuulo.cli.models import size

    if as_json:
        models = [{"format": f, "name": name, "bytes": count, "new": new} for f, name, count, new in rows]
        click.echo(json.dumps({"schema": 1, "path": str(where), "models": models}, indent=1))
        return
    for format_, name, count, new in rows:
        click.echo(f"{name} ({format_}, {size(count)}) {'is in' if new else 'was already in'} {where}")
