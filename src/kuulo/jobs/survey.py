"""What a submit looks at before it plans: each recording's header, and what is done or in somebody's hands already.
Nothing is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from kuulo import audio, naming, report
from kuulo.audio import Found, Recording
from kuulo.errors import InputFailed, KuuloError, UsageError
from kuulo.jobs.batch import Item, Refused
from kuulo.jobs.claims import Claim
from kuulo.plan import Plan
from kuulo.preparation import advice
from kuulo.report import Outcome
from kuulo.results import Results
from kuulo.work import Work

THREADS = 8


@dataclass
class Looked:
    """`items` are to be done. `done`: the stems of those that have their results already. `busy`: how many each other
    job has."""

    items: list[Item] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    busy: dict[str, int] = field(default_factory=dict)


def look(plan: Plan, found: Found, claimed: Sequence[Claim], *, look_only: bool = False) -> Looked:
    """At every recording that was found. Formats that are missing beside results are written, unless `look_only`.
    Raises UsageError when another job makes other transcripts in the same place."""
    results = Results(plan)
    looked = Looked(refused=[Refused(naming.shown(path), e.what, e.do) for path, e in found.failures])
    stems = naming.stems([(r.path, r.base) for r in found.recordings], results.belongs_to_another)
    holder = {stem: claim for claim in claimed for stem in claim.stems}
    free: list[tuple[Recording, PurePath]] = []
    for recording, stem in zip(found.recordings, stems, strict=True):
        claim = holder.get(str(stem))
        if claim is None:
            free.append((recording, stem))
            continue
        if claim.key != plan.key:
            raise UsageError(
                f"the job {claim.name} of {claim.user} is making other transcripts of the same names in this folder",
                looked_at=naming.shown(results.folder),
                do=f"choose another --output, or end that job: kuulo jobs cancel {claim.name}",
            )
        looked.busy[claim.name] = looked.busy.get(claim.name, 0) + 1
    with ThreadPoolExecutor(THREADS) as pool:
        looks = pool.map(lambda one: _look(plan, results, look_only, *one), free, chunksize=16)
        for (_, stem), made in zip(free, looks, strict=True):
            if isinstance(made, Item):
                looked.items.append(made)
            elif isinstance(made, Refused):
                looked.refused.append(made)
            else:
                looked.done.append(str(stem))
    return looked


def _look(plan: Plan, results: Results, look_only: bool, recording: Recording, stem: PurePath) -> Item | Refused | None:
    """The recording, why it is none, or None when it is done."""
    path = recording.path
    work = Work("r0", path, stem, Outcome(naming.shown(path)))
    try:
        audio.check_file(path)
        facts = path.stat()
        work.bytes, work.modified_ns = facts.st_size, facts.st_mtime_ns
        if results.is_done(work, look_only=look_only):
            work.outcome.state = report.SKIPPED
            return None
        length = _length_ms(plan, path)
    except KuuloError as error:
        return Refused(work.outcome.source, error.what, error.do)
    except OSError as error:
        return Refused(work.outcome.source, error.strerror or str(error), advice(error))
    return Item(path, stem, length, facts.st_size, facts.st_mtime_ns)


def _length_ms(plan: Plan, path: Path) -> int:
    """How much of it is to be heard, by its header; 0 when that does not say. Raises InputFailed."""
    length = audio.probe(path).duration_ms or 0
    first, last = plan.options["from"] or 0, plan.options["to"]
    if length and first >= length:
        raise InputFailed("it ends before --from")
    return max(0, (min(length, last) if last and length else length) - first)
