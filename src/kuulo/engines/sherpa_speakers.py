"""sherpa-onnx's speakers: pyannote's segmentation and an embedding model on ONNX Runtime, without PyTorch.

A model is a folder with `segmentation.onnx` (pyannote's segmentation as sherpa-onnx exports it) and `embedding.onnx`
(WeSpeaker, 3D-Speaker or NeMo with sherpa-onnx's metadata). The library ends the process where metadata is missing and
goes on with the CPU where there is no GPU; both are looked at before. Turns of two who speak at once overlap.
Parses on Python 3.9; imports sherpa-onnx inside functions.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from kuulo.engines import onnx_file
from kuulo.engines.base import SAMPLE_RATE, Diarization, EngineSpec, Native, Session, Unusable
from kuulo.engines.sherpa_onnx import provider_for
from kuulo.engines.whisper_text import check_raw
from kuulo.transcript import Turn
from kuulo.wire import Task

SPEC = EngineSpec(
    name="sherpa-speakers",
    summary="Speakers by pyannote's segmentation and a voice model on ONNX Runtime: light, no token.",
    url="https://github.com/k2-fsa/sherpa-onnx",
    licence="Apache-2.0",
    package="sherpa-onnx",
    module="sherpa_onnx",
    install="sherpa-onnx",
    tasks=("diarize",),
    devices=("cpu", "cuda"),
    model_formats=("speakers-onnx",),
    packages=("sherpa-onnx-core", "numpy"),
    options={
        "speakers": Native(
            "num_clusters", "a range: threshold, and again with the nearest number where that is outside"
        ),
        "device": Native("provider", "cuda where it was built for it, the first GPU alone"),
        "threads": Native("num_threads"),
    },
    differs=("it copies the whole recording into memory: 0.25 GB for each hour",),
)

SEGMENTATION, EMBEDDING = "segmentation.onnx", "embedding.onnx"

NEEDED = (
    "sample_rate", "window_size", "receptive_field_size", "receptive_field_shift", "num_speakers",
    "powerset_max_classes", "num_classes",
)  # fmt: skip
"""Metadata of the segmentation without which the library ends the process
(sherpa-onnx/csrc/offline-speaker-segmentation-pyannote-model.cc)."""

GENERAL = ("sample_rate", "output_dim", "normalize_samples", "language")
FRAMEWORKS: Dict[str, Tuple[str, ...]] = {
    "wespeaker": GENERAL,
    "3d-speaker": GENERAL,
    "nemo": ("sample_rate", "output_dim", "feat_dim", "window_size_ms", "window_stride_ms", "language"),
}
"""The same of the embedding, by its `framework` (speaker-embedding-extractor-model.cc, -nemo-model.cc). Without one of
these names 2.0.1 loads it, and crashes at the first recording (speaker-embedding-extractor-impl.cc)."""

RAW = ("threshold", "min_duration_on", "min_duration_off", "window_shift_ratio")


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Nothing."""
    return {}


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with sherpa-onnx itself."""
    path = str(options.get("model_path"))
    least, most = options.get("speakers") or (1, 99)
    number = f"num_clusters={least}" if least == most else f"threshold={raw.get('threshold', 0.5)}"
    durations = "".join(f", {key}={raw[key]!r}" for key in RAW[1:3] if key in raw)
    return "\n".join(
        [
            "from sherpa_onnx import *",
            f"folder = {path!r}",
            "segmentation = OfflineSpeakerSegmentationModelConfig(",
            f"    OfflineSpeakerSegmentationPyannoteModelConfig(folder + '/{SEGMENTATION}'))",
            f"embedding = SpeakerEmbeddingExtractorConfig(folder + '/{EMBEDDING}')",
            f"clustering = FastClusteringConfig({number})",
            f"config = OfflineSpeakerDiarizationConfig(segmentation, embedding, clustering{durations})",
            "turns = OfflineSpeakerDiarization(config).process(audio).sort_by_start_time()",
        ]
    )


def load(task: Task) -> SpeakersSession:
    """The two networks. Raises Unusable."""
    import sherpa_onnx

    check_raw(SPEC.name, task.raw, RAW)
    if not task.model_path:
        raise Unusable("it needs a model", "kuulo models list --catalog")
    folder = Path(task.model_path)
    look_at(folder)
    provider = provider_for(task.options.get("device"), Path(sherpa_onnx.__file__).parent)
    threads = int(task.options.get("threads") or 1)
    shift = {"window_shift_ratio": float(task.raw["window_shift_ratio"])} if "window_shift_ratio" in task.raw else {}
    config = sherpa_onnx.OfflineSpeakerDiarizationConfig(
        segmentation=sherpa_onnx.OfflineSpeakerSegmentationModelConfig(
            pyannote=sherpa_onnx.OfflineSpeakerSegmentationPyannoteModelConfig(str(folder / SEGMENTATION), **shift),
            num_threads=threads,
            provider=provider,
        ),
        embedding=sherpa_onnx.SpeakerEmbeddingExtractorConfig(
            model=str(folder / EMBEDDING), num_threads=threads, provider=provider
        ),
        clustering=sherpa_onnx.FastClusteringConfig(),
        **{key: float(task.raw[key]) for key in RAW[1:3] if key in task.raw},
    )
    if not config.validate():
        raise Unusable("sherpa-onnx does not take these models", "see the log; check them: kuulo models verify")
    least, most = task.options.get("speakers") or (1, 99)
    threshold = float(task.raw.get("threshold", 0.5))
    session = SpeakersSession(sherpa_onnx.OfflineSpeakerDiarization(config), config, int(least), int(most), threshold)
    session.device = provider
    return session


def look_at(folder: Path) -> None:
    """Raises Unusable for what would end the process."""
    for name in (SEGMENTATION, EMBEDDING):
        try:
            metadata = onnx_file.read(folder / name).metadata
        except (onnx_file.Broken, OSError) as error:
            raise Unusable(f"{folder / name} cannot be read: {error}", "check it: kuulo models verify") from error
        framework = metadata.get("framework", "")
        if name == EMBEDDING and framework not in FRAMEWORKS:
            raise Unusable(
                f"{name} is of the framework {framework!r}, and sherpa-onnx knows {', '.join(FRAMEWORKS)}",
                "take the files of sherpa-onnx's own releases",
            )
        needed = NEEDED if name == SEGMENTATION else FRAMEWORKS[framework]
        missing = [key for key in needed if not metadata.get(key)]
        if missing:
            raise Unusable(
                f"{name} has no {missing[0]} in its metadata: it was not exported for sherpa-onnx",
                "take the files of sherpa-onnx's own releases",
            )
        if metadata["sample_rate"] != str(SAMPLE_RATE):
            raise Unusable(f"{name} hears {metadata['sample_rate']} Hz, and {SAMPLE_RATE} are needed")


class SpeakersSession(Session):
    """Loaded networks."""

    def __init__(self, diarizer: Any, config: Any, least: int, most: int, threshold: float) -> None:
        self._diarizer = diarizer
        self._config = config
        self._least, self._most, self._threshold = least, most, threshold

    def diarize(self, samples: Any) -> Diarization:
        """Who speaks when; turns may overlap. `samples`: float32 (n,), 16 kHz, n >= 1."""
        given = self._least if self._least == self._most else None
        found = self._clustered(samples, given)
        if found and self._off(found):
            nearest = min(max(_speakers(found), self._least), self._most)
            again = self._clustered(samples, None if given else nearest)
            # More than there are pieces of speech are not made: 2.0.1 then takes all for one.
            found = min(found, again, key=self._off)
        if found and self._off(found):
            asked = f"{self._least} to {self._most}"
            warnings.warn(f"{_speakers(found)} speakers were found, and {asked} asked for", stacklevel=2)
        return Diarization(found)

    def _off(self, turns: List[Turn]) -> int:
        """By how many there are fewer or more speakers than were asked for."""
        number = _speakers(turns)
        return max(self._least - number, number - self._most, 0)

    def _clustered(self, samples: Any, number: Optional[int]) -> List[Turn]:
        """The turns of so many speakers, or of as many as the threshold makes. The last window goes on after the
        recording's end, and turns with it: they are cut."""
        from sherpa_onnx import FastClusteringConfig

        self._config.clustering = FastClusteringConfig(num_clusters=number or -1, threshold=self._threshold)
        self._diarizer.set_config(self._config)
        found = self._diarizer.process(samples).sort_by_start_time()
        length_ms = len(samples) * 1000 // SAMPLE_RATE
        turns = [
            Turn(round(turn.start * 1000), min(round(turn.end * 1000), length_ms), f"speaker {turn.speaker}")
            for turn in found
        ]
        return [turn for turn in turns if turn.start_ms < turn.end_ms]


def _speakers(turns: List[Turn]) -> int:
    return len({turn.speaker for turn in turns})
