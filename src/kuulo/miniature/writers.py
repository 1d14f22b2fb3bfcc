"""Which formats a Whisper can be written in, and by what. Each writer has the signature (path, whisper) -> None."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kuulo.miniature import ct2, ggml, hf, onnx, pt
from kuulo.miniature.weights import Whisper

Writer = Callable[[Path, Whisper], None]

# format: (name of the folder or file, writer)
WRITERS: dict[str, tuple[str, Writer]] = {
    "ct2": ("ct2", ct2.write),
    "ct2-int8": ("ct2-int8", ct2.write_int8),
    "ggml": ("ggml.bin", ggml.write),
    "hf": ("hf", hf.write),
    "onnx": ("onnx", onnx.write),
    "pt": ("pt.pt", pt.write),
}
