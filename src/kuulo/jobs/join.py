"""Makes one transcript of a recording that was heard in parts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kuulo import audio, laying, naming, parts, report
from kuulo.errors import InputFailed, KuuloError
from kuulo.jobs.batch import WORDS, Batch, Item, Piece
from kuulo.jobs.task import part_of
from kuulo.journal import Heard, Journal
from kuulo.plan import Plan
from kuulo.preparation import advice
from kuulo.report import Outcome
from kuulo.results import Results
from kuulo.roster import Match
from kuulo.work import Work


def join(batch: Batch, number: int) -> Outcome:
    """Write the results of a recording, all of whose pieces are done; what became of it."""
    item = batch.items[number]
    one = Work("r0", item.path, item.stem, Outcome(naming.shown(item.path)))
    one.began = time.monotonic()
    results = Results(batch.plan)
    try:
        audio.check_file(item.path)
        facts = item.path.stat()
        one.bytes, one.modified_ns = facts.st_size, facts.st_mtime_ns
        if results.is_done(one):
            one.outcome.state = report.SKIPPED
            return one.outcome
        one.sha256 = one.sha256 or audio.sha256(item.path)
        one.key = batch.plan.key_for(one.sha256)
        pieces = [piece for task in batch.tasks for piece in task if piece.item == number]
        ends = _gather(batch.plan, one, sorted(pieces, key=lambda p: p.part), results)
        known = {name: Match(**match) for end in ends for name, match in end["known"].items()}
        laying.lay(batch.plan, one, known)
        transcript = results.transcript(one, ends[0]["device"], ends[0]["compute_type"])
        results.write(one, transcript)
        one.outcome.state = report.DONE
        one.outcome.language, one.outcome.segments = transcript.language, len(transcript.segments)
    except KuuloError as error:
        one.outcome.state, one.outcome.why, one.outcome.do = report.FAILED, error.what, error.do
    except OSError as error:
        one.outcome.state, one.outcome.do = report.FAILED, advice(error)
        one.outcome.why = f"its results cannot be written: {error.strerror or error}"
    return one.outcome


def journal(plan: Plan, item: Item, piece: Piece, key: str) -> Journal:
    """Where a piece's words are until they are joined."""
    part = part_of(piece)
    assert part is not None
    return Journal(Results(plan).folder, item.stem, key, part.name)


def forget(batch: Batch, number: int) -> None:
    """Remove what the parts of a recording left behind, once its results are there. Raises OSError."""
    item = batch.items[number]
    key = batch.plan.key_for(audio.sha256(item.path))
    for task in batch.tasks:
        for piece in task:
            if piece.item == number:
                journal(batch.plan, item, piece, key).path.unlink(missing_ok=True)


def _gather(plan: Plan, one: Work, pieces: Sequence[Piece], results: Results) -> list[Mapping[str, Any]]:
    """What the parts have heard, into one; how they ended. Raises InputFailed when one of them is missing."""
    item = Item(one.path, one.stem, 0, one.bytes, one.modified_ns)
    heard = [(piece, journal(plan, item, piece, one.key).read()) for piece in pieces]
    if missing := [piece for piece, part in heard if part.end is None]:
        raise InputFailed(
            f"{len(missing)} of its {len(pieces)} parts are not there",
            looked_at=naming.shown(results.folder / ".kuulo" / "partial"),
            do="was the recording changed while the job ran? Submit it again",
        )
    words = [part for piece, part in heard if piece.kind == WORDS]
    turns = [part for piece, part in heard if piece.kind != WORDS]
    one.segments = parts.joined(words)
    _take_language(one, words)
    ends = [part.end for part in (*words, *turns) if part.end is not None]
    hellos = [end["hello"] for end in ends if end["hello"]]
    one.heard_by = hellos[0] if hellos else None
    one.length_ms = max(end["offset_ms"] + end["length_ms"] for end in ends)
    one.batch_size = min((end["batch_size"] for end in ends if end["batch_size"]), default=None)
    one.outcome.audio_ms = one.length_ms - (plan.options["from"] or 0)
    one.outcome.engine_ms = sum(end["engine_ms"] or 0 for end in ends)
    for warning in dict.fromkeys(end["warning"] for end in ends if end["warning"]):
        one.outcome.warn(warning)
    for part in turns:
        assert part.end is not None
        one.turns = [turn.shifted(part.end["offset_ms"]) for turn in part.turns or ()]
        one.told_apart_by, one.encoder = dict(part.told_apart_by), part.end["encoder"]
    if one.heard_by is None:
        raise InputFailed("none of its parts holds any sound")
    return ends


def _take_language(one: Work, words: Sequence[Heard]) -> None:
    """The first part's; each has detected its own."""
    heard = [part for part in words if part.language and part.segments] or [p for p in words if p.language]
    if heard:
        one.language, one.confidence = heard[0].language, heard[0].confidence
    others = dict.fromkeys(part.language for part in heard if part.language)
    if len(others) > 1:
        one.outcome.warn(f"its parts were heard in several languages ({', '.join(map(str, others))}): name one with -l")
