"""The smallest model files that pass for a Whisper in each format: true headers, hardly any weights.

tiny.make("ct2", folder / "my-model")     # gives the path: a folder, or a file
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

SUFFIX = {"ct2": "", "hf": "", "onnx": "", "ggml": ".bin", "pt": ".pt"}

MAIN = {"ct2": "model.bin", "hf": "model.safetensors", "onnx": "encoder.int8.onnx"}
"""The file with the weights, of formats that are a folder."""


def make(format_: str, path: Path, **dims: int) -> Path:
    """Writes a model; `dims`: vocabulary, mels, encoder, decoder (layers)."""
    path = path.with_name(path.name + SUFFIX[format_])
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"vocabulary": 51_865, "mels": 80, "encoder": 2, "decoder": 2, **dims}
    {"ct2": _ct2, "ggml": _ggml, "hf": _hf, "onnx": _onnx, "pt": _pt}[format_](path, **shape)
    return path


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _text(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def _ct2(path: Path, vocabulary: int, mels: int, encoder: int, decoder: int) -> None:
    path.mkdir()
    variables = {
        "decoder/embeddings/weight": (vocabulary, 1),
        "encoder/conv1/weight": (2, mels, 3),
        **{f"encoder/layer_{i}/ffn/layer_norm/beta": (4,) for i in range(encoder)},
        **{f"decoder/layer_{i}/ffn/layer_norm/beta": (4,) for i in range(decoder)},
    }
    out = struct.pack("<I", 6) + _text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, extents in variables.items():
        count = 1
        for extent in extents:
            count *= extent
        out += _text(name) + struct.pack(f"<B{len(extents)}I", len(extents), *extents)
        out += struct.pack("<BI", 1, count) + bytes(count)  # int8
    out += struct.pack("<I", 1) + _text("decoder/projection/weight") + _text("decoder/embeddings/weight")
    (path / "model.bin").write_bytes(out)
    _json(path / "config.json", {"lang_ids": [1]})
    _json(path / "vocabulary.json", ["a", "b"])
    _json(path / "tokenizer.json", {"version": "1.0"})
    if mels != 80:
        _json(path / "preprocessor_config.json", {"feature_size": mels})


def _ggml(path: Path, vocabulary: int, mels: int, encoder: int, decoder: int) -> None:
    out = struct.pack("<I", 0x67676D6C)
    out += struct.pack("<11i", vocabulary, 1500, 64, 1, encoder, 448, 64, 1, decoder, mels, 1)
    out += struct.pack("<2i", mels, 201) + bytes(4 * mels * 201)
    out += struct.pack("<i", 2) + struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + b"bc"
    for number in range(11 + 15 * encoder + 24 * decoder):
        name = f"tensor.{number}".encode()
        out += struct.pack("<3i", 2, len(name), 1) + struct.pack("<2i", 8, 4) + name + bytes(64)
    path.write_bytes(out)


def safetensors(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of bytes that are all zero."""
    header, offset = {}, 0
    for name, extents in tensors.items():
        count = 2
        for extent in extents:
            count *= extent
        header[name] = {"dtype": "F16", "shape": list(extents), "data_offsets": [offset, offset + count]}
        offset += count
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(offset))


def _hf(path: Path, vocabulary: int, mels: int, encoder: int, decoder: int) -> None:
    path.mkdir()
    config = {"model_type": "whisper", "vocab_size": vocabulary, "num_mel_bins": mels}
    _json(path / "config.json", {**config, "encoder_layers": encoder, "decoder_layers": decoder})
    _json(path / "preprocessor_config.json", {"feature_size": mels})
    _json(path / "generation_config.json", {"is_multilingual": True})
    _json(path / "tokenizer.json", {"version": "1.0"})
    _json(path / "tokenizer_config.json", {})
    safetensors(path / "model.safetensors", {"model.encoder.conv1.weight": (4, mels, 3), "x": (500,)})


def field(number: int, content: bytes | str) -> bytes:
    """A counted field of Protocol Buffers."""
    raw = content.encode() if isinstance(content, str) else content
    length, size = len(raw), b""
    while length > 0x7F:
        size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + raw


def onnx_file(outputs: tuple[str, ...], metadata: dict[str, Any], weights: str = "") -> bytes:
    """An ONNX file with some zeros for weights, or with a name of the file that has them."""
    where = field(13, field(1, "location") + field(2, weights)) if weights else field(9, bytes(300))
    graph = field(2, "whisper") + field(5, field(8, "w") + where) + b"".join(field(12, field(1, o)) for o in outputs)
    said = b"".join(field(14, field(1, key) + field(2, str(value))) for key, value in metadata.items())
    return b"\x08\x08" + field(7, graph) + said


def _onnx(path: Path, vocabulary: int, mels: int, encoder: int, decoder: int) -> None:
    path.mkdir()
    numbers = {
        "n_text_ctx": 448,
        "n_text_state": 64,
        "sot": 5,
        "eot": 3,
        "blank_id": 1,
        "translate": 6,
        "transcribe": 7,
    }
    said = {"n_mels": mels, "n_vocab": vocabulary, "n_audio_layer": encoder, "n_text_layer": decoder, **numbers}
    said |= {"is_multilingual": 1, "all_language_codes": "en,fi", "no_speech": 8, "no_timestamps": 9}
    (path / "encoder.int8.onnx").write_bytes(onnx_file(("n_layer_cross_k",), {**said, "sot_sequence": "5,6,7"}))
    (path / "decoder.int8.onnx").write_bytes(onnx_file(("logits",), {}))
    (path / "tokens.txt").write_text("IQ== 0\nIg== 1\n= 2\n")


def _pt(path: Path, vocabulary: int, mels: int, encoder: int, decoder: int) -> None:
    dims = {"n_mels": mels, "n_vocab": vocabulary, "n_audio_layer": encoder, "n_text_layer": decoder}
    checkpoint(path, {"dims": dims, "model_state_dict": {}})


def checkpoint(path: Path, content: Any) -> None:
    """A zip archive as PyTorch writes it, with the content pickled by protocol 2."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr(f"{path.stem}/data/0", bytes(1000))
        archive.writestr(f"{path.stem}/version", "3\n")
