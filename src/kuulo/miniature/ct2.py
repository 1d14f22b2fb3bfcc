"""A CTranslate2 folder, as faster-whisper reads it.

The layout is that of CTranslate2's Python package: names and values of ctranslate2/specs/whisper_spec.py, bytes of
`ModelSpec._serialize` (version 6), 8-bit weights of `LayerSpec._quantize`. A test compares it with that package's own
writer, byte for byte.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from kuulo.miniature import hf
from kuulo.miniature.weights import State, Whisper

VERSION, SPEC, REVISION = 6, "WhisperSpec", 3
GELU = 3

TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
"""The number of a type is its place."""

ALIASES = {"decoder/projection/weight": "decoder/embeddings/weight"}

# openai-whisper's name of a layer norm or linear part, in a layer -> CTranslate2's
NORMS = {"attn_ln": "self_attention", "cross_attn_ln": "attention", "mlp_ln": "ffn"}
FEED_FORWARD = {"mlp.0": "ffn/linear_0", "mlp.2": "ffn/linear_1"}

# openai-whisper's attention -> CTranslate2's, and which projections are joined in each of its matrices
ATTENTIONS: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "attn": ("self_attention", (("query", "key", "value"), ("out",))),
    "cross_attn": ("attention", (("query",), ("key", "value"), ("out",))),
}


def write(folder: Path, whisper: Whisper) -> None:
    """The folder with float32 weights."""
    _write(folder, whisper, variables(whisper))


def write_int8(folder: Path, whisper: Whisper) -> None:
    """The folder with 8-bit weights."""
    stored: State = {}
    for name, value in variables(whisper).items():
        if name.endswith("/weight"):
            stored[name], stored[f"{name}_scale"] = quantized(value)
        else:
            stored[name] = value
    _write(folder, whisper, stored)


def variables(whisper: Whisper) -> State:
    """All variables by CTranslate2's names."""
    dims, state = whisper.dims, whisper.state
    found = {**_settings(dims["n_audio_head"], dims["n_text_head"])}
    for side, layers in (("encoder", dims["n_audio_layer"]), ("decoder", dims["n_text_layer"])):
        found[f"{side}/position_encodings/encodings"] = state[f"{side}.positional_embedding"]
        for layer in range(layers):
            found |= _layer(state, f"{side}.blocks.{layer}", f"{side}/layer_{layer}")
    found |= _pair(state, "encoder.conv1", "encoder/conv1") | _pair(state, "encoder.conv2", "encoder/conv2")
    found |= _norm(state, "encoder.ln_post", "encoder") | _norm(state, "decoder.ln", "decoder")
    found["decoder/embeddings/weight"] = state["decoder.token_embedding.weight"]
    return found


def quantized(value: Any) -> tuple[Any, Any]:
    """(int8 of the same shape, float32 scale of each row): a row's largest value becomes 127."""
    rows = value.reshape(value.shape[0], -1)
    largest = np.abs(rows).max(axis=1)
    largest[largest == 0] = 127.0
    scale = (127.0 / largest).astype(np.float32)
    return np.rint(rows * scale[:, None]).astype(np.int8).reshape(value.shape), scale


def _settings(encoder_heads: int, decoder_heads: int) -> State:
    off, on = np.int8(0), np.int8(1)
    return {
        "encoder/num_heads": np.int16(encoder_heads),
        "decoder/num_heads": np.int16(decoder_heads),
        "decoder/activation": np.int8(GELU),
        "decoder/alibi": off,
        "decoder/alibi_use_positive_positions": off,
        "decoder/alignment_heads": np.int16(1),
        "decoder/alignment_layer": np.int16(-1),
        "decoder/pre_norm": on,
        "decoder/scale_alibi": off,
        "decoder/scale_embeddings": off,
        "decoder/start_from_zero_embedding": off,
    }


def _layer(state: State, ours: str, theirs: str) -> State:
    found: State = {}
    for name, norm in NORMS.items():
        if f"{ours}.{name}.weight" in state:
            found |= _norm(state, f"{ours}.{name}", f"{theirs}/{norm}")
    for name, linear in FEED_FORWARD.items():
        found |= _pair(state, f"{ours}.{name}", f"{theirs}/{linear}")
    for name, (attention, matrices) in ATTENTIONS.items():
        if f"{ours}.{name}.query.weight" in state:
            for number, parts in enumerate(matrices):
                names = [f"{ours}.{name}.{part}" for part in parts]
                found[f"{theirs}/{attention}/linear_{number}/weight"] = _joined(state, names, "weight")
                found[f"{theirs}/{attention}/linear_{number}/bias"] = _joined(state, names, "bias")
    return found


def _joined(state: State, names: list[str], kind: str) -> Any:
    """Rows of several matrices, or their biases; the key has none, which is 0."""
    none = np.zeros(state[f"{names[0]}.weight"].shape[0], np.float32)
    return np.concatenate([state.get(f"{name}.{kind}", none) for name in names])


def _pair(state: State, ours: str, theirs: str) -> State:
    return {f"{theirs}/weight": state[f"{ours}.weight"], f"{theirs}/bias": state[f"{ours}.bias"]}


def _norm(state: State, ours: str, theirs: str) -> State:
    norm = f"{theirs}/layer_norm"
    return {f"{norm}/gamma": state[f"{ours}.weight"], f"{norm}/beta": state[f"{ours}.bias"]}


def _write(folder: Path, whisper: Whisper, stored: State) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.bin").open("wb") as out:
        out.write(struct.pack("<I", VERSION) + _text(SPEC) + struct.pack("<2I", REVISION, len(stored)))
        for name, value in sorted(stored.items()):
            out.write(_text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
            out.write(struct.pack("<BI", TYPES.index(str(value.dtype)), value.nbytes))
            out.write(np.ascontiguousarray(value).tobytes())
        out.write(struct.pack("<I", len(ALIASES)))
        for alias, name in ALIASES.items():
            out.write(_text(alias) + _text(name))
    tokens = whisper.vocabulary
    config = {
        "alignment_heads": whisper.alignment_heads,
        "lang_ids": [tokens.ids[f"<|{code}|>"] for code in tokens.languages],
        "suppress_ids": [],
        "suppress_ids_begin": [hf.BLANK, tokens.ids[hf.END_OF_TEXT]],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "vocabulary.json").write_text(json.dumps(tokens.tokens, indent=2), encoding="utf-8")
    hf.write_json(folder / "tokenizer.json", tokens.tokenizer_json())
    hf.write_json(folder / "preprocessor_config.json", hf.preprocessor(whisper.dims))


def _text(text: str) -> bytes:
    """A length of two bytes, which counts the zero at the end, and the bytes."""
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw
