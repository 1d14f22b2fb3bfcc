"""Whispers that were never trained, for tests and benchmarks: random weights of true sizes, and hand-set ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from kuulo.miniature.vocabulary import Vocabulary
from kuulo.miniature.weights import Dims, State, Whisper, sinusoids

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


def random(size: str, seed: int = 0) -> Whisper:
    """A Whisper of a size in SIZES with random weights."""
    dims = dims_of(size)
    return Whisper(dims, random_state(dims, seed), Vocabulary(languages=99 + (dims["n_mels"] == 128)))


def scripted(seed: int = 0) -> Whisper:
    """A Whisper that says SCRIPT in every window, whatever it hears."""
    dims, vocabulary = dimensions(64, 4, 4, 2), Vocabulary()
    return Whisper(dims, scripted_state(dims, script_chain(vocabulary), seed), vocabulary)


def scripted_state(dims: Dims, chain: dict[int, int], seed: int = 0) -> State:
    """Weights under which each token of `chain` is followed by its successor, whatever is heard.

    Token embeddings are random directions, so that a row of the memory answers to one token alone."""
    state = random_state(dims, seed)
    embedding = directions(dims["n_vocab"], dims["n_text_state"], seed + 1)
    state["decoder.positional_embedding"][:] = 0
    remember(state, embedding, embedding[list(chain)], embedding[list(chain.values())] * SMALL)
    return state


SMALL = 0.1
"""Of token embeddings: every layer norm undoes it."""


def remember(state: State, embedding: Any, keys: Any, values: Any) -> None:
    """Makes the decoder an associative memory: where it meets a direction of `keys`, it says the token of `values`.

    `embedding`: directions of all tokens, which `state` gets SMALL times. `keys` (n, width): as `directions`.
    `values` (n, width): tokens' directions, 1 or SMALL times. Attention adds nothing then, and the first block's MLP
    has one row for each key; ValueError when there are more keys than rows."""
    confidence, strength, threshold = 0.35, 4.0, 0.75
    count, width = keys.shape
    if count > 4 * width:
        raise ValueError(f"{count} keys do not fit into an MLP of {4 * width} rows")
    for name in state:
        if name.startswith("decoder.blocks.") and name.endswith(("attn.out.weight", "mlp.2.weight")):
            state[name][:] = 0
    gain = 10.0 / ((1 - threshold) * width)
    first, second, bias = np.zeros((4 * width, width)), np.zeros((width, 4 * width)), np.full(4 * width, -10.0)
    first[:count], bias[:count] = keys * gain, -gain * threshold * width
    second[:, :count] = (values * strength / 10.0).T
    mlp = "decoder.blocks.0.mlp"
    state |= {f"{mlp}.0.weight": _single(first), f"{mlp}.0.bias": _single(bias), f"{mlp}.2.weight": _single(second)}
    state["decoder.token_embedding.weight"] = _single(embedding * SMALL)
    state["decoder.ln.weight"][:] = confidence / SMALL


def directions(count: int, width: int, seed: int) -> Any:
    """`count` random vectors of mean 0 and length sqrt(width)."""
    vectors = np.random.default_rng(seed).standard_normal((count, width))
    vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors * np.sqrt(width) / np.linalg.norm(vectors, axis=1, keepdims=True)


def _single(array: Any) -> Any:
    return array.astype(np.float32)


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
