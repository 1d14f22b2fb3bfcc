"""The smallest speaker pipelines that pass their checks: true pickles, archives and headers, no weights to speak of.

pipelines.pyannote(folder)                      # as speaker-diarization-community-1: names its own parts
pipelines.pyannote(folder, config=VERSION_3)    # as speaker-diarization-3.1: names other repositories
pipelines.speakers_onnx(folder)
pipelines.nemo(path)
"""

from __future__ import annotations

import collections
import io
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiny

CONFIG = """\
dependencies:
  pyannote.audio: 4.0.0

pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_batch_size: 32
    embedding: $model/embedding
    embedding_batch_size: 32
    embedding_exclude_overlap: true
    plda: $model/plda

params:
  clustering:
    threshold: 0.6
    Fa: 0.07
    Fb: 0.8
  segmentation:
    min_duration_off: 0.0
"""

VERSION_3 = """\
version: 3.1.0

pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: AgglomerativeClustering
    embedding: pyannote/wespeaker-voxceleb-resnet34-LM
    embedding_batch_size: 32
    embedding_exclude_overlap: true
    segmentation: pyannote/segmentation-3.0
    segmentation_batch_size: 32

params:
  clustering:
    method: centroid
    min_cluster_size: 12
    threshold: 0.7045654963945799
  segmentation:
    min_duration_off: 0.0
"""

SORTFORMER = {
    "sample_rate": 16_000, "pil_weight": 0.5, "ats_weight": 0.5, "max_num_of_spks": 4, "streaming_mode": True,
    "model_defaults": {"fc_d_model": 32, "tf_d_model": 16},
    "preprocessor": {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "normalize": "NA",
        "window_size": 0.025, "sample_rate": 16_000, "window_stride": 0.01, "window": "hann", "features": 40,
        "n_fft": 512, "frame_splicing": 1, "dither": 0.0,
    },
    "sortformer_modules": {
        "_target_": "nemo.collections.asr.modules.sortformer_modules.SortformerModules", "num_spks": 4,
        "dropout_rate": 0.1, "fc_d_model": 32, "tf_d_model": 16, "subsampling_factor": 8, "spkcache_len": 188,
        "fifo_len": 0, "chunk_len": 188, "spkcache_update_period": 188, "chunk_left_context": 1,
        "chunk_right_context": 1,
    },
    "encoder": {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": 40, "feat_out": -1, "n_layers": 1,
        "d_model": 32, "subsampling": "dw_striding", "subsampling_factor": 8, "subsampling_conv_channels": 16,
        "ff_expansion_factor": 2, "self_attention_model": "rel_pos", "n_heads": 2, "att_context_size": [-1, -1],
        "conv_kernel_size": 9, "dropout": 0.0, "dropout_pre_encoder": 0.0, "dropout_emb": 0.0, "dropout_att": 0.0,
    },
    "transformer_encoder": {
        "_target_": "nemo.collections.asr.modules.transformer.transformer_encoders.TransformerEncoder",
        "num_layers": 1, "hidden_size": 16, "inner_size": 32, "num_attention_heads": 2, "attn_score_dropout": 0.0,
        "attn_layer_dropout": 0.0, "ffn_dropout": 0.0, "hidden_act": "relu", "pre_ln": False,
        "pre_ln_final_layer_norm": True,
    },
    "loss": {"_target_": "nemo.collections.asr.losses.bce_loss.BCELoss", "weight": None, "reduction": "mean"},
}  # fmt: skip
"""The configuration of a small Sortformer, with the names of the published ones (NeMo's examples,
streaming_sortformer_diarizer_4spk-v2.yaml)."""

TARGET = "nemo.collections.asr.models.sortformer_diar_models.SortformerEncLabelModel"

FILES = (
    "config.yaml", "embedding/pytorch_model.bin", "plda/plda.npz", "plda/xvec_transform.npz",
    "segmentation/pytorch_model.bin",
)  # fmt: skip

SEGMENTATION = {
    "sample_rate": 16_000, "window_size": 160_000, "receptive_field_size": 991, "receptive_field_shift": 270,
    "num_speakers": 3, "powerset_max_classes": 2, "num_classes": 7,
}  # fmt: skip
WESPEAKER = {
    "framework": "wespeaker", "output_dim": 256, "sample_rate": 16_000, "normalize_samples": 0, "language": "English",
}  # fmt: skip
NEMO = {
    "framework": "nemo", "output_dim": 192, "feat_dim": 80, "sample_rate": 16_000, "window_size_ms": 25,
    "window_stride_ms": 10, "language": "English", "feature_normalize_type": "per_feature",
}  # fmt: skip


def pyannote(folder: Path, config: str = CONFIG) -> Path:
    """A pipeline of pyannote.audio, with all parts."""
    for part, module, name in (
        ("segmentation", "pyannote.audio.models.segmentation.PyanNet", "PyanNet"),
        ("embedding", "pyannote.audio.models.embedding.wespeaker", "WeSpeakerResNet34"),
    ):
        (folder / part).mkdir(parents=True)
        archive(folder / part / "pytorch_model.bin", pickled(checkpoint(module, name)))
    (folder / "plda").mkdir()
    arrays(folder / "plda" / "xvec_transform.npz", "mean1", "mean2", "lda")
    arrays(folder / "plda" / "plda.npz", "mu", "tr", "psi")
    (folder / "config.yaml").write_text(config)
    return folder


def speakers_onnx(
    folder: Path, segmentation: Mapping[str, Any] = SEGMENTATION, embedding: Mapping[str, Any] = WESPEAKER
) -> Path:
    """A pipeline of sherpa-onnx."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "segmentation.onnx").write_bytes(tiny.onnx_file(("y",), dict(segmentation)))
    (folder / "embedding.onnx").write_bytes(tiny.onnx_file(("embs",), dict(embedding)))
    return folder


def nemo(
    path: Path, config: str | None = None, raw: bytes | None = None, more: Mapping[str, Any] | None = None
) -> Path:
    """A Sortformer of NeMo, or one whose configuration, pickle or further members of the archive (content, or a
    TarInfo) are others."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    told = {**SORTFORMER, "target": TARGET, "nemo_version": "3.0.0"}
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = archive(path.with_suffix(".ckpt"), pickled(STATE) if raw is None else raw)
    members = {
        "./model_config.yaml": (yaml.safe_dump(told) if config is None else config).encode(),
        "./model_weights.ckpt": weights.read_bytes(),
        **(more or {}),
    }
    weights.unlink()
    with tarfile.open(path, "w:") as out:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if content is info else len(content)
            out.addfile(info, None if content is info else io.BytesIO(content))
    return path


def arrays(path: Path, *names: str) -> None:
    """An .npz file with one number for each array."""
    import numpy as np

    np.savez(path, **{name: np.ones(1) for name in names})


class Specifications:
    """Pickled under the name of pyannote.audio's class, as are the others here."""

    def __init__(self) -> None:
        self.problem = Problem(1)
        self.duration = 10.0
        self.classes = ["speaker#1", "speaker#2", "speaker#3"]


class Problem:
    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return Problem, (self.number,)


class FloatStorage:
    pass


def _rebuild_tensor_v2(*_: Any) -> None:
    pass


class Tensor:
    """Ten numbers in the archive's data/0."""

    def __reduce__(self) -> Any:
        return _rebuild_tensor_v2, (Storage(), 0, (10,), (1,), False, collections.OrderedDict())


class Storage:
    pass


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return ("storage", FloatStorage, "0", "cpu", 10) if isinstance(obj, Storage) else None


STATE = collections.OrderedDict(
    {f"{part}.weight": Tensor() for part in ("encoder", "transformer_encoder", "sortformer_modules")}
)
"""The names of a Sortformer's weights, as far as they are looked at."""

PLACES = {
    "Specifications": "pyannote.audio.core.task", "Problem": "pyannote.audio.core.task", "FloatStorage": "torch",
    "_rebuild_tensor_v2": "torch._utils",
}  # fmt: skip


def checkpoint(module: str, name: str, **more: Any) -> dict[str, Any]:
    """What Lightning saves of a model of pyannote.audio."""
    return {
        "epoch": 0,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": collections.OrderedDict(weight=Tensor()),
        "hyper_parameters": {"lstm": {"hidden_size": 8}},
        "pyannote.audio": {
            "versions": {"pyannote.audio": "4.0.0"},
            "architecture": {"module": module, "class": name},
            "specifications": Specifications(),
        },
        **more,
    }


def pickled(content: Any) -> bytes:
    """Pickled by protocol 2, with the names that the true classes have (which need not be installed)."""
    out = io.BytesIO()
    _Pickler(out, protocol=2).dump(content)
    raw = out.getvalue()
    for name, place in PLACES.items():
        raw = raw.replace(f"c{__name__}\n{name}\n".encode(), f"c{place}\n{name}\n".encode())
    return raw


def archive(path: Path, raw: bytes, more: Mapping[str, bytes] | None = None) -> Path:
    """The zip archive that PyTorch writes."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", raw)
        for name, content in (more or {"archive/data/0": bytes(40), "archive/version": b"3\n"}).items():
            out.writestr(name, content)
    return path
