"""`kuulo export` and `kuulo formats`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from kuulo import naming, options
from kuulo.cli import flags
from kuulo.errors import EXIT_OK, EXIT_SOME_FAILED, KuuloError, UsageError

if TYPE_CHECKING:
    from kuulo.formats import Layout
    from kuulo.transcript import Transcript

LAYOUT = ("max_line_width", "max_line_count", "max_words_per_line", "highlight_words")


def _layout_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """The layout options as `kuulo transcribe` has them."""
    for option in reversed([options.BY_NAME[name] for name in LAYOUT]):
        kind: Any = bool if option.kind == "bool" else str
        function = click.option(
            *option.flags,
            "option_" + option.name,
            type=kind,
            default=None,
            metavar=option.metavar or None,
            help=flags.help_text(option),
        )(function)
    return function


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="MASTER.json|FOLDER...", type=click.Path(path_type=Path))
@click.option(
    "--format", "-f", "option_format", multiple=True, metavar="FORMAT[,FORMAT...]",
    help="What to write; see `kuulo formats`; all: every one.  [default: txt,srt]",
)  # fmt: skip
@click.option(
    "--output", "-o", metavar="FOLDER", type=click.Path(path_type=Path),
    help="Folder for the results. Without it: beside each master copy.",
)  # fmt: skip
@_layout_flags
@click.option("--overwrite", is_flag=True, help="Replace files that are there and hold something else.")
@click.option("--print", "to_stdout", is_flag=True, help="Print on standard output instead of writing files.")
def export(sources: tuple[Path, ...], output: Path | None, overwrite: bool, to_stdout: bool, **typed: Any) -> int:
    """Write finished transcripts in other formats, from their master copies (NAME.json).

    Of a folder every master copy in it is taken, also in the folders below.

    \b
    kuulo export transcripts/interview.json -f docx
    kuulo export transcripts/ -f srt,vtt -o subtitles/ --max-line-width 42 --max-line-count 2
    kuulo export interview.json -f srt --print
    """
    from kuulo import formats

    names, layout = _asked(flags.typed(typed))
    if to_stdout and (output or overwrite):
        raise UsageError("--print writes no files: --output and --overwrite do nothing with it")
    if to_stdout and len(names) != 1:
        raise UsageError(
            "--print shows one format at a time",
            looked_at="formats asked for: " + ", ".join(names),
            do="name one with --format",
        )
    batch = _Batch()
    found = list(_found(sources, batch))
    if not to_stdout:
        _check_targets(found, names, output)
    for master in found:
        with batch.going_on():
            transcript = _read(master.path)
            for name in names:
                with batch.going_on():
                    content = formats.render(name, transcript, layout)
                    if to_stdout:
                        _print(content, name)
                    else:
                        _put(master, master.target(formats.spec(name).extension, output), content, overwrite)
                    batch.done += 1
    return batch.exit_code()


@dataclass(frozen=True)
class _Master:
    """A master copy, and where its results go below the output folder: a path without extension."""

    path: Path
    stem: PurePath

    def target(self, extension: str, output: Path | None) -> Path:
        folder = self.path.parent if output is None else output / self.stem.parent
        return folder / (self.stem.name + extension)


@dataclass
class _Batch:
    """How many results there are, and what failed; one that fails does not stop the others."""

    done: int = 0
    failures: list[KuuloError] = field(default_factory=list)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """What fails inside is noted."""
        try:
            yield
        except KuuloError as error:
            self.failures.append(error)

    def exit_code(self) -> int:
        """0 or 1; raises the failure when it is all there is, so that it is shown and decides the code."""
        if not self.done and len(self.failures) == 1:
            raise self.failures[0]
        for error in self.failures:
            click.echo(f"failed: {error}", err=True)
        return EXIT_SOME_FAILED if self.failures else EXIT_OK


def _asked(typed: Mapping[str, Any]) -> tuple[tuple[str, ...], Layout]:
    """The formats and the layout from flags, environment and settings; raises UsageError."""
    from kuulo import formats, site

    values = site.settle(site.load(), typed).values
    names = formats.expand(values["format"])
    if not names:
        raise UsageError("no format is named", do="for example --format docx; see `kuulo formats`")
    layout = formats.Layout.from_options(values)
    given = [name for name in LAYOUT if typed.get(name)]
    if given and not any(formats.spec(name).needs_words for name in names):
        obeying = ", ".join(s.name for s in formats.FORMATS.values() if s.needs_words)
        raise UsageError(
            f"--{given[0].replace('_', '-')} has no effect on {', '.join(names)}",
            do=f"leave it out, or ask for one of {obeying}",
        )
    return names, layout


def _found(sources: Sequence[Path], batch: _Batch) -> Iterator[_Master]:
    """The master copies, each once. In a folder other JSON is passed over with a line that says so; a file that was
    named is taken as it is."""
    seen: set[Path] = set()
    for source in sources:
        try:
            inside = sorted(_json_below(source)) if source.is_dir() else [source]
        except OSError as error:
            what = f"a folder cannot be read: {error.strerror or error}"
            batch.failures.append(UsageError(what, looked_at=naming.shown(error.filename or source)))
            continue
        masters = [p for p in inside if p == source or _is_master(p)]
        if not masters:
            batch.failures.append(
                UsageError(
                    "this folder has no master copy of a transcript",
                    looked_at=f"{naming.shown(source)}: {len(inside)} .json files",
                    do="name the folder that `kuulo transcribe` wrote to",
                )
            )
        for path in masters:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield _Master(path, _stem(path, source))


def _json_below(folder: Path) -> Iterator[Path]:
    """Files named *.json in a folder and those below; hidden ones are not looked at."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _json_below(path)
        elif path.suffix.lower() == ".json":
            yield path


def _is_master(path: Path) -> bool:
    """Whether a file found in a folder is one; says why not."""
    try:
        _read(path)
    except UsageError as error:
        click.echo(f"passed over {naming.shown(path)}: {error.what}", err=True)
        return False
    return True


def _stem(path: Path, source: Path) -> PurePath:
    below = PurePath(path.name) if path == source else path.relative_to(source)
    return below.with_suffix("") if below.suffix.lower() == ".json" else below


def _read(path: Path) -> Transcript:
    from kuulo.formats.json import read_master

    return read_master(path)


def _check_targets(found: Sequence[_Master], names: Sequence[str], output: Path | None) -> None:
    """Raises UsageError when two results would have one name, or a result that of another's master copy."""
    from kuulo import formats

    owners: dict[Path, _Master] = {master.path.resolve(): master for master in found}
    for master in found:
        for name in names:
            target = master.target(formats.spec(name).extension, output)
            owner = owners.setdefault(target.resolve(), master)
            if owner is not master:
                raise UsageError(
                    "two results would have the same name",
                    looked_at=f"{naming.shown(target)}, of {naming.shown(owner.path)} and {naming.shown(master.path)}",
                    do="export them one by one, each with an --output of its own",
                )


def _put(master: _Master, target: Path, content: bytes, overwrite: bool) -> None:
    """Write a result and say so on standard error. Raises UsageError when something else is there, and KuuloError
    when it cannot be written. A master copy is never written over itself: it may hold keys of a newer version."""
    from kuulo import atomic

    try:
        if target.resolve() == master.path.resolve() or (target.is_file() and target.read_bytes() == content):
            click.echo(f"unchanged {naming.shown(target)}", err=True)
            return
        if target.exists() and not overwrite:
            raise UsageError(
                "a file is in the way and holds something else",
                looked_at=naming.shown(target),
                do="add --overwrite, or name another folder with --output",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(target, content)
    except OSError as error:
        raise KuuloError(
            f"a result cannot be written: {error.strerror or error}",
            looked_at=naming.shown(target),
            do="name a folder that you may write to with --output",
        ) from error
    click.echo(f"wrote {naming.shown(target)}", err=True)


def _print(content: bytes, name: str) -> None:
    """The content on standard output, byte for byte."""
    if name == "docx" and sys.stdout.isatty():
        raise UsageError("docx is not text: a terminal cannot show it", do="send it on (> FILE), or leave --print out")
    sys.stdout.buffer.write(content)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def formats(as_json: bool) -> None:
    """Which output formats there are. Each is written from the master copy, also later (`kuulo export`)."""
    from kuulo import formats as table

    rows: list[dict[str, Any]] = [
        {"name": s.name, "extension": s.extension, "summary": s.summary, "layout": s.needs_words}
        for s in table.FORMATS.values()
    ]
    if as_json:
        click.echo(json.dumps({"formats": rows}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False)
    for heading in ("format", "file", "what it is"):
        grid.add_column(heading, no_wrap=heading != "what it is")
    for row in rows:
        grid.add_row(row["name"], f"NAME{row['extension']}", row["summary"])
    Console(highlight=False).print(grid)
    obeying = ", ".join(row["name"] for row in rows if row["layout"])
    click.echo(f"Line width, lines and words per line can be chosen for {obeying}; that needs the words' times.")
