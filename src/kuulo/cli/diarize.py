"""`kuulo diarize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from kuulo.cli import flags
from kuulo.cli.transcribe import carry_out

OPTIONS = (
    "from", "to", "speakers", "speaker_engine", "speaker_model", "speaker_option", "roster", "format", "output",
    "existing", "device", "threads", "workers", "scratch", "quiet", "json",
)  # fmt: skip
USUAL_FORMATS = ("rttm",)


@click.command()
@click.argument("inputs", nargs=-1, metavar="RECORDING|FOLDER...")
@flags.named(*OPTIONS)
@click.option("--overwrite", is_flag=True, help="The same as --existing overwrite.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
def diarize(inputs: tuple[str, ...], overwrite: bool, dry_run: bool, **arguments: Any) -> int:
    """Find out who speaks when in recordings, without recognising words.

    Writes NAME.speakers.json, the master copy, and NAME.speakers.rttm, or the formats that are named: rttm, eaf (ELAN),
    textgrid (Praat), exb (EXMARaLDA). `kuulo transcribe --speakers auto` does it together with the words.

    \b
    kuulo diarize interview.wav
    kuulo diarize interviews/ --speakers 2 -f rttm,eaf -o turns
    """
    from kuulo import audio, plan, site, survey
    from kuulo.errors import UsageError

    if not inputs:
        raise UsageError("no recording was named", do="kuulo diarize interview.wav, or a folder of recordings")
    given = flags.typed(arguments)
    if overwrite:
        given["existing"] = "overwrite"
    # What files of settings say of these two is about transcripts.
    given["format"] = _formats(given.get("format", USUAL_FORMATS))
    given.setdefault("speakers", "auto")
    if str(given["speakers"]).strip().lower() == "none":
        raise UsageError("--speakers none leaves nothing to do", do="auto, channels, a number as 2, a range as 2-5")
    files = site.load()
    settings = site.settle(files, given)
    found = audio.find(inputs)
    resolved = plan.resolve_diarization(settings, survey.facts(files), max(1, len(found.recordings)))
    return carry_out(resolved, found, dry_run=dry_run)


def _formats(named: Sequence[str]) -> tuple[str, ...]:
    """The formats, those alone that can show turns; raises UsageError."""
    from kuulo import formats, options
    from kuulo.errors import UsageError

    names: tuple[str, ...] = options.parse(options.BY_NAME["format"], named)
    able = [name for name in formats.names() if formats.spec(name).shows_turns]
    chosen = tuple(able) if formats.ALL in names else names
    if unable := [name for name in chosen if name not in able]:
        raise UsageError(
            f"{unable[0]} is made of words, and none are recognised here",
            looked_at=f"formats of turns: {', '.join(able)}",
            do=f"kuulo transcribe --speakers auto -f {unable[0]}",
        )
    return chosen
