"""`kuulo import`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kuulo.errors import UsageError

if TYPE_CHECKING:
    from kuulo.imports.merge import Changes
    from kuulo.transcript import Transcript

MOST_SHOWN = 20
"""Times of changes that are shown."""

FEWEST_WORDS, LEAST_SHARE = 20, 0.3
"""With as many words in the master, and fewer than this share of them found again, the file is probably another's."""


@click.command(name="import")
@click.argument(
    "files", nargs=-1, metavar="[MASTER.json] EDITED.{srt,vtt,TextGrid,eaf,docx}", type=click.Path(path_type=Path)
)
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@click.option(
    "--without", multiple=True, metavar="NAME",
    help="A tier or speaker of the edited file to leave out, as one that was added for notes. May be given often.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Write formats anew also where they hold something else, EDITED too.")
@click.option("--force", is_flag=True, help="Import although hardly a word is the same.")
def import_(files: tuple[Path, ...], dry_run: bool, without: tuple[str, ...], overwrite: bool, force: bool) -> None:
    """Take what was edited in a subtitle editor, Praat, ELAN or Word into the master copy.

    Words that are still there keep their times. The master copy is written, and every format of it that is beside it
    and was not edited. Without MASTER.json it is the one of the same name beside the edited file.

    \b
    kuulo import out/interview.srt
    kuulo import out/interview.json interview.docx --dry-run
    kuulo import out/interview.json interview.eaf --without notes
    """
    from kuulo import imports
    from kuulo.formats.json import read_master
    from kuulo.imports.merge import merge

    master, edited = _pair(files)
    before = read_master(master)
    stretches = imports.read(edited)
    names = {s.speaker for s in stretches}
    if unknown := sorted(set(without) - {n for n in names if n}):
        raise UsageError(
            f"there is no tier or speaker {unknown[0]!r} in the edited file",
            looked_at=", ".join(sorted(n for n in names if n)) or "it has no names",
        )
    after, changes = merge(before, [s for s in stretches if s.speaker not in without])
    _check(changes, edited, force)
    for line in _summary(changes):
        click.echo(line)
    if changes.nothing or dry_run:
        return
    _write(master, edited, before, _noted(after, edited, changes), overwrite)


def _pair(files: Sequence[Path]) -> tuple[Path, Path]:
    """The master copy and the edited file. Raises UsageError."""
    from kuulo import naming

    if not 1 <= len(files) <= 2:
        raise UsageError(
            "one edited file is imported at a time, into its master copy",
            looked_at=" ".join(map(naming.shown, files)) or None,
            do="kuulo import out/interview.json interview.docx",
        )
    if len(files) == 2:
        return files[0], files[1]
    (edited,) = files
    master = edited.with_suffix(".json")
    if master == edited:
        raise UsageError(
            "no edited file is named", looked_at=naming.shown(master), do="name both: kuulo import MASTER.json EDITED"
        )
    if not master.is_file():
        raise UsageError(
            "the edited file has no master copy of its name beside it",
            looked_at=naming.shown(master),
            do=f"name both: kuulo import MASTER.json {naming.shown(edited)}",
        )
    return master, edited


def _check(changes: Changes, edited: Path, force: bool) -> None:
    """Raises UsageError when the file seems to be another recording's."""
    words = changes.words_kept + changes.words_gone
    if not force and words >= FEWEST_WORDS and changes.words_kept < LEAST_SHARE * words:
        from kuulo import naming

        raise UsageError(
            "the edited file seems to be of another recording",
            looked_at=f"{naming.shown(edited)}: {changes.words_kept} of the {words} words are in it, near their times",
            do="look whether the two belong together; --force imports it all the same",
        )


def _summary(changes: Changes) -> list[str]:
    """What changes, without the words themselves: these are not for the logs of a job."""
    if changes.nothing:
        return ["nothing was edited"]
    lines = [
        f"words: {changes.words_kept} kept, {changes.words_new} new, {changes.words_gone} gone",
        f"segments: {changes.segments_same} as they were, {changes.segments_changed} edited, "
        f"{changes.segments_gone} gone; {changes.speakers_changed} with another speaker",
    ]
    if changes.new_speakers:
        from kuulo import naming

        lines.append("new speakers: " + ", ".join(map(naming.shown, changes.new_speakers)))
    places = [f"{ms // 3_600_000}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}" for ms in sorted(changes.places)]
    places = list(dict.fromkeys(places))
    more = f" and {len(places) - MOST_SHOWN} more" if len(places) > MOST_SHOWN else ""
    return [*lines, "at " + " ".join(places[:MOST_SHOWN]) + more]


def _noted(transcript: Transcript, edited: Path, changes: Changes) -> Transcript:
    """The transcript with a step in its provenance that says that it was edited."""
    import kuulo
    from kuulo import naming
    from kuulo.transcript import Provenance, Step

    counts = {"kept": changes.words_kept, "new": changes.words_new, "gone": changes.words_gone}
    step = Step("edit", "kuulo import", kuulo.__version__, options={"file": naming.shown(edited.name), **counts})
    origin = transcript.provenance or Provenance(kuulo.__version__, "")
    return replace(transcript, provenance=replace(origin, steps=(*origin.steps, step)))


def _write(master: Path, edited: Path, before: Transcript, after: Transcript, overwrite: bool) -> None:
    """The master copy and the formats beside it. Raises CannotRun."""
    from kuulo import beside, naming

    done = beside.write(master, before, after, overwrite=overwrite)
    for path in done.written:
        click.echo(f"wrote {naming.shown(path)}", err=True)
    for path in done.left:
        if path.resolve() != edited.resolve():
            click.echo(beside.left_alone(path, master), err=True)
