"""`kuulo speakers`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def speakers() -> None:
    """The speakers of a transcript.

    Speakers are told apart by `kuulo transcribe --speakers auto` and `kuulo diarize`.
    """


@speakers.command(name="list")
@click.argument("transcript", type=click.Path(path_type=Path))
def list_(transcript: Path) -> None:
    """Who speaks in a transcript, and for how long."""
    from kuulo.formats import json as master
    from kuulo.formats.labels import labels

    read = master.read_master(transcript)
    label = labels(read)
    for speaker in read.speakers:
        kind, parts = ("turns", read.turns) if read.turns else ("segments", read.segments)
        own = [part.end_ms - part.start_ms for part in parts if part.speaker == speaker.id]
        seconds = sum(own) // 1000
        click.echo(f"{speaker.id}  {label(speaker.id)}  {seconds // 60}:{seconds % 60:02d} in {len(own)} {kind}")


@speakers.command()
@click.argument("transcript", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, required=True, metavar="S1=NAME...")
def rename(transcript: Path, names: tuple[str, ...]) -> None:
    """Give speakers their names, in the master copy and in every format of it that is beside it.

    The formats are written anew from the master copy: what was edited in one of them is replaced.

    \b
    kuulo speakers rename out/interview.json S1=Anna S2="The interviewer"
    """
    from kuulo import atomic, formats, naming
    from kuulo import speakers as pure
    from kuulo.errors import CannotRun, UsageError
    from kuulo.formats import Layout
    from kuulo.formats import json as master

    given = {}
    for text in names:
        id_, equals, label = text.partition("=")
        if not equals or not label.strip():
            raise UsageError(f"{text!r} is not S1=NAME", do='kuulo speakers rename interview.json S1="Anna"')
        given[id_.strip()] = label.strip()
    renamed = pure.rename(master.read_master(transcript), given)
    beside = [(name, _beside(transcript, formats.spec(name).extension)) for name in formats.names()]
    wanted = [(name, path) for name, path in beside if name != "json" and path.is_file()]
    rendered = [(path, formats.render(name, renamed, Layout())) for name, path in wanted]
    try:
        for path, content in [(transcript, formats.render("json", renamed, Layout())), *rendered]:
            atomic.write_bytes(path, content)
            click.echo(naming.shown(path))
    except OSError as error:
        raise CannotRun(
            f"it cannot be written: {error.strerror}", looked_at=str(error.filename or transcript)
        ) from error


def _beside(transcript: Path, extension: str) -> Path:
    return transcript.with_name(transcript.stem + extension)
