"""Small models that tell speakers apart, for tests: their speakers are tones. `low` and `high` are heard by the
segmentation as its local speakers 1 and 2.

sherpa-onnx's are made by hand: filters at the tones' frequencies; a voice is the mean of its mel bands.
pyannote.audio's are networks of its own classes: a PyanNet that learns the tones in a minute, and random x-vectors,
centred between them. NeMo's is a Sortformer of its own class, which learns them too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import pipelines
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


def pyannote_folder(folder: Path, steps: int = 120, voice: int = 16) -> Path:
    """A pipeline for pyannote.audio 4, which has to be installed; the same weights each time on one machine. `voice`:
    how many numbers an embedding has."""
    import torch

    torch.manual_seed(0)
    _keep(_trained(steps), folder / "segmentation")
    _keep(_centred(voice), folder / "embedding")
    (folder / "plda").mkdir()
    np.savez(folder / "plda" / "xvec_transform.npz", mean1=np.zeros(voice), mean2=np.zeros(8), lda=np.eye(voice, 8))
    np.savez(folder / "plda" / "plda.npz", mu=np.zeros(8), tr=np.eye(8), psi=np.linspace(5, 0.5, 8))
    (folder / "config.yaml").write_text(pipelines.CONFIG)
    return folder


def _trained(steps: int) -> Any:
    """A small PyanNet that has learned when `low`, `high` or both are heard."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.segmentation import PyanNet

    network = PyanNet(lstm={"hidden_size": 8, "num_layers": 1}, linear={"hidden_size": 16, "num_layers": 1})
    network.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION, resolution=Resolution.FRAME, duration=WINDOW / RATE,
        classes=["1", "2", "3"], powerset_max_classes=2, permutation_invariant=True,
    )  # fmt: skip
    network.build()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    random = np.random.default_rng(0)
    for _ in range(steps):
        samples, frames = (
            torch.from_numpy(np.stack(x)) for x in zip(*(_lesson(random) for _ in range(4)), strict=True)
        )
        scores = network(samples[:, None])  # (4, frames, 7), log probabilities
        loss = torch.nn.functional.nll_loss(scores.transpose(1, 2), frames[:, : scores.shape[1]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def _lesson(random: np.random.Generator, first: int = FIELD // 2, step: int = SHIFT) -> tuple[np.ndarray, np.ndarray]:
    """A window of tones in noise, and for each frame the class that is heard: 0 nobody, 1 low, 2 high, 4 both."""
    longest = random.choice([3.0, 40.0], p=[0.8, 0.2])
    parts = [(("", "low", "high", "both")[n], float(random.uniform(0.3, longest))) for n in random.integers(4, size=40)]
    loud = random.uniform(0.3, 1.2, len(parts))
    ends = np.cumsum([seconds for _, seconds in parts])
    enough = int(np.searchsorted(ends, WINDOW / RATE)) + 1
    samples = np.concatenate([talk(part) * float(n) for part, n in zip(parts[:enough], loud, strict=False)])[:WINDOW]
    heard = np.concatenate([np.full(round(s * RATE), {"low": 1, "high": 2, "both": 4}.get(n, 0)) for n, s in parts])
    noise = random.normal(0, 10 ** random.uniform(-5, -2.5), WINDOW)
    return (samples + noise).astype(np.float32), heard[first:WINDOW:step]


def _centred(dimension: int) -> Any:
    """Random x-vectors, in which the two tones are opposite."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import XVectorMFCC

    network = XVectorMFCC(dimension=dimension)
    network.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=WINDOW / RATE
    )
    network.build()
    network.eval()
    with torch.no_grad():
        network.embedding.bias -= sum(network(torch.from_numpy(tone(name, 3))[None, None])[0] for name in TONES) / 2
    return network


def _keep(network: Any, folder: Path) -> None:
    """As Lightning and pyannote.audio write a checkpoint."""
    import pyannote.audio
    import torch

    folder.mkdir(parents=True)
    about = {
        "versions": {"torch": str(torch.__version__), "pyannote.audio": pyannote.audio.__version__},
        "architecture": {"module": type(network).__module__, "class": type(network).__name__},
        "specifications": network.specifications,
    }
    content = {
        "state_dict": network.state_dict(), "hyper_parameters": dict(network.hparams), "pyannote.audio": about,
        "pytorch-lightning_version": "2.6.0", "epoch": 0, "global_step": 0,
    }  # fmt: skip
    torch.save(content, folder / "pytorch_model.bin")


FRAME = 1_280
"""Samples of a Sortformer's frame, 80 ms."""


def sortformer(path: Path, *, streaming: bool = True, steps: int = 120) -> Path:
    """A `.nemo` file, for which NeMo has to be installed: its speakers 0 and 1 are `low` and `high`; the same weights
    each time on one machine."""
    import torch
    from nemo.collections.asr.models import SortformerEncLabelModel
    from omegaconf import OmegaConf

    torch.manual_seed(0)
    config = {**pipelines.SORTFORMER, "streaming_mode": streaming}
    model = SortformerEncLabelModel(cfg=OmegaConf.create(config))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    random = np.random.default_rng(0)
    model.train()
    for _ in range(steps):
        lessons = [_lesson(random, FRAME // 2, FRAME) for _ in range(4)]
        samples, frames = (torch.from_numpy(np.stack(x)) for x in zip(*lessons, strict=True))
        features, lengths = model.preprocessor(input_signal=samples, length=torch.full((4,), WINDOW))
        heard = model.forward_infer(*model.frontend_encoder(features, lengths))  # (4, frames, 4), probabilities
        speak = torch.stack([(frames == 1) | (frames == 4), (frames == 2) | (frames == 4)], -1).float()
        truth = torch.nn.functional.pad(speak, (0, 2))[:, : heard.shape[1]]
        loss = torch.nn.functional.binary_cross_entropy(heard[:, : truth.shape[1]], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_to(str(path.absolute()))
    return path


def talk(*parts: tuple[str, float]) -> np.ndarray:
    """Tones in turn (`low`, `high`, `both`, or silence by any other name), each so many seconds."""
    made = []
    for name, seconds in parts:
        if name == "both":
            made.append(tone("low", seconds) + tone("high", seconds))
        else:
            made.append(tone(name, seconds) if name in TONES else np.zeros(round(seconds * RATE), np.float32))
    return np.concatenate(made)
