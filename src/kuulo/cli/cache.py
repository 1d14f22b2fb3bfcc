"""`kuulo cache`: what other tools left in a home."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.errors import EXIT_SOME_FAILED, UsageError

if TYPE_CHECKING:
    from kuulo.leftovers import Leftover

_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.group()
def cache() -> None:
    """What other tools left in your home: models, compiled kernels, packages.

    Kuulo's own runs leave nothing there. Whisper, Hugging Face, PyTorch, NeMo, Triton, CUDA, ollama, pip and others do;
    variables that put their caches elsewhere, such as HF_HOME, are followed.

    \b
    kuulo cache list
    kuulo cache purge whisper huggingface-hub
    kuulo cache purge --all --dry-run
    """


@cache.command("list")
@_json
def list_(as_json: bool) -> None:
    """The caches that hold something, the largest first; those that no `--all` removes last."""
    from kuulo import caches, leftovers

    found = leftovers.find()
    if as_json:
        total = sum(one.disk_bytes for one in found)
        answer = {"schema": 1, "disk_bytes": total, "caches": [_row(one) for one in found]}
        click.echo(json.dumps(answer, indent=1))
        return
    if not found:
        click.echo("no caches of other tools")
        return
    lines = [("name", "on disk", "files", "last used", "what it is", "where")]
    for one in found:
        lines.append((one.name, _size(one.disk_bytes), f"{one.files:,}", _day(one), _holds(one), str(one.path)))
    _show(lines)
    for one in found:
        for note in _notes(one):
            click.echo(f"{click.style('note:', fg='yellow')} {one.name}: {note}", err=True)
    removable = [one for one in found if one.cache.kind != caches.KEPT]
    click.echo(f"\n{_size(sum(one.disk_bytes for one in removable))} can be removed: kuulo cache purge NAME, or --all")
    for kind, meaning in caches.KINDS.items():
        if any(one.cache.kind == kind for one in found):
            click.echo(f"{kind}: {meaning}")


@cache.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All but tokens, keys, settings and history.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
def purge(names: Sequence[str], everything: bool, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove caches of other tools, by their names in `kuulo cache list`.

    Tokens, keys, settings and history are removed only when they are named. Links are not followed, and nothing of
    Kuulo's is removed.
    """
    from kuulo import leftovers
    from kuulo import purge as purging

    if not names and not everything:
        raise UsageError("which caches?", do="kuulo cache list, then name some, or give --all")
    found = purging.chosen(leftovers.find(), names, everything=everything)
    kuulos = _kuulos()
    rows: list[dict[str, Any]] = []
    going: list[Leftover] = []
    for one in found:
        refused = purging.refusal(one, kuulos)
        if refused:
            rows.append({**_row(one), "removed": False, "why": refused[0]})
            click.echo(f"{click.style('stays:', fg='yellow')} {one.name}: {refused[0]}\n  {refused[1]}", err=True)
        else:
            going.append(one)
    _say_what_goes(going)
    if going and not dry_run:
        _ask(going, yes)
    code = EXIT_SOME_FAILED if rows else 0
    for one in going:
        if dry_run:
            rows.append({**_row(one), "removed": False, "why": "dry run"})
            continue
        done = purging.remove(one)
        for problem in done.problems:
            click.echo(f"{click.style('stays:', fg='yellow')} {problem}", err=True)
        code = EXIT_SOME_FAILED if done.problems else code
        freed = {"freed_bytes": done.disk_bytes, "removed_files": done.files, "problems": done.problems}
        rows.append({**_row(one), "removed": not done.problems, **freed})
    _say_what_went(rows, going, dry_run=dry_run, as_json=as_json)
    return code


def _say_what_goes(going: Sequence[Leftover]) -> None:
    from kuulo import leftovers

    used = leftovers.users(one.path for one in going)
    for one in going:
        click.echo(f"{one.name}: {_size(one.disk_bytes)}, {_files(one.files)} in {one.path}; {_holds(one)}", err=True)
        for note in _notes(one):
            click.echo(f"  {note}", err=True)
        for path, process in used:
            if path == one.path:
                who = f"{process.name} (process {process.pid}) uses {process.path}"
                click.echo(f"  {click.style('in use:', fg='red')} {who}", err=True)


def _ask(going: Sequence[Leftover], yes: bool) -> None:
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nothing was removed: there is no terminal to ask on", do="give --yes, or --dry-run to see")
    total = _size(sum(one.disk_bytes for one in going))
    click.confirm(f"Remove {total} for good?", abort=True, err=True)


def _say_what_went(rows: list[dict[str, Any]], going: Sequence[Leftover], *, dry_run: bool, as_json: bool) -> None:
    freed = sum(row.get("freed_bytes", 0) for row in rows)
    if as_json:
        click.echo(json.dumps({"schema": 1, "dry_run": dry_run, "freed_bytes": freed, "caches": rows}, indent=1))
    elif dry_run:
        click.echo(f"would remove {_size(sum(one.disk_bytes for one in going))}; nothing was removed")
    elif not rows:
        click.echo("nothing to remove")
    else:
        files = sum(row.get("removed_files", 0) for row in rows)
        click.echo(f"{_size(freed)} came free, {_files(files)} removed")


def _kuulos() -> list[Path]:
    """Folders of Kuulo's own, and the files elsewhere that models in its stores are links to."""
    from kuulo import site

    settings = site.load()
    stores = settings.model_stores()
    layers = [*stores.layers, *filter(None, [stores.spare])]
    linked = [
        path.resolve()
        for layer in layers
        for ref in layer.list()[0]
        for path in (ref.folder / file.path for file in ref.files)
        if path.is_symlink()
    ]
    folders = [site.user_data_folder(), site.user_state_folder(), site.user_cache_folder(), site.user_config_folder()]
    return [*(layer.folder for layer in layers), *settings.environments().folders, *folders, *linked]


def _row(one: Leftover) -> dict[str, Any]:
    import datetime

    when = datetime.datetime.fromtimestamp(one.last_used, datetime.UTC) if one.last_used is not None else None
    return {
        "name": one.name,
        "library": one.cache.library,
        "holds": one.cache.holds,
        "kind": one.cache.kind,
        "path": os.fsencode(one.path).decode("utf-8", "replace"),
        "variable": one.cache.variable or None,
        "bytes": one.bytes,
        "disk_bytes": one.disk_bytes,
        "files": one.files,
        "last_used": when.isoformat(timespec="seconds") if when else None,
        "link": str(one.link) if one.link else None,
        "yours": one.yours,
        "unreadable": list(one.unreadable),
    }


def _holds(one: Leftover) -> str:
    return f"{one.cache.library}: {one.cache.holds} ({one.cache.kind})"


def _notes(one: Leftover) -> list[str]:
    notes = [f"cannot be read: {path}" for path in one.unreadable]
    if one.link:
        notes.append(f"{one.link} is a link to {os.path.realpath(one.link)}, and is not followed")
    if not one.yours:
        notes.append("it belongs to another user")
    return notes


def _day(one: Leftover) -> str:
    import datetime

    if one.last_used is None:
        return "-"
    return datetime.datetime.fromtimestamp(one.last_used).astimezone().date().isoformat()


def _size(count: int) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} bytes"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _show(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]
        text = "  ".join(cells).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)
