"""pyannote.audio: segmentation, voices and clustering on PyTorch, from a pipeline's folder.

Nothing is fetched and nothing is told to anybody (its telemetry is on by default), recordings are handed over decoded,
and no token is needed at run time. It imports the class that a pipeline names and unpickles its networks without
`weights_only`: Kuulo looks at both before a model comes into a store or is used from a path (models/pyannote.py).
A recording stays where it is mapped: nothing here copies it. What pyannote.audio keeps of it grows with its length by
some 50 MB an hour (pyannote_memory.py). Where the distances of all pieces of speech from each other are needed all the
same, for another way to cluster or without fastcluster, they grow with its square: where they cannot fit, the recording
fails with a sentence once it is known how many they are, before the voices, which take the longest, are looked at.
Parses on Python 3.9; imports pyannote.audio inside functions.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import warnings
from pathlib import Path
from typing import Any, Dict, List, Mapping

from kuulo import machine
from kuulo.engines import pyannote_memory
from kuulo.engines.base import SAMPLE_RATE, Diarization, EngineSpec, Native, Session, Unusable
from kuulo.engines.whisper_text import check_raw, torch_device
from kuulo.transcript import Turn
from kuulo.wire import Task

SPEC = EngineSpec(
    name="pyannote",
    summary="pyannote.audio's speaker pipelines on PyTorch: the field's reference, best on a GPU.",
    url="https://github.com/pyannote/pyannote-audio",
    licence="MIT",
    package="pyannote.audio",
    module="pyannote.audio",
    install="pyannote.audio",
    tasks=("diarize",),
    devices=("cpu", "cuda"),
    model_formats=("pyannote",),
    packages=("torch", "torchaudio", "numpy", "fastcluster"),
    options={
        "speakers": Native("num_speakers, min_speakers, max_speakers"),
        "device": Native("to", "a PyTorch device"),
        "threads": Native("torch.set_num_threads"),
    },
    differs=("on a CPU it takes about three hours of one core for an hour of sound",),
    voices=True,
    # Its README: 31 to 37 s for an hour, on an H100.
    speeds={"cuda": 97},
)

CONFIG = "config.yaml"
TELEMETRY = "PYANNOTE_METRICS_ENABLED"
RAW = ("embedding_batch_size", "exclusive", "segmentation_batch_size", "segmentation_step")
"""Native settings; `exclusive`: where two speak at once one of them has it; `segmentation_step`: from one window to the
next, in parts of a window (0.1 in the published pipelines, and half as many windows with 0.2)."""

BATCHES = ("embedding_batch_size", "segmentation_batch_size")

PAIR_BYTES = 8
"""For each of n * n: SciPy's `linkage` has n * (n - 1) / 2 distances as float64, and works on a copy of them."""
TIDY_EVERY = 16
"""Batches after which what malloc has kept is given back."""
SPEAKS = 0.2
"""Who speaks alone in less of a window is left out of the clustering (`filter_embeddings`, min_active_ratio)."""


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Nothing."""
    return {}


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with pyannote.audio itself."""
    least, most = options.get("speakers") or (1, 99)
    settings = [f"pipeline.{key} = {raw[key]!r}" for key in BATCHES if key in raw]
    turns = "exclusive_speaker_diarization" if raw.get("exclusive") else "speaker_diarization"
    device = str(options.get("device") or "auto")
    if "segmentation_step" in raw:
        step = float(raw["segmentation_step"])
        settings.append(f"pipeline._segmentation.step = {step} * pipeline._segmentation.duration")
    return "\n".join(
        [
            "import os",
            f"os.environ[{TELEMETRY!r}] = '0'  # it reports durations and numbers of speakers otherwise",
            "import torch",
            "from pyannote.audio import Pipeline",
            f"pipeline = Pipeline.from_pretrained({str(options.get('model_path'))!r})",
            *settings,
            f"pipeline.to(torch.device({('cuda' if device == 'auto' else device)!r}))",
            "# Kuulo takes fastcluster's linkage for SciPy's, and other copies than its: the same turns in less memory",
            "audio = {'waveform': torch.from_numpy(audio)[None], 'sample_rate': 16000}",
            f"turns = pipeline(audio, {_numbers_text(least, most)}).{turns}",
        ]
    )


def _numbers_text(least: int, most: int) -> str:
    return ", ".join(f"{key}={value}" for key, value in numbers(least, most).items())


def numbers(least: int, most: int) -> Dict[str, int]:
    """The pipeline's arguments for a number of speakers or a range."""
    if least == most:
        return {"num_speakers": least}
    return {"min_speakers": least, "max_speakers": most}


def load(task: Task) -> PyannoteSession:
    """The pipeline. Raises Unusable."""
    check_raw(SPEC.name, task.raw, RAW)
    folder = Path(task.model_path or "")
    if not (folder / CONFIG).is_file():
        raise Unusable(f"there is no pipeline: {folder / CONFIG}", "kuulo models list --catalog")
    os.environ[TELEMETRY] = "0"
    os.environ["HF_HUB_OFFLINE"] = "1"
    # pyannote.audio passes weights_only=False; with this PyTorch holds to it all the same.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    import torch
    from pyannote.audio import Pipeline

    torch.serialization.add_safe_globals(safe_globals())

    if task.options.get("threads"):
        torch.set_num_threads(int(task.options["threads"]))
    device = torch_device(task.options.get("device"), torch)
    try:
        pipeline = Pipeline.from_pretrained(folder)
    except Exception as error:  # whatever its parts raise
        raise Unusable(
            f"pyannote.audio cannot load the pipeline: {type(error).__name__}: {error}", "check it: kuulo models verify"
        ) from error
    if pipeline is None:
        raise Unusable("pyannote.audio cannot load the pipeline", "check it: kuulo models verify")
    for key in BATCHES:
        if key in task.raw:
            setattr(pipeline, key, int(task.raw[key]))
    if "segmentation_step" in task.raw:
        step = float(task.raw["segmentation_step"])
        if not 0 < step <= 1:
            raise Unusable(f"segmentation_step is a part of a window, more than 0 and at most 1: {step:g}", "say 0.1")
        pipeline._segmentation.step = step * pipeline._segmentation.duration
    pipeline.to(torch.device(device))
    all_pairs = pyannote_memory.bound(pipeline)
    least, most = task.options.get("speakers") or (1, 99)
    exclusive = bool(task.raw.get("exclusive"))
    session = PyannoteSession(
        pipeline, numbers(int(least), int(most)), encoder_of(folder), exclusive=exclusive, all_pairs=all_pairs
    )
    session.device = device
    return session


def safe_globals() -> List[Any]:
    """What a checkpoint may name beside tensors: as models/pyannote.py, GLOBALS. omegaconf's are in older ones, which
    need it installed."""
    import collections
    import typing

    import torch
    from pyannote.audio.core.model import Introspection
    from pyannote.audio.core.task import Problem, Resolution, Specifications

    plain = [dict, float, int, list, str, collections.defaultdict, typing.Any, torch.torch_version.TorchVersion]
    own = [Introspection, Problem, Resolution, Specifications]
    try:
        from omegaconf import base, dictconfig, listconfig, nodes
    except ImportError:
        return [*plain, *own]
    settings = [base.ContainerMetadata, base.Metadata, dictconfig.DictConfig, listconfig.ListConfig, nodes.AnyNode]
    return [*plain, *own, *settings]


def encoder_of(folder: Path) -> str:
    """Which network makes the voices, by its file's digest; empty where it is not at the usual place."""
    digest = hashlib.sha256()
    try:
        with (folder / "embedding" / "pytorch_model.bin").open("rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    except OSError:
        return ""
    return f"{SPEC.name}:{digest.hexdigest()[:16]}"


class PyannoteSession(Session):
    """A loaded pipeline. `encoder`: what makes its voices, empty where they are not to be told. `all_pairs`: whether
    its clustering has the distance of each piece of speech from each other one."""

    def __init__(
        self, pipeline: Any, speakers: Mapping[str, int], encoder: str, *, exclusive: bool, all_pairs: bool
    ) -> None:
        self._pipeline = pipeline
        self._encoder = encoder
        self._speakers = dict(speakers)
        self._exclusive = exclusive
        self._all_pairs = all_pairs

    def diarize(self, samples: Any) -> Diarization:
        """Who speaks when; turns may overlap, unless `exclusive` was given. `samples`: float32 (n,), 16 kHz, n >= 1."""
        import torch

        waveform = torch.from_numpy(writable(samples))[None]
        sound = {"waveform": waveform, "sample_rate": SAMPLE_RATE, "uri": "recording"}
        length_ms = len(samples) * 1000 // SAMPLE_RATE
        return told(self._output(sound), self._encoder, length_ms, exclusive=self._exclusive)

    def _output(self, sound: Mapping[str, Any]) -> Any:
        """What the pipeline says. There may be less speech than makes so many speakers: then as many as it finds."""
        try:
            return self._pipeline(sound, hook=self._heard, **self._speakers)
        except ValueError as error:
            if "n_clusters" not in str(error):  # scikit-learn's KMeans, in VBxClustering of 4.0
                raise
            warnings.warn(f"{error} As many speakers as it finds are taken.", stacklevel=2)
            return self._pipeline(sound, hook=self._heard)

    def _heard(self, step: str, made: Any, completed: int = 0, **_: Any) -> None:
        """pyannote.audio tells what it has made after each step, and in between. Raises TooLong before the voices are
        looked at."""
        if completed % TIDY_EVERY == 0:
            give_back()
        if step != "segmentation" or made is None:
            return
        if self._all_pairs:
            needed, free = PAIR_BYTES * spoken(made.data) ** 2, machine.memory_bytes()
            if needed > free:
                raise TooLong(needed, free)
        pyannote_memory.shrink(made)


class TooLong(Unusable):
    """There is not enough memory, in bytes, for a recording."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(
            f"this recording has too much speech for this machine: to compare all of it with all of it pyannote.audio "
            f"needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            "give it more memory, take --speaker-option segmentation_step=0.2 (a quarter of it), or cut the recording; "
            f"a pipeline that clusters by centroids needs none of it with fastcluster: "
            f"kuulo engines install {SPEC.name}",
        )


def give_back() -> None:
    """What malloc keeps of freed memory, to the system. Each batch's voices stay, between windows of sound that go: the
    holes between them would be a gigabyte after three hours. Where the C library cannot, nothing is done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def spoken(heard: Any) -> int:
    """How many pieces of speech are clustered at most: a window's speakers who speak alone in enough of it. `heard`
    (windows, frames, speakers), 0 or 1, or likelihoods: then it is by 0.5, which is near to it. In few bytes."""
    pieces = 0
    for window in heard:
        speaks = window > 0.5
        alone = speaks & (speaks.sum(axis=1, keepdims=True) == 1)
        pieces += int((alone.sum(axis=0) >= SPEAKS * len(window)).sum())
    return pieces


def writable(samples: Any) -> Any:
    """float32 (n,) that a tensor may be made of, without a copy where that can be: what is mapped for reading is mapped
    once more, privately, so that writing to it would change neither the file nor end the process."""
    import numpy as np

    if samples.flags.writeable and samples.dtype == np.float32:
        return samples
    if isinstance(samples, np.memmap) and samples.dtype == np.float32 and not isinstance(samples.base, np.ndarray):
        return np.memmap(str(samples.filename), np.float32, "c", samples.offset, samples.shape)
    return np.array(samples, np.float32)


def told(output: Any, encoder: str, length_ms: int, *, exclusive: bool) -> Diarization:
    """The turns in a pipeline's output: `speaker_diarization` and embeddings in the order of its labels (4.0), or an
    annotation alone (`legacy`). Its windows go on after the recording's end, and its turns with them: they are cut."""
    annotation = getattr(output, "exclusive_speaker_diarization" if exclusive else "speaker_diarization", output)
    turns: List[Turn] = [
        Turn(round(segment.start * 1000), min(round(segment.end * 1000), length_ms), str(label))
        for segment, _, label in annotation.itertracks(yield_label=True)
        if round(segment.start * 1000) < length_ms
    ]
    turns.sort(key=lambda turn: (turn.start_ms, turn.end_ms, turn.speaker))
    whole = getattr(output, "speaker_diarization", annotation)
    embeddings = getattr(output, "speaker_embeddings", None)
    if embeddings is None or not encoder:
        return Diarization(turns)
    speak = {turn.speaker for turn in turns}
    labels = [str(label) for label in whole.labels()]
    voices = {n: [float(x) for x in row] for n, row in zip(labels, embeddings) if n in speak and is_voice(row)}
    return Diarization(turns, voices, encoder if voices else "")


def is_voice(row: Any) -> bool:
    """Whether an embedding says anything: it is zeros where there are more speakers than clusters, and not a number
    where no speech was clean for long enough."""
    return any(row) and all(math.isfinite(x) for x in row)
