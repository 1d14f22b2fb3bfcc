"""`kuulo models`: what is in the stores, and how more comes in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo import miniature
from kuulo.cli import bundles
from kuulo.errors import EXIT_CANNOT_RUN, ModelMissing, UsageError

if TYPE_CHECKING:
    from kuulo.engines.base import EngineSpec
    from kuulo.models.manifest import ModelRef
    from kuulo.models.stores import Stores
    from kuulo.models.verifying import Verified

FORMAT_NAMES = ("ct2", "ggml", "gguf", "hf", "hf-text", "nemo", "onnx", "pt", "pyannote", "speakers-onnx")

_format = click.option("--format", "format_", type=click.Choice(FORMAT_NAMES), help="Format of the files.")
_json = click.option("--json", "as_json", is_flag=True, help="For machines.")
_replace = click.option("--replace", is_flag=True, help="Put it in the place of what the store has.")


@click.group()
def models() -> None:
    """Models: which there are, and how they come into the store.

    \b
    kuulo models list --catalog      what can be pulled
    kuulo models pull small          from the network: the only command that uses it
    kuulo models pull speakers       a pipeline that tells speakers apart
    kuulo models add ./my-model      a folder or file that you have
    kuulo models bundle -o FILE.tar  models to carry to a machine without a network
    """


models.add_command(_format(bundles.bundle))
models.add_command(bundles.unbundle)


@models.command("list")
@click.option("--catalog", is_flag=True, help="What could be pulled, instead of what is here.")
@_json
def list_(catalog: bool, as_json: bool) -> None:
    """The models in the stores, the best defaults first."""
    if catalog:
        _show_catalog(as_json)
        return
    layers = stores()
    rows = [_row(ref) for ref in layers.list()]
    troubles = layers.troubles()
    if as_json:
        bad = [{"path": str(t.path), "problem": t.problem} for t in troubles]
        folders = [{"path": str(s.folder), "writable": s.writable} for s in layers.layers]
        own = {"name": miniature.NAME, "bytes": miniature.size(), "note": miniature.NOTE}
        answer = {"schema": 1, "models": rows, "built_in": [own], "stores": folders, "problems": bad}
        click.echo(json.dumps(answer, indent=1))
        return
    if rows:
        _table(
            ("name", "task", "format", "engines", "size", "about", "licence", "where"),
            [
                (
                    r["name"],
                    r["task"],
                    r["format"],
                    ", ".join(r["engines"]),
                    size(r["bytes"]),
                    _about(r),
                    r["licence"],
                    r["store"],
                )
                for r in rows
            ],
        )
    else:
        click.echo(f"no models in {layers}\nkuulo models pull small", err=True)
    click.echo(f"built in: {miniature.NAME}, {size(miniature.size())}. {miniature.NOTE}")
    for trouble in troubles:
        click.echo(f"{click.style('broken:', fg='yellow')} {trouble.path}: {trouble.problem}", err=True)


@models.command()
@click.argument("name")
@_format
def path(name: str, format_: str | None) -> None:
    """Print where a model is: its folder, or its file."""
    click.echo(str(stores().resolve(name, (format_,) if format_ else _formats()).path))


@models.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Its name in the store; without it, from the path.")
@_format
@click.option("--link", is_flag=True, help="Link to the files instead of copying them.")
@_replace
@_json
def add(path: Path, name: str | None, format_: str | None, link: bool, replace: bool, as_json: bool) -> None:
    """Put a model folder or file of yours into the store. Its format is found out, and its files are checked."""
    from kuulo.models import adding

    with bar("adding", _bytes_in(path)) as advance:
        ref = adding.add(
            stores().writable, path, name=name, format_=format_, link=link, replace=replace, progress=advance
        )
    _say_added(ref, as_json)


@models.command()
@click.argument("name")
@_format
@click.option("--engine", help="Take the format that this engine reads.")
@click.option("--revision", help="Commit, tag or branch, instead of the catalogue's commit.")
@click.option("--name", "rename", help="Its name in the store.")
@_replace
@_json
def pull(
    name: str,
    format_: str | None,
    engine: str | None,
    revision: str | None,
    rename: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Bring a model from the network into the store.

    NAME is one of `kuulo models list --catalog`, or a Hugging Face repository ORG/NAME, or a file ORG/NAME/FILE.gguf.
    A pull that was cut goes on
    where it stopped. Every file is compared with the digests that the catalogue and the server say. The built-in
    model, miniature, is written without a network.
    """
    from kuulo.models import pull as puller

    if engine and format_:
        raise UsageError("give --engine or --format, not both")
    if engine:
        format_ = _format_for(engine, name)
    if name == miniature.NAME:
        if revision or rename:
            raise UsageError(f"{name} is built in: it has one revision and one name", do="leave the option out")
        _say_added(_write_built_in(format_, replace=replace), as_json)
        return
    with bar("pulling", None) as advance:
        ref = puller.pull(
            name,
            stores().writable,
            format_,
            revision=revision,
            rename=rename,
            replace=replace,
            progress=_steps(advance),
            notice=lambda text: click.echo(text, err=True),
        )
    _say_added(ref, as_json)


@models.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_format
@click.option(
    "--since",
    "days",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Read only what was not read and right in so many days, or changed since; remember what is read.",
)
@click.option(
    "--threads", type=click.IntRange(1, 64), help="How many files to read at a time; default: as cores, up to 8."
)
@_json
def verify(names: Sequence[str], format_: str | None, days: float | None, threads: int | None, as_json: bool) -> int:
    """Read every file again and compare it with the digest in the manifest. Without names: all models.

    With --since, files that were right are remembered, one by one: the same command goes on where one was stopped, and
    --since 30 reads what was not read in a month. A file that was written to since is always read.
    """
    import time

    from kuulo import machine, site
    from kuulo.models import verifying

    refs = chosen(names, format_)
    marks = verifying.Marks(site.user_state_folder() / "verified.jsonl" if days is not None else None)
    after = time.time() - days * 86_400 if days is not None else float("inf")
    threads = threads or min(machine.cores(), verifying.MOST_THREADS)
    good, rows = True, []
    try:
        with bar("verifying", sum(ref.bytes for ref in refs)) as advance:
            for one in verifying.verify(refs, marks, after=after, threads=threads, progress=advance):
                good = good and one.sound
                rows.append(_verified_row(one))
                if not as_json:
                    _say_verified(one)
    except KeyboardInterrupt:
        if days is not None:
            click.echo("what was right so far is remembered: the same command goes on from here", err=True)
        raise
    if as_json:
        click.echo(json.dumps({"schema": 1, "ok": good, "models": rows}, indent=1))
    if marks.trouble:
        click.echo(f"what was right is not remembered: {marks.path}: {marks.trouble.strerror}", err=True)
    return 0 if good else EXIT_CANNOT_RUN


def _verified_row(one: Verified) -> dict[str, Any]:
    files = [
        {"path": s.path, "state": s.state, "bytes": s.bytes, "read": s.path not in one.passed_over} for s in one.states
    ]
    return {**_row(one.ref), "ok": one.sound, "files": files, "problems": list(one.problems)}


def _say_verified(one: Verified) -> None:
    """At once, so that one that is stopped has told what it found."""
    import datetime

    said = "ok" if one.sound else "NOT OK"
    if one.passed_over:
        first = datetime.datetime.fromtimestamp(min(one.passed_over.values())).astimezone()
        total = len(one.ref.files)
        said += f" ({len(one.passed_over)} of {total} files not read: right on {first:%Y-%m-%d %H:%M}, unchanged)"
    click.echo(f"{one.ref.name} ({one.ref.format}): {said}")
    for state in one.states:
        if state.state != "ok":
            click.echo(f"  {state.state}: {state.path}")
    for problem in one.problems:
        click.echo(f"  {problem}")


@models.command()
@click.argument("name")
@_format
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, format_: str | None, yes: bool) -> None:
    """Delete a model from your store. The site's are not touched."""
    store = stores().writable
    formats = [f for f in ([format_] if format_ else FORMAT_NAMES) if store.place(name, f).is_dir()]
    if not formats:
        raise ModelMissing(f"your store has no model {name}", looked_at=str(store.folder), do="kuulo models list")
    if len(formats) > 1:
        raise UsageError(f"{name} is there as {', '.join(formats)}", do=f"say which: --format {formats[0]}")
    if not yes:
        click.confirm(f"Delete {store.place(name, formats[0])}?", abort=True, err=True)
    click.echo(f"deleted {store.remove(name, formats[0])}")


def _write_built_in(format_: str | None, *, replace: bool) -> ModelRef:
    from kuulo.models import built_in

    click.echo(f"{miniature.NAME} is built in: it is written from Kuulo's own files, without a network", err=True)
    return built_in.write(stores().writable, format_ or built_in.able(_formats())[0], replace=replace)


def stores() -> Stores:
    from kuulo import site

    found: Stores = site.load().model_stores()
    return found


def _formats() -> tuple[str, ...]:
    """All formats, that of the most preferred engine first."""
    preferred = [f for spec in _engines() for f in spec.model_formats]
    return tuple(dict.fromkeys((*preferred, *FORMAT_NAMES)))


def _engines() -> list[EngineSpec]:
    """The engines, best first: those that recognise words, that tell speakers apart, for language models."""
    from kuulo import engines

    return list(
        {spec.name: spec for task in ("transcribe", "diarize", "chat") for spec in engines.specs(task)}.values()
    )


def _engines_for(format_: str) -> list[str]:
    return [spec.name for spec in _engines() if format_ in spec.model_formats]


def _format_for(engine: str, name: str) -> str:
    from kuulo.models import catalog

    by_name = {spec.name: spec for spec in _engines()}
    if engine not in by_name:
        raise UsageError(f"there is no engine {engine!r}", looked_at=", ".join(by_name), do="kuulo engines")
    formats = by_name[engine].model_formats
    if not formats:
        raise UsageError(f"{engine} brings its own model: there is nothing to pull")
    entry = catalog.load().get(catalog.canonical(name))
    return next((f for f in formats if entry and f in entry.sources), formats[0])


def chosen(names: Sequence[str], format_: str | None) -> list[ModelRef]:
    from kuulo.models import catalog

    refs = [ref for ref in stores().list() if format_ in (None, ref.format)]
    if not names:
        return refs
    wanted = {catalog.canonical(name) for name in names} | set(names)
    for name in names:
        if not any(ref.name in (name, catalog.canonical(name)) for ref in refs):
            do = f"kuulo models pull {name}" if name == miniature.NAME else "kuulo models list"
            raise ModelMissing(f"no store has a model {name}", looked_at=str(stores()), do=do)
    return [ref for ref in refs if ref.name in wanted]


def _row(ref: ModelRef) -> dict[str, Any]:
    from kuulo.models import check

    text = check.text_shape(ref.format, ref.path)
    return {
        "name": ref.name,
        "task": ref.task,
        "format": ref.format,
        "engines": _engines_for(ref.format),
        "bytes": ref.bytes,
        "path": str(ref.path),
        "store": ref.origin,
        "licence": ref.licence,
        "repo": ref.repo,
        "revision": ref.revision,
        "source": ref.source,
        "gated": ref.gated,
        "repositories": [dataclasses.asdict(repository) for repository in ref.repositories],
        "digest": ref.digest,
        "multilingual": ref.multilingual,
        "translates": ref.translates,
        "text": dataclasses.asdict(text) if text else None,
        "added": ref.added,
    }


def _show_catalog(as_json: bool) -> None:
    from kuulo.models import catalog, check

    entries = catalog.load().values()
    if as_json:
        rows = [
            {
                "name": entry.name,
                "aliases": list(entry.aliases),
                "task": check.task_of(next(iter(entry.sources))),
                "licence": entry.licence,
                "gated": entry.gated,
                "rank": entry.rank,
                "formats": {
                    f: {
                        "source": s.repo or s.path,
                        "revision": s.revision or None,
                        "size": s.size,
                        "parts": [{"source": part.repo, "revision": part.revision or None} for part in s.parts],
                    }
                    for f, s in entry.sources.items()
                },
            }
            for entry in entries
        ]
        click.echo(json.dumps({"schema": 1, "catalog": rows}, indent=1))
        return
    rows_ = []
    for entry in entries:
        sizes = [f"{f} ({s.size})" if s.size else f for f, s in entry.sources.items()]
        licence = f"{entry.licence}; gated" if entry.gated else entry.licence
        task = check.task_of(next(iter(entry.sources)))
        rows_.append((entry.name, ", ".join(entry.aliases), task, ", ".join(sizes), licence))
    _table(("name", "also", "task", "formats (download)", "licence"), rows_)
    engines_by_format = "; ".join(f"{f}: {', '.join(_engines_for(f))}" for f in FORMAT_NAMES if _engines_for(f))
    click.echo(f"\nkuulo models pull NAME --format FORMAT     ({engines_by_format})")


def _say_added(ref: ModelRef, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"schema": 1, "model": _row(ref)}, indent=1))
        return
    click.echo(f"{ref.name} ({ref.format}, {size(ref.bytes)}) is in {ref.folder}")


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _about(row: dict[str, Any]) -> str | None:
    """Which languages a Whisper knows; what a language model is."""
    if row["task"] == "chat":
        return _about_text(row["text"]) if row["text"] else "?"
    return _languages(row) if row["task"] == "transcribe" else None


def _about_text(told: dict[str, Any]) -> str:
    """qwen3, 8.2B, Q4_K_M, context 40960"""
    count = told["parameters"]
    billions = (f"{count / 1e9:.1f}B" if count >= 1e8 else f"{count / 1e6:.1f}M") if count else ""
    context = f"context {told['context']}" if told["context"] else ""
    template = "" if told["template"] else "no chat template"
    return ", ".join(filter(None, [told["architecture"], billions, told["quantisation"], context, template]))


def _languages(row: dict[str, Any]) -> str:
    if row["multilingual"] is None:
        return "?"
    if not row["multilingual"]:
        return "English"
    return "many" if row["translates"] else "many, no translation"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str | None]]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False)
    for heading in headings:
        grid.add_column(heading, overflow="fold", no_wrap=heading in ("name", "size", "format"))
    for row in rows:
        grid.add_row(*(cell or "-" for cell in row))
    # Into a pipe or a file a row is one line, however long.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1000).print(grid)


def _bytes_in(path: Path) -> int | None:
    if path.is_dir():
        return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
    return path.stat().st_size if path.exists() else None


def _steps(advance: Callable[..., None]) -> Callable[[Any], None]:
    """Turns a pull's steps into a bar that knows the file's name and the whole."""
    return lambda step: advance(done=step.done, total=step.total, label=step.file)


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar on stderr, or nothing there when it is no terminal. Called with bytes to add, or done= and total=."""
    import sys

    if not sys.stderr.isatty():
        yield lambda *_args, **_more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(label, total=total)

        def advance(
            count: int = 0, *, done: int | None = None, total: int | None = None, label: str | None = None
        ) -> None:
            if done is None:
                shown.advance(task, count)
            else:
                shown.update(task, completed=done, total=total, description=label)

        yield advance
