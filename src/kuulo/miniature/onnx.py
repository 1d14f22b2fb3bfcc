"""ONNX files for sherpa-onnx: `encoder.onnx`, `decoder.onnx`, `tokens.txt`.

Names and shapes of inputs and outputs, and the metadata, are those that sherpa-onnx reads
(sherpa-onnx/csrc/offline-whisper-model.cc). Attention of the alignment heads is the decoder's fourth output, which
gives it the times of words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kuulo.miniature import hf, vocabulary
from kuulo.miniature.graph import Graph
from kuulo.miniature.weights import Whisper

WORDS_VERSION = 2
"""sherpa-onnx's number for a decoder with four outputs."""

NEVER = np.float32(-1e9)
"""Added to the attention to what comes later, before the softmax."""


def write(folder: Path, whisper: Whisper) -> None:
    """The folder with float32 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.onnx").write_bytes(encoder(whisper).model(metadata(whisper)))
    (folder / "decoder.onnx").write_bytes(decoder(whisper).model({}))
    (folder / "tokens.txt").write_text(vocabulary.tiktoken(), encoding="ascii")


def encoder(whisper: Whisper) -> Graph:
    """mel (N, bands, frames) -> keys and values for each decoder layer's cross attention (layers, N, frames / 2,
    width)."""
    dims = whisper.dims
    graph = Graph("encoder", whisper.state)
    mel = graph.input("mel", "float32", ("n_audio", dims["n_mels"], "frames"))
    x = mel
    for number, stride in ((1, 1), (2, 2)):
        conv = f"encoder.conv{number}"
        weights = (graph.weight(f"{conv}.weight"), graph.weight(f"{conv}.bias"))
        x = _gelu(graph, graph.op("Conv", x, *weights, kernel_shape=(3,), pads=(1, 1), strides=(stride,)))
    x = graph.op("Transpose", x, perm=(0, 2, 1))
    start, end = graph.constant([0]), graph.op("Shape", x, start=1, end=2)
    x = graph.op("Add", x, _slice(graph, graph.weight("encoder.positional_embedding"), start, end, axis=0))
    for layer in range(dims["n_audio_layer"]):
        block = f"encoder.blocks.{layer}"
        normed = _norm(graph, x, f"{block}.attn_ln")
        query, key, value = (_linear(graph, normed, f"{block}.attn.{part}") for part in ("query", "key", "value"))
        found, _ = _attention(graph, f"{block}.attn", dims["n_audio_head"], query, key, value)
        x = graph.op("Add", x, found)
        x = _feed_forward(graph, x, block)
    x = _norm(graph, x, "encoder.ln_post")
    for part, name in (("key", "n_layer_cross_k"), ("value", "n_layer_cross_v")):
        layers = [
            _unsqueezed(graph, _linear(graph, x, f"decoder.blocks.{layer}.cross_attn.{part}"), axis=0)
            for layer in range(dims["n_text_layer"])
        ]
        graph.op("Concat", *layers, axis=0, name=name)
        graph.output(name, (dims["n_text_layer"], "n_audio", "frames_2", dims["n_text_state"]))
    return graph


def decoder(whisper: Whisper) -> Graph:
    """tokens (N, new), what was computed for those before, and the encoder's result -> logits (N, new, vocabulary)."""
    dims = whisper.dims
    graph = Graph("decoder", whisper.state)
    layers, width, places = dims["n_text_layer"], dims["n_text_state"], dims["n_text_ctx"]
    tokens = graph.input("tokens", "int64", ("n_audio", "n_tokens"))
    caches = [
        graph.input(f"in_n_layer_self_{k}_cache", "float32", (layers, "n_audio", places, width)) for k in ("k", "v")
    ]
    crosses = [graph.input(f"n_layer_cross_{k}", "float32", (layers, "n_audio", "frames_2", width)) for k in ("k", "v")]
    offset = graph.input("offset", "int64", (1,))
    end = graph.op("Add", offset, graph.op("Shape", tokens, start=1, end=2))
    embedding = graph.weight("decoder.token_embedding.weight")
    positions = _slice(graph, graph.weight("decoder.positional_embedding"), offset, end, axis=0)
    x = graph.op("Add", graph.op("Gather", embedding, tokens, axis=0), positions)
    mask = graph.constant(np.triu(np.full((places, places), NEVER), 1))
    mask = _slice(graph, _slice(graph, mask, offset, end, axis=0), graph.constant([0]), end, axis=1)
    kept: tuple[list[str], list[str]] = ([], [])
    watched = []
    for layer in range(layers):
        block = f"decoder.blocks.{layer}"
        normed = _norm(graph, x, f"{block}.attn_ln")
        query, *new = (_linear(graph, normed, f"{block}.attn.{part}") for part in ("query", "key", "value"))
        seen = []
        for one, cache, all_layers in zip(new, caches, kept, strict=True):
            whole = _with_new(graph, _layer_of(graph, cache, layer), one, offset, end, places)
            all_layers.append(_unsqueezed(graph, whole, axis=0))
            seen.append(_slice(graph, whole, graph.constant([0]), end, axis=1))
        found, _ = _attention(graph, f"{block}.attn", dims["n_text_head"], query, seen[0], seen[1], mask)
        x = graph.op("Add", x, found)
        query = _linear(graph, _norm(graph, x, f"{block}.cross_attn_ln"), f"{block}.cross_attn.query")
        key, value = (_layer_of(graph, cross, layer) for cross in crosses)
        found, look = _attention(graph, f"{block}.cross_attn", dims["n_text_head"], query, key, value)
        x = _feed_forward(graph, graph.op("Add", x, found), block)
        if heads := [head for at, head in whisper.alignment_heads if at == layer]:
            watched.append(graph.op("Gather", look, graph.constant(heads), axis=1))
    x = graph.op("Transpose", _norm(graph, x, "decoder.ln"), perm=(0, 2, 1))
    graph.op("Transpose", graph.op("MatMul", embedding, x), perm=(0, 2, 1), name="logits")
    graph.output("logits", ("n_audio", "n_tokens", dims["n_vocab"]))
    for k, parts in zip(("k", "v"), kept, strict=True):
        name = graph.op("Concat", *parts, axis=0, name=f"out_n_layer_self_{k}_cache")
        graph.output(name, (layers, "n_audio", places, width))
    name = graph.op("Concat", *watched, axis=1, name="cross_attention_weights")
    graph.output(name, ("n_audio", len(whisper.alignment_heads), "n_tokens", "frames_2"))
    return graph


def metadata(whisper: Whisper) -> dict[str, Any]:
    """What sherpa-onnx reads from the encoder."""
    dims, tokens = whisper.dims, whisper.vocabulary
    ids = tokens.ids
    start = ids["<|startoftranscript|>"]
    return {
        "model_type": "whisper-miniature",
        "version": WORDS_VERSION,
        **dims,
        "sot": start,
        "sot_index": 0,
        "sot_sequence": f"{start},{ids['<|en|>']},{ids['<|transcribe|>']}",
        "eot": ids[hf.END_OF_TEXT],
        "blank_id": hf.BLANK,
        "is_multilingual": 1,
        "all_language_tokens": ",".join(str(ids[f"<|{code}|>"]) for code in tokens.languages),
        "all_language_codes": ",".join(tokens.languages),
        "transcribe": ids["<|transcribe|>"],
        "translate": ids["<|translate|>"],
        "no_speech": ids["<|nospeech|>"],
        "no_timestamps": ids["<|notimestamps|>"],
        "sot_prev": ids["<|startofprev|>"],
        "sot_lm": ids["<|startoflm|>"],
        "n_alignment_heads": len(whisper.alignment_heads),
        "alignment_heads": ",".join(f"{layer}:{head}" for layer, head in whisper.alignment_heads),
    }


# Parts of the network


def _linear(graph: Graph, x: str, name: str) -> str:
    product = graph.op("MatMul", x, graph.op("Transpose", graph.weight(f"{name}.weight"), perm=(1, 0)))
    if name.endswith("key"):
        return product
    return graph.op("Add", product, graph.weight(f"{name}.bias"))


def _norm(graph: Graph, x: str, name: str) -> str:
    return graph.op("LayerNormalization", x, graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias"), epsilon=1e-5)


def _gelu(graph: Graph, x: str) -> str:
    bent = graph.op("Erf", graph.op("Mul", x, graph.constant(np.float32(0.5**0.5), "root_of_half")))
    raised = graph.op("Add", bent, graph.constant(np.float32(1), "one"))
    return graph.op("Mul", graph.op("Mul", x, raised), graph.constant(np.float32(0.5), "half"))


def _feed_forward(graph: Graph, x: str, block: str) -> str:
    inner = _gelu(graph, _linear(graph, _norm(graph, x, f"{block}.mlp_ln"), f"{block}.mlp.0"))
    return graph.op("Add", x, _linear(graph, inner, f"{block}.mlp.2"))


def _attention(
    graph: Graph, name: str, heads: int, query: str, key: str, value: str, mask: str | None = None
) -> tuple[str, str]:
    """What the heads found, projected, and where they looked (N, heads, queries, keys)."""
    width = graph.state[f"{name}.query.weight"].shape[0]
    split = graph.constant([0, 0, heads, width // heads], f"split_in_{heads}")
    query, key, value = (graph.op("Reshape", part, split) for part in (query, key, value))
    query = graph.op("Transpose", query, perm=(0, 2, 1, 3))
    score = graph.op("MatMul", query, graph.op("Transpose", key, perm=(0, 2, 3, 1)))
    score = graph.op("Mul", score, graph.constant(np.float32((width // heads) ** -0.5), f"scale_of_{heads}"))
    look = graph.op("Softmax", graph.op("Add", score, mask) if mask else score, axis=-1)
    found = graph.op("MatMul", look, graph.op("Transpose", value, perm=(0, 2, 1, 3)))
    found = graph.op("Reshape", graph.op("Transpose", found, perm=(0, 2, 1, 3)), graph.constant([0, 0, width], "join"))
    return _linear(graph, found, f"{name}.out"), look


def _with_new(graph: Graph, cache: str, new: str, offset: str, end: str, places: int) -> str:
    """The cache of one layer (N, places, width) with the new tokens at their places."""
    before = _slice(graph, cache, graph.constant([0]), offset, axis=1)
    after = _slice(graph, cache, end, graph.constant([places]), axis=1)
    return graph.op("Concat", before, new, after, axis=1)


def _slice(graph: Graph, x: str, start: str, end: str, axis: int) -> str:
    return graph.op("Slice", x, start, end, graph.constant([axis]))


def _layer_of(graph: Graph, x: str, layer: int) -> str:
    return graph.op("Gather", x, graph.constant(layer), axis=0)


def _unsqueezed(graph: Graph, x: str, axis: int) -> str:
    return graph.op("Unsqueeze", x, graph.constant([axis]))
