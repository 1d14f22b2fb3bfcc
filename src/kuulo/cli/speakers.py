"""`kuulo speakers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kuulo.cli import flags

if TYPE_CHECKING:
    from kuulo.plan import Facts
    from kuulo.roster import Roster
    from kuulo.site import Site


LONGEST_MS = 120_000
"""How much of a clip is also heard under other conditions."""


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
        near = "" if speaker.distance is None else f"; nearest enrolled voice at {speaker.distance:.2f}"
        time = f"{seconds // 60}:{seconds % 60:02d}"
        click.echo(f"{speaker.id}  {label(speaker.id)}  {time} in {len(own)} {kind}{near}")


@speakers.command()
@click.argument("transcript", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, required=True, metavar="S1=NAME...")
@click.option(
    "--overwrite", is_flag=True, help="Write formats anew also where they were edited or have another layout."
)
def rename(transcript: Path, names: tuple[str, ...], overwrite: bool) -> None:
    """Give speakers their names, in the master copy and in every format of it that is beside it.

    The formats are written anew from the master copy. One that was edited, or has another layout, is left alone and
    named.

    \b
    kuulo speakers rename out/interview.json S1=Anna S2="The interviewer"
    """
    from kuulo import beside, naming
    from kuulo import speakers as pure
    from kuulo.errors import UsageError
    from kuulo.formats import json as master

    given = {}
    for text in names:
        id_, equals, label = text.partition("=")
        if not equals or not label.strip():
            raise UsageError(f"{text!r} is not S1=NAME", do='kuulo speakers rename interview.json S1="Anna"')
        given[id_.strip()] = label.strip()
    before = master.read_master(transcript)
    done = beside.write(transcript, before, pure.rename(before, given), overwrite=overwrite)
    for path in done.written:
        click.echo(naming.shown(path))
    for path in done.left:
        click.echo(beside.left_alone(path, transcript), err=True)


_ROSTER = click.option(
    "--roster",
    type=click.Path(path_type=Path),
    help="The roster's file.  [default: kuulo-roster.json in this folder]",
)


@speakers.command()
@click.argument("name")
@click.argument("clips", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CLIP...")
@_ROSTER
@flags.named("speaker_engine", "speaker_model")
def enrol(name: str, clips: tuple[Path, ...], roster: Path | None, **arguments: Any) -> int:
    """Remember somebody's voice, so that `--roster` names it in every recording.

    In a CLIP one person alone speaks, for 5 s or more; half a minute from a recording of the same project is good.
    More clips of a person, now or later, make the voice surer.

    Voices are personal data. They are in the roster's file and nowhere else; `kuulo speakers forget NAME` removes
    one, and deleting the file removes all.

    \b
    kuulo speakers enrol Anna anna.wav
    kuulo transcribe interviews/ --speakers auto --roster kuulo-roster.json
    """
    from kuulo import naming
    from kuulo import roster as rosters
    from kuulo.errors import UsageError

    path = roster or rosters.USUAL
    if not name.strip() or any(ord(letter) < 32 for letter in name):
        raise UsageError(f"{name!r} is no name", do="kuulo speakers enrol Anna anna.wav")
    read = rosters.read(path) if path.exists() else rosters.Roster()
    for clip, voice, seconds, encoder, elsewhere in _voices(tuple(dict.fromkeys(clips)), read, flags.typed(arguments)):
        try:
            read = rosters.enrolled(read, name.strip(), voice, seconds, encoder, elsewhere)
        except UsageError as error:
            raise UsageError(f"{naming.shown(clip)}: {error.what}", looked_at=error.looked_at, do=error.do) from error
    rosters.write(path, read)
    known = next(voice for voice in read.voices if voice.name == name.strip())
    click.echo(f"{naming.shown(name.strip())}: {known.seconds:.0f} s of speech in {known.clips} clips")
    click.echo(
        f"in {naming.shown(path.absolute())}, which you alone can read; it holds voices, which are personal data: "
        "delete it when the project ends",
        err=True,
    )
    return 0


def _voices(
    clips: tuple[Path, ...], roster: Roster, engine: dict[str, Any]
) -> list[tuple[Path, list[float], float, str, dict[str, list[float]]]]:
    """Each clip, its voice's embedding, the seconds of speech in it, the encoder, and its embeddings elsewhere.
    `engine`: the options that say which; else it is the roster's. Raises UsageError for a clip that cannot be heard, or
    has several voices or none."""
    import tempfile

    from kuulo import audio, naming, plan, run, site, survey
    from kuulo import roster as rosters
    from kuulo.cli import progress
    from kuulo.errors import UsageError

    with tempfile.TemporaryDirectory(prefix="kuulo-enrol-") as folder:
        files = site.load()
        facts = survey.facts(files)
        if roster.engine or not {"speaker_engine", "speaker_model"} & set(engine):
            engine = {"speaker_engine": roster.engine or plan.with_voices(facts), **engine}
        # A roster that settings name need not be there yet, and nobody is looked for in it.
        given = {"speakers": "auto", "roster": "", "output": folder, "format": ("json",), "quiet": True, **engine}
        resolved = plan.resolve_diarization(site.settle(files, given), facts, len(clips))
        job = run.Run(resolved, [audio.Recording(clip) for clip in clips], [], progress.watcher(quiet=True))
        job.go()
        heard = []
        for clip, work in zip(clips, job.works, strict=True):
            shown = naming.shown(clip)
            if work.outcome.why:
                raise UsageError(f"{shown}: {work.outcome.why}", do=work.outcome.do)
            if work.turns and not work.voices:
                raise UsageError(
                    f"{resolved.engine} gives no voices that could be compared", do="--speaker-engine resemblyzer"
                )
            if len(work.voices) != 1:
                raise UsageError(
                    f"{shown}: {len(work.voices) or 'no'} voices are heard in it, and it must be one",
                    do="cut out a part in which this person alone speaks",
                )
            ((_, voice),) = work.voices.items()
            seconds = sum(turn.end_ms - turn.start_ms for turn in work.turns or ()) / 1000
            heard.append((clip, voice, seconds, work.encoder))
        measured = resolved.engine in rosters.MEASURED
        elsewhere = _elsewhere(clips, files, given, facts) if measured else [{} for _ in clips]
        return [(*one, others) for one, others in zip(heard, elsewhere, strict=True)]


def _elsewhere(
    clips: Sequence[Path], files: Site, given: Mapping[str, Any], facts: Facts
) -> list[dict[str, list[float]]]:
    """The embeddings of each clip's voice as it would sound under other conditions, where it can still be heard.
    `given`: the options by which the clips were heard."""
    import tempfile

    import numpy as np

    from kuulo import audio, conditions, plan, run, site
    from kuulo.cli import progress
    from kuulo.engines.programs import write_wav

    with tempfile.TemporaryDirectory(prefix="kuulo-enrol-") as place:
        settings = site.settle(files, {**given, "speakers": "1", "output": f"{place}/out"})
        sound, copies = Path(place) / "sound.f32", []
        for number, clip in enumerate(clips):
            audio.decode(clip, sound, to_ms=LONGEST_MS)
            samples = np.fromfile(sound, "<f4")
            for condition in conditions.CONDITIONS:
                copies.append((number, condition, Path(place) / f"{number} {condition}.wav"))
                write_wav(conditions.heard(samples, condition), copies[-1][2])
        resolved = plan.resolve_diarization(settings, facts, len(copies))
        job = run.Run(resolved, [audio.Recording(copy) for _, _, copy in copies], [], progress.watcher(quiet=True))
        job.go()
        found: list[dict[str, list[float]]] = [{} for _ in clips]
        for (number, condition, _), work in zip(copies, job.works, strict=True):
            if len(work.voices) == 1:
                (found[number][condition],) = work.voices.values()
        return found


@speakers.command(name="roster")
@_ROSTER
def roster_(roster: Path | None) -> None:
    """Whose voices are enrolled."""
    from kuulo import naming
    from kuulo import roster as rosters

    for voice in rosters.read(roster or rosters.USUAL).voices:
        click.echo(f"{naming.shown(voice.name)}  {voice.seconds:.0f} s of speech in {voice.clips} clips")


@speakers.command()
@click.argument("name")
@_ROSTER
def forget(name: str, roster: Path | None) -> None:
    """Remove somebody's voice from the roster. Names in transcripts stay."""
    from kuulo import naming
    from kuulo import roster as rosters

    path = roster or rosters.USUAL
    rosters.write(path, rosters.without(rosters.read(path), name))
    click.echo(f"{naming.shown(name)} is forgotten")
