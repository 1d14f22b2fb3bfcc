"""`kuulo evaluate`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kuulo.evaluation.evaluation import Result, Total
    from kuulo.evaluation.texts import Errors

NEEDED = ("jiwer", "scipy", "pyannote.metrics")


@click.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("transcript", type=click.Path(path_type=Path))
@click.option(
    "--normalise", type=click.Choice(["basic", "none"]), default="basic", show_default=True,
    help="How words are compared: without case and punctuation, or as they are written.",
)  # fmt: skip
@click.option(
    "--collar", type=click.FloatRange(min=0), default=0.0, show_default=True, metavar="SECONDS",
    help="Around each border of the reference's turns, what does not count; half on each side.",
)  # fmt: skip
@click.option("--skip-overlap", is_flag=True, help="Leave out where the reference has several speakers at once.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the differences side by side.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def evaluate(
    reference: Path, transcript: Path, normalise: str, collar: float, skip_overlap: bool, html: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """How far a transcript is from a reference, or a folder of them from a folder of references.

    Word and character error rate (WER, CER) where both have text; cpWER where both have speakers; diarization and
    Jaccard error rate (DER, JER) where both have speakers with times. References and transcripts are Kuulo's JSON or
    whisper's, txt, stm, ctm, rttm, eaf or TextGrid. Files of two folders belong together by their names without ending.

    \b
    kuulo evaluate reference.txt out/interview.json
    kuulo evaluate references/ out/ --html differences.html
    """
    from kuulo import atomic
    from kuulo.errors import CannotRun
    from kuulo.evaluation import evaluation
    from kuulo.evaluation.page import page

    missing = [name for name in NEEDED if not _there(name)]
    if missing:
        raise CannotRun(f"{missing[0]}, which compares, is not installed", do="pip install 'kuulo[evaluate]'")
    options = evaluation.Options(normalise, collar, skip_overlap)
    results = [evaluation.evaluate(*pair, options) for pair in evaluation.pairs(reference, transcript)]
    whole = evaluation.total(results)
    if html:
        try:
            atomic.write_bytes(html, page(results).encode())
        except OSError as error:
            raise CannotRun(f"the page cannot be written: {error.strerror}", looked_at=str(html)) from error
    if as_json:
        files = [evaluation.to_json(result) for result in results]
        click.echo(json.dumps({"files": files, "total": evaluation.total_to_json(whole)}, indent=1))
        return
    _show(results, whole)


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _show(results: list[Result], whole: Total) -> None:
    from rich.console import Console
    from rich.table import Table

    from kuulo import naming
    from kuulo.evaluation.evaluation import interval

    grid = Table(box=None, pad_edge=False)
    for heading in ("file", "words", "WER", "95 %", "CER", "cpWER", "DER", "JER"):
        grid.add_column(heading, justify="left" if heading == "file" else "right", no_wrap=heading != "file")
    for result in results:
        grid.add_row(naming.shown(result.name), *_cells(result, interval(result.units)))
    if len(results) > 1:
        grid.add_row("all", *_cells(whole, whole.interval))
    Console(highlight=False).print(grid)


def _cells(found: Result | Total, low_high: tuple[float, float] | None) -> list[str]:
    words, spoken = found.words, found.turns
    rates = [_rate(words), _range(low_high), _rate(found.characters), _rate(found.cp)]
    turns = [_percent(spoken.rate), _percent(spoken.jaccard)] if spoken else ["", ""]
    return [str(words.count) if words else "", *rates, *turns]


def _rate(errors: Errors | None) -> str:
    return "" if errors is None or not errors.count else _percent(errors.rate)


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.1f} %"


def _range(low_high: tuple[float, float] | None) -> str:
    return "" if low_high is None else f"{100 * low_high[0]:.1f}-{100 * low_high[1]:.1f}"
