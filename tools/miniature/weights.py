"""Whisper weights in numpy under openai-whisper's names: the miniature's, random ones, hand-set ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from vocabulary import Vocabulary

Dims = dict[str, int]
State = dict[str, Any]
"""Name -> numpy float32 array."""

COMPACT = Path(__file__).with_name("compact.npz")
VOCABULARY_SIZE = 51_865

# name: (width, encoder layers, decoder layers, heads, mel bands), from openai/whisper's model card
SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "tiny": (384, 4, 4, 6, 80),
    "base": (512, 6, 6, 8, 80),
    "small": (768, 12, 12, 12, 80),
    "medium": (1024, 24, 24, 16, 80),
    "large-v3": (1280, 32, 32, 20, 128),
    "turbo": (1280, 32, 4, 20, 128),
}


def dims_of(size: str) -> Dims:
    """openai's ModelDimensions of a size in SIZES."""
    width, encoder, decoder, heads, mels = SIZES[size]
    return dimensions(width, encoder, decoder, heads, mels)


def dimensions(width: int, encoder: int, decoder: int, heads: int, mels: int = 80) -> Dims:
    """openai's ModelDimensions. 128 mel bands go with the vocabulary of large-v3 (one language more)."""
    return {
        "n_mels": mels,
        "n_audio_ctx": 1500,
        "n_audio_state": width,
        "n_audio_head": heads,
        "n_audio_layer": encoder,
        "n_vocab": VOCABULARY_SIZE + (mels == 128),
        "n_text_ctx": 448,
        "n_text_state": width,
        "n_text_head": heads,
        "n_text_layer": decoder,
    }


def miniature(path: Path = COMPACT) -> tuple[Dims, State]:
    """The trained miniature.

    The file holds float16, and of the token embedding just the rows that occur plus one for all others."""
    with np.load(path) as stored:
        dims: Dims = json.loads(str(stored["__dims__"]))
        tokens = stored["tokens"]
        names = [name for name in stored.files if name not in ("__dims__", "tokens")]
        state: State = {name: stored[name].astype(np.float32) for name in names}
    rows = state["decoder.token_embedding.weight"]
    full = np.repeat(rows[-1:], dims["n_vocab"], axis=0)
    full[tokens] = rows[:-1]
    state["decoder.token_embedding.weight"] = full
    return dims, state


def sinusoids(length: int, channels: int) -> Any:
    """Positions as openai-whisper's `sinusoids`: float32 (length, channels)."""
    step = np.log(10_000) / (channels // 2 - 1)
    scaled = np.arange(length)[:, None] * np.exp(-step * np.arange(channels // 2))[None]
    return np.concatenate([np.sin(scaled), np.cos(scaled)], axis=1).astype(np.float32)


def random_state(dims: Dims, seed: int = 0) -> State:
    """Random weights that keep activations finite. They say nothing sensible: for measuring speed."""
    generator = np.random.default_rng(seed)
    width = dims["n_audio_state"]

    def noise(*shape: int, scale: float = 1.0) -> Any:
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(scale / np.sqrt(width))

    def norm(name: str) -> State:
        return {f"{name}.weight": np.ones(width, np.float32), f"{name}.bias": np.zeros(width, np.float32)}

    def attention(name: str) -> State:
        parts: State = {}
        for part in ("query", "key", "value", "out"):
            parts[f"{name}.{part}.weight"] = noise(width, width)
            if part != "key":
                parts[f"{name}.{part}.bias"] = np.zeros(width, np.float32)
        return {**parts, **norm(f"{name}_ln")}

    state: State = {
        "encoder.positional_embedding": sinusoids(dims["n_audio_ctx"], width),
        "encoder.conv1.weight": noise(width, dims["n_mels"], 3),
        "encoder.conv1.bias": np.zeros(width, np.float32),
        "encoder.conv2.weight": noise(width, width, 3, scale=0.5),
        "encoder.conv2.bias": np.zeros(width, np.float32),
        **norm("encoder.ln_post"),
        "decoder.token_embedding.weight": noise(dims["n_vocab"], width),
        "decoder.positional_embedding": noise(dims["n_text_ctx"], width),
        **norm("decoder.ln"),
    }
    for side, layers in (("encoder", dims["n_audio_layer"]), ("decoder", dims["n_text_layer"])):
        for layer in range(layers):
            block = f"{side}.blocks.{layer}"
            state |= attention(f"{block}.attn")
            if side == "decoder":
                state |= attention(f"{block}.cross_attn")
            state[f"{block}.mlp.0.weight"] = noise(4 * width, width)
            state[f"{block}.mlp.0.bias"] = np.zeros(4 * width, np.float32)
            state[f"{block}.mlp.2.weight"] = noise(width, 4 * width, scale=0.5)
            state[f"{block}.mlp.2.bias"] = np.zeros(width, np.float32)
            state |= norm(f"{block}.mlp_ln")
    return state


def scripted_state(dims: Dims, chain: dict[int, int], seed: int = 0) -> State:
    """Weights under which each token of `chain` is followed by its successor, whatever is heard.

    The decoder becomes an associative memory: attention adds nothing, and the first block's MLP has one row
    for each transition. Token embeddings are random directions, so that a row answers to one token alone."""
    state = random_state(dims, seed)
    width = dims["n_text_state"]
    if len(chain) > 4 * width:
        raise ValueError(f"{len(chain)} transitions do not fit into an MLP of {4 * width} rows")
    embedding = np.random.default_rng(seed + 1).standard_normal((dims["n_vocab"], width))
    embedding -= embedding.mean(axis=1, keepdims=True)
    embedding *= np.sqrt(width) / np.linalg.norm(embedding, axis=1, keepdims=True)
    small = 0.1  # every layer norm undoes it
    strength, confidence, threshold = 4.0, 0.35, 0.75
    state["decoder.token_embedding.weight"] = (embedding * small).astype(np.float32)
    state["decoder.positional_embedding"][:] = 0
    for layer in range(dims["n_text_layer"]):
        for silent in ("attn.out", "cross_attn.out", "mlp.2"):
            state[f"decoder.blocks.{layer}.{silent}.weight"][:] = 0
    gain = 10.0 / ((1 - threshold) * width)
    first, second = np.zeros((4 * width, width)), np.zeros((width, 4 * width))
    bias = np.full(4 * width, -10.0)
    for row, (token, successor) in enumerate(chain.items()):
        first[row] = embedding[token] * gain
        bias[row] = -gain * threshold * width
        second[:, row] = embedding[successor] * small * strength / 10.0
    mlp = "decoder.blocks.0.mlp"
    state[f"{mlp}.0.weight"] = first.astype(np.float32)
    state[f"{mlp}.0.bias"] = bias.astype(np.float32)
    state[f"{mlp}.2.weight"] = second.astype(np.float32)
    state["decoder.ln.weight"][:] = confidence / small
    return state


SCRIPT = (
    (0.0, 4.0, " Good morning, my name is Anna."),
    (4.02, 8.0, " We record this interview for research!"),
)
"""Start and end in seconds, text: what the hand-set model says in every window."""


def script_chain(
    vocabulary: Vocabulary, script: tuple[tuple[float, float, str], ...] = SCRIPT, language: str = "en"
) -> dict[int, int]:
    """Token -> next token, so that the model says `script`. No token may have two successors: ValueError."""
    ids = vocabulary.ids
    chain: dict[int, int] = {}

    def link(token: int, successor: int) -> None:
        if chain.setdefault(token, successor) != successor:
            raise ValueError(f"{vocabulary.tokens[token]!r} occurs twice in the script")

    first_time = ids[f"<|{script[0][0]:.2f}|>"]
    link(ids["<|startoftranscript|>"], ids[f"<|{language}|>"])
    link(ids[f"<|{language}|>"], first_time)
    link(ids["<|translate|>"], first_time)
    link(ids["<|notimestamps|>"], vocabulary.encode(script[0][2])[0])
    before = ids["<|transcribe|>"]
    for start, end, text in script:
        for token in (ids[f"<|{start:.2f}|>"], *vocabulary.encode(text), ids[f"<|{end:.2f}|>"]):
            link(before, token)
            before = token
    link(before, ids["<|endoftext|>"])
    return chain
