"""whisper.cpp's file with float16 weights; the layout is that of its models/convert-pt-to-ggml.py."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from kuulo.miniature.weights import Whisper

MAGIC = 0x67676D6C
HALF = 1

HEADER = (
    "n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_text_ctx", "n_text_state",
    "n_text_head", "n_text_layer", "n_mels",
)  # fmt: skip


def write(file: Path, whisper: Whisper) -> None:
    """The file. It has no place for alignment heads."""
    dims, tokens = whisper.dims, whisper.vocabulary.bytes
    filters = mel_filters(dims["n_mels"])
    with file.open("wb") as out:
        out.write(struct.pack("<i11i", MAGIC, *(dims[key] for key in HEADER), HALF))
        out.write(struct.pack("<ii", *filters.shape) + filters.tobytes())
        out.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            out.write(struct.pack("<i", len(token)) + token)
        for name, array in whisper.state.items():
            out.write(tensor(name, array))


def tensor(name: str, array: Any) -> bytes:
    """One tensor with its header: biases, norms and positions in float32, the rest in float16."""
    array = np.squeeze(array)
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        array = array.reshape(-1, 1)
        half = False
    else:
        half = array.ndim >= 2 and not name.endswith("positional_embedding")
    label = name.encode()
    shape = array.shape[::-1]
    head = struct.pack(f"<iii{len(shape)}i", array.ndim, len(label), int(half), *shape)
    return head + label + np.ascontiguousarray(array, np.float16 if half else np.float32).tobytes()


def mel_filters(bands: int, rate: int = 16_000, fft: int = 400) -> Any:
    """Triangular filters on Slaney's mel scale, float32 (bands, fft // 2 + 1), as in openai-whisper."""
    linear_step, log_start, log_step = 200 / 3, 1000.0, np.log(6.4) / 27
    knee = log_start / linear_step
    top = knee + np.log(rate / 2 / log_start) / log_step
    mels = np.linspace(0.0, top, bands + 2)
    points = np.where(mels >= knee, log_start * np.exp(log_step * (mels - knee)), linear_step * mels)
    widths = np.diff(points)
    ramps = points[:, None] - np.fft.rfftfreq(fft, 1 / rate)[None]
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    weights = np.maximum(0, np.minimum(rising, falling))
    return (weights * (2.0 / (points[2:] - points[:-2]))[:, None]).astype(np.float32)
