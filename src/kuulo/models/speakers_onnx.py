"""sherpa-onnx's speaker pipeline: a folder with segmentation.onnx (pyannote's segmentation) and embedding.onnx.

sherpa-onnx ends its process where metadata is missing or wrong, so all that it reads is looked at here first. What
that is was read in sherpa-onnx 2.0.1 (csrc/offline-speaker-segmentation-pyannote-model.cc,
offline-speaker-diarization-pyannote-impl.h, speaker-embedding-extractor-*.cc) and tried with files without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kuulo.engines import onnx_file
from kuulo.models.shape import Shape

NAME = "ONNX speaker pipeline (sherpa-onnx)"
SEGMENTATION, EMBEDDING = "segmentation.onnx", "embedding.onnx"

SAMPLE_RATE = 16_000
"""Hz; that of the samples which every engine gets."""

SEGMENTATION_NUMBERS = (
    "sample_rate", "window_size", "receptive_field_size", "receptive_field_shift", "num_speakers",
    "powerset_max_classes", "num_classes",
)  # fmt: skip

NUMBER = re.compile(r"[1-9][0-9]{0,8}")
"""Above 0, as C's atoi reads it; of anything else it makes 0."""

POWERSET_MAX_CLASSES = 2
"""Speakers at once; sherpa-onnx knows no other number."""

FRAMEWORKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "wespeaker": (("output_dim", "sample_rate"), ("normalize_samples", "language")),
    "3d-speaker": (("output_dim", "sample_rate"), ("normalize_samples", "language")),
    "nemo": (("output_dim", "feat_dim", "sample_rate", "window_size_ms", "window_stride_ms"), ("language",)),
}
"""Metadata of an embedding by who made it: numbers above 0, and others."""

NORMALIZATIONS = {"wespeaker": ("global-mean",), "3d-speaker": ("global-mean",), "nemo": ("per_feature",)}
"""Values of feature_normalize_type, which may also be left out."""


def matches(path: Path) -> bool:
    """Whether the folder has this format's files."""
    return all((path / name).is_file() for name in (SEGMENTATION, EMBEDDING))


def wanted(names: list[str]) -> list[str]:
    """Those of a repository's files that make the pipeline."""
    return [name for name in (EMBEDDING, SEGMENTATION) if name in names]


def problems(path: Path) -> list[str]:
    """What is wrong with the folder; empty when nothing is."""
    found: list[str] = []
    for name, look in ((SEGMENTATION, _segmentation_problems), (EMBEDDING, _embedding_problems)):
        if not (path / name).is_file():
            found.append(f"{name} is missing")
            continue
        try:
            file = onnx_file.read(path / name)
        except onnx_file.Broken as error:
            found.append(str(error))
            continue
        if file.weights:
            found.append(f"{name} has its weights in another file, {file.weights[0]}, which is not taken along")
        found += [f"{name}: {problem}" for problem in look(file.metadata)]
    return found


def shape(path: Path) -> Shape:
    """Nothing: a pipeline has none of a Whisper's dimensions."""
    return Shape()


def _segmentation_problems(metadata: Mapping[str, str]) -> list[str]:
    found = _missing(metadata, SEGMENTATION_NUMBERS, ())
    if found:
        return found
    numbers = {key: int(metadata[key]) for key in SEGMENTATION_NUMBERS}
    if numbers["sample_rate"] != SAMPLE_RATE:
        found.append(f"its sample_rate is {numbers['sample_rate']} Hz, and recordings are heard at {SAMPLE_RATE}")
    if numbers["powerset_max_classes"] != POWERSET_MAX_CLASSES:
        found.append(f"its powerset_max_classes is {numbers['powerset_max_classes']}, and sherpa-onnx knows 2 alone")
    speakers = numbers["num_speakers"]
    classes = 1 + speakers + speakers * (speakers - 1) // 2  # nobody, each one, each pair
    if numbers["num_classes"] != classes:
        found.append(f"its num_classes is {numbers['num_classes']}, and {speakers} speakers make {classes}")
    return found


def _embedding_problems(metadata: Mapping[str, str]) -> list[str]:
    framework = metadata.get("framework", "")
    if framework not in FRAMEWORKS:
        return [f"its metadata 'framework' is {framework!r}, and sherpa-onnx knows {', '.join(FRAMEWORKS)}"]
    found = _missing(metadata, *FRAMEWORKS[framework])
    normalization = metadata.get("feature_normalize_type", "")
    if normalization and normalization not in NORMALIZATIONS[framework]:
        found.append(f"sherpa-onnx does not know its feature_normalize_type {normalization[:40]!r}")
    return found


def _missing(metadata: Mapping[str, str], numbers: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    for key in (*numbers, *others):
        if not metadata.get(key):
            return [f"it has no metadata {key!r}: it was not exported for sherpa-onnx"]
    wrong = [key for key in numbers if not NUMBER.fullmatch(metadata[key])]
    return [f"its metadata {wrong[0]!r} is {metadata[wrong[0]][:40]!r}, not a number above 0"] if wrong else []
