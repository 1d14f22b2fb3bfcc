"""Small models that tell speakers apart, for tests: their speakers are tones. `low` and `high` are heard by the
segmentation as its local speakers 1 and 2, and a voice is the mean of its mel bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kuulo.miniature.graph import Graph

RATE, WINDOW, FIELD, SHIFT = 16_000, 160_000, 991, 270
TONES = {"low": 300.0, "high": 1_500.0}


def tone(name: str, seconds: float, loud: float = 0.3) -> np.ndarray:
    """float32 (n,): a tone with its octave, as long as asked."""
    time = np.arange(round(seconds * RATE)) / RATE
    hertz = TONES[name]
    return (loud * (np.sin(2 * np.pi * hertz * time) + 0.3 * np.sin(4 * np.pi * hertz * time))).astype(np.float32)


def segmentation(path: Path, **metadata: object) -> Path:
    """Powerset segmentation of pyannote's kind: (1, 1, samples) -> (1, frames, 7) scores of nobody, 1, 2, 3, 1+2, 1+3,
    2+3."""
    graph = Graph("segmentation", {})
    heard = graph.input("x", "float32", ("N", 1, "T"))
    time = np.arange(FIELD) / RATE
    waves = [wave(2 * np.pi * hertz * time) for hertz in TONES.values() for wave in (np.cos, np.sin)]
    filters = (np.stack(waves) * np.hanning(FIELD) / FIELD * 4)[:, None].astype(np.float32)
    parts = graph.op("Conv", heard, graph.constant(filters), kernel_shape=[FIELD], strides=[SHIFT])
    power = graph.op("Transpose", graph.op("Mul", parts, parts), perm=[0, 2, 1])  # (N, frames, 4)
    pairs = np.zeros((4, 7), np.float32)
    pairs[0:2, 1] = pairs[2:4, 2] = 1.0
    pairs[0:2, 2] = pairs[2:4, 1] = -0.5
    pairs[:, 4] = 0.6
    pairs[:, 3] = pairs[:, 5] = pairs[:, 6] = -1.0
    nobody = np.array([0.005, 0, 0, 0, 0, 0, 0], np.float32)
    scores = graph.op("Add", graph.op("MatMul", power, graph.constant(pairs)), graph.constant(nobody))
    graph.op("LogSoftmax", graph.op("Mul", scores, graph.constant(np.float32(100.0))), name="y", axis=-1)
    graph.output("y", ("N", "frames", 7))
    told = {
        "sample_rate": RATE, "window_size": WINDOW, "receptive_field_size": FIELD, "receptive_field_shift": SHIFT,
        "num_speakers": 3, "powerset_max_classes": 2, "num_classes": 7, "model_type": "pyannote-segmentation-3.0",
    }  # fmt: skip
    path.write_bytes(graph.model({k: v for k, v in {**told, **metadata}.items() if v is not None}))
    return path


def embedding(path: Path, **metadata: object) -> Path:
    """(N, frames, 80) mel bands -> (N, 80): their mean, less what all bands have."""
    graph = Graph("embedding", {})
    bands = graph.input("feats", "float32", ("N", "T", 80))
    mean = graph.op("ReduceMean", bands, axes=[1], keepdims=0)
    common = graph.op("ReduceMean", mean, axes=[1], keepdims=1)
    graph.op("Sub", mean, common, name="embs")
    graph.output("embs", ("N", 80))
    told = {
        "framework": "wespeaker", "language": "any", "url": "", "comment": "", "sample_rate": RATE, "output_dim": 80,
        "normalize_samples": 1,
    }  # fmt: skip
    path.write_bytes(graph.model({k: v for k, v in {**told, **metadata}.items() if v is not None}))
    return path


def sherpa_folder(folder: Path) -> Path:
    """Both, as the engine sherpa-speakers takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    segmentation(folder / "segmentation.onnx")
    embedding(folder / "embedding.onnx")
    return folder


def talk(*parts: tuple[str, float]) -> np.ndarray:
    """Tones in turn (`low`, `high`, `both`, or silence by any other name), each so many seconds."""
    made = []
    for name, seconds in parts:
        if name == "both":
            made.append(tone("low", seconds) + tone("high", seconds))
        else:
            made.append(tone(name, seconds) if name in TONES else np.zeros(round(seconds * RATE), np.float32))
    return np.concatenate(made)
