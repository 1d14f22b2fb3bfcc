"""Writing a master copy that was changed, and the formats beside it.

A format that is not what the old master copy gave holds somebody's work, or another layout: it is left alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kuulo import atomic, formats, naming
from kuulo.errors import CannotRun
from kuulo.formats import Layout
from kuulo.transcript import Transcript


@dataclass
class Written:
    """The files that were written, the master copy first, and those that were left alone."""

    written: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)


def write(master: Path, before: Transcript, after: Transcript, *, overwrite: bool = False) -> Written:
    """The master copy, then every format beside it that was as `before` gives it; all with `overwrite`. Each is written
    whole or not at all. Raises CannotRun."""
    stem = master.name.removesuffix(".json")
    contents = [(master, formats.render("json", after, Layout()))]
    done = Written()
    try:
        for name in formats.names():
            path = master.with_name(stem + formats.spec(name).extension)
            if name == "json" or not path.is_file():
                continue
            if overwrite or path.read_bytes() == formats.render(name, before, Layout()):
                contents.append((path, formats.render(name, after, Layout())))
            else:
                done.left.append(path)
        for path, content in contents:
            atomic.write_bytes(path, content)
            done.written.append(path)
    except OSError as error:
        raise CannotRun(
            f"it cannot be written: {error.strerror or error}", looked_at=naming.shown(error.filename or master)
        ) from error
    return done


def left_alone(path: Path, master: Path) -> str:
    """What to say of a file that was left alone."""
    return (
        f"left alone, edited or of another layout: {naming.shown(path)} (kuulo export {naming.shown(master)} "
        "--overwrite writes it anew)"
    )
