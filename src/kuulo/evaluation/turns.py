"""Who spoke when: diarization error rate and Jaccard error rate, by pyannote.metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kuulo.evaluation.lines import Line


@dataclass(frozen=True)
class TurnErrors:
    """In seconds: speech `missed`, `false` alarm, given to the wrong speaker (`confused`), of `total` in the reference.
    `jaccard`: Jaccard error rate (Ryant et al. 2019, DIHARD II), each speaker weighing the same."""

    missed: float
    false: float
    confused: float
    total: float
    jaccard: float | None

    @property
    def rate(self) -> float | None:
        """Diarization error rate."""
        return (self.missed + self.false + self.confused) / self.total if self.total else None


def compare(
    reference: Sequence[Line], heard: Sequence[Line], collar_s: float = 0.0, skip_overlap: bool = False
) -> TurnErrors:
    """`collar_s`: seconds around each of the reference's borders that do not count, half on each side, as in
    pyannote.metrics. `skip_overlap`: where the reference has several speakers at once does not count."""
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate

    ours, theirs = _annotation(reference), _annotation(heard)
    end = max((line.end_ms or 0 for line in (*reference, *heard)), default=0) / 1000
    whole = Timeline([Segment(0, end)])
    options = {"collar": collar_s, "skip_overlap": skip_overlap}
    found = DiarizationErrorRate(**options)(ours, theirs, uem=whole, detailed=True)
    jaccard = JaccardErrorRate(**options)(ours, theirs, uem=whole) if ours else None
    return TurnErrors(
        missed=float(found["missed detection"]),
        false=float(found["false alarm"]),
        confused=float(found["confusion"]),
        total=float(found["total"]),
        jaccard=None if jaccard is None else float(jaccard),
    )


def _annotation(lines: Sequence[Line]) -> Any:
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for number, line in enumerate(lines):
        assert line.start_ms is not None
        assert line.end_ms is not None
        if line.end_ms > line.start_ms:
            annotation[Segment(line.start_ms / 1000, line.end_ms / 1000), number] = line.speaker
    return annotation
