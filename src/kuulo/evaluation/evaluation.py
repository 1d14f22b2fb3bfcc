"""What a transcript has wrong, of one recording and of a folder."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kuulo.errors import UsageError
from kuulo.evaluation import lines as said
from kuulo.evaluation import texts, turns
from kuulo.evaluation.lines import Line
from kuulo.evaluation.texts import Errors, Piece
from kuulo.evaluation.turns import TurnErrors

RESAMPLES = 1000
SEED = 20_260
LEAST_UNITS = 10
"""With fewer units an interval would say little: none is given."""


@dataclass(frozen=True)
class Options:
    """How texts and turns are compared."""

    normalisation: str = "basic"
    collar_s: float = 0.0
    skip_overlap: bool = False


@dataclass(frozen=True)
class Result:
    """A pair of files. What cannot be told from them is None. `units`: the words' errors by line of the reference."""

    name: str
    words: Errors | None = None
    characters: Errors | None = None
    cp: Errors | None = None
    turns: TurnErrors | None = None
    units: tuple[Errors, ...] = ()
    pieces: tuple[Piece, ...] = field(default=(), repr=False)


def evaluate(reference: Path, heard: Path, options: Options) -> Result:
    """What `heard` has wrong. Raises UsageError when the two have nothing that can be compared, and as lines.read."""
    ours, theirs = in_time(said.read(reference)), in_time(said.read(heard))
    texted = said.have_text(ours) and said.have_text(theirs)
    timed = bool(ours) and said.have_turns(ours) and said.have_turns(theirs)
    if not texted and not timed:
        raise UsageError(
            f"{reference.name} and {heard.name} have nothing in common that can be compared",
            do="both need text, or both speakers with times",
        )
    spoken = turns.compare(ours, theirs, options.collar_s, options.skip_overlap) if timed else None
    result = Result(heard.name, turns=spoken)
    if not texted:
        return result
    split = [texts.words(line.text or "", options.normalisation) for line in ours]
    flat = [word for line in split for word in line]
    other = texts.words(" ".join(line.text or "" for line in theirs), options.normalisation)
    pieces = texts.align(flat, other)
    both = any(line.speaker for line in ours) and any(line.speaker for line in theirs)
    return replace(
        result,
        words=texts.errors_of(pieces),
        characters=texts.character_errors(flat, other),
        cp=texts.cp_errors(_by_speaker(ours, options), _by_speaker(theirs, options)) if both else None,
        units=tuple(by_line(pieces, [len(line) for line in split])),
        pieces=tuple(pieces),
    )


def in_time(lines: Sequence[Line]) -> list[Line]:
    """By start, where all have one; else as the file has them."""
    if any(line.start_ms is None for line in lines):
        return list(lines)
    return sorted(lines, key=lambda line: line.start_ms or 0)


def _by_speaker(lines: Sequence[Line], options: Options) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        found[line.speaker] += texts.words(line.text or "", options.normalisation)
    return found


WRONG = {"equal": Errors(), "substitute": Errors(substitutions=1), "delete": Errors(deletions=1)}
"""What a word of the reference counts, by the kind of its piece."""


def by_line(pieces: Sequence[Piece], lengths: Sequence[int]) -> list[Errors]:
    """The errors of each line of the reference; a word too many is of the line of the word before it."""
    found = [Errors(count=length) for length in lengths]
    if not found:
        return [texts.errors_of(pieces)]
    owners = [number for number, length in enumerate(lengths) for _ in range(length)]
    at = line = 0
    for piece in pieces:
        if piece.kind == "insert":
            found[line] += Errors(insertions=len(piece.heard))
            continue
        wrong = WRONG[piece.kind]
        for line in owners[at : at + len(piece.reference)]:
            found[line] += wrong
        at += len(piece.reference)
    return found


def interval(units: Sequence[Errors], share: float = 0.95) -> tuple[float, float] | None:
    """Where the error rate lies in `share` of samples of the units drawn with replacement (the bootstrap of Bisani and
    Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation"). None for few units."""
    filled = [unit for unit in units if unit.count]
    if len(filled) < LEAST_UNITS:
        return None
    draw = random.Random(SEED)  # noqa: S311 -- a fixed seed: the same interval each time
    rates = sorted(
        sum(unit.wrong for unit in sample) / sum(unit.count for unit in sample)
        for sample in (draw.choices(filled, k=len(filled)) for _ in range(RESAMPLES))
    )
    return _at(rates, (1 - share) / 2), _at(rates, (1 + share) / 2)


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


@dataclass(frozen=True)
class Total:
    """Of several recordings: all errors over all words. `unit`: what was drawn for the interval."""

    words: Errors
    characters: Errors
    cp: Errors
    turns: TurnErrors | None
    interval: tuple[float, float] | None
    unit: str


def total(results: Sequence[Result]) -> Total:
    """Everything together. The interval draws recordings where there are enough, else lines: lines of one recording are
    alike, and say less."""
    recordings = [result.words for result in results if result.words]
    lines = [unit for result in results for unit in result.units]
    unit, units = ("recordings", recordings) if len(recordings) >= LEAST_UNITS else ("lines", lines)
    return Total(
        words=sum(recordings, Errors()),
        characters=sum((r.characters for r in results if r.characters), Errors()),
        cp=sum((r.cp for r in results if r.cp), Errors()),
        turns=_turns([r.turns for r in results if r.turns]),
        interval=interval(units),
        unit=unit,
    )


def _turns(several: Sequence[TurnErrors]) -> TurnErrors | None:
    if not several:
        return None

    def summed(what: Callable[[TurnErrors], float]) -> float:
        return sum(what(one) for one in several)

    jaccards = [one.jaccard for one in several if one.jaccard is not None]
    return TurnErrors(
        missed=summed(lambda one: one.missed),
        false=summed(lambda one: one.false),
        confused=summed(lambda one: one.confused),
        total=summed(lambda one: one.total),
        jaccard=sum(jaccards) / len(jaccards) if jaccards else None,
    )


def pairs(reference: Path, heard: Path) -> list[tuple[Path, Path]]:
    """(reference, transcript) of two files, or of two folders' files of the same name without ending. Raises UsageError
    for a reference without a transcript: leaving it out would make the figures better."""
    if reference.is_dir() != heard.is_dir():
        raise UsageError("compare a file with a file, or a folder with a folder", looked_at=f"{reference}, {heard}")
    if not reference.is_dir():
        return [(reference, heard)]
    ours, theirs = _files(reference), _files(heard)
    missing = sorted(set(ours) - set(theirs))
    if missing or not ours:
        what = f"no transcript of {', '.join(missing[:5])}" if missing else "no reference"
        raise UsageError(what, looked_at=f"{reference}, {heard}", do=f"kinds: {', '.join(sorted(said.READERS))}")
    return [(ours[name], theirs[name]) for name in sorted(ours)]


def _files(folder: Path) -> dict[str, Path]:
    """By name without ending. A run's folder has renderings beside the master copy, which says most."""
    kinds = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in said.READERS]
    found: dict[str, Path] = {}
    for path in sorted(kinds, key=lambda path: path.suffix.lower() != ".json"):
        if path.name == "report.json" or path.name.startswith("."):
            continue
        first = found.setdefault(path.stem, path)
        if first is not path and first.suffix.lower() != ".json":
            raise UsageError(f"{first.name} and {path.name}: which of the two?", looked_at=str(folder))
    return found


def to_json(result: Result) -> dict[str, Any]:
    """For machines: rates from 0, seconds of turns."""
    low_high = interval(result.units)
    return {
        "name": result.name,
        "wer": _errors(result.words, low_high),
        "cer": _errors(result.characters),
        "cpwer": _errors(result.cp),
        "der": _turn_errors(result.turns),
    }


def _errors(errors: Errors | None, low_high: tuple[float, float] | None = None) -> dict[str, Any] | None:
    if errors is None:
        return None
    counts = {"substitutions": errors.substitutions, "deletions": errors.deletions, "insertions": errors.insertions}
    found: dict[str, Any] = {"rate": errors.rate, **counts, "of": errors.count}
    if low_high:
        found["interval_95"] = list(low_high)
    return found


def _turn_errors(found: TurnErrors | None) -> dict[str, Any] | None:
    if found is None:
        return None
    parts = {"missed_s": found.missed, "false_alarm_s": found.false, "confused_s": found.confused, "of_s": found.total}
    return {"rate": found.rate, **parts, "jer": found.jaccard}


def total_to_json(found: Total) -> dict[str, Any]:
    return {
        "wer": {**(_errors(found.words, found.interval) or {}), "interval_unit": found.unit},
        "cer": _errors(found.characters),
        "cpwer": _errors(found.cp),
        "der": _turn_errors(found.turns),
    }
