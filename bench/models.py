"""The models that are measured with.

Speed: weights of Whisper's true shapes whose decoder says a fixed number of tokens for every window, whatever is
heard. The work is that of a real model of the size: every matrix is multiplied, none is skipped for being mostly
zero. Purely random weights would do as well, were it not that they repeat a token until a limit is reached, and the
two programs compared have no common option for that limit.

Words: the miniature Whisper of the tests, which hears.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "miniature"))

import weights  # noqa: E402
from vocabulary import Vocabulary, find_tiktoken  # noqa: E402
from writers import WRITERS  # noqa: E402

PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>")

SENTENCE = "good morning we study water and language at home now and the answer is new"
"""Each word is one token."""


def reciting(folder: Path, size: str, tokens: int, seconds: float) -> Path:
    """A CTranslate2 folder of `size` that says `tokens` tokens (times among them) for each window and ends at
    `seconds`; written once and kept."""
    path = folder / f"{size}-{tokens}-tokens-{seconds:g}-s"
    if not path.exists():
        vocabulary = Vocabulary(find_tiktoken())
        dims = weights.dims_of(size)
        said = recital(vocabulary, tokens, seconds)
        staging = path.with_name(path.name + ".new")
        WRITERS["ct2"][1](staging, dims, reciting_state(dims, vocabulary, said), vocabulary)
        staging.rename(path)
    return path


def recital(vocabulary: Vocabulary, tokens: int, seconds: float) -> list[int]:
    """Token ids of sentences of at most 18 words with their times, `tokens` in all, and the end of the text."""
    sentences = max(1, round(tokens / 20))
    words = [vocabulary.encode(f" {word}")[0] for word in SENTENCE.split()]
    ids: list[int] = []
    for number in range(sentences):
        first, last = tokens * number // sentences, tokens * (number + 1) // sentences
        start, end = (round(seconds * (number + part) / sentences * 50) for part in (0, 1))
        begin, finish = (vocabulary.ids[f"<|{step * 0.02:.2f}|>"] for step in (start, end))
        ids += [begin, *(words[i % len(words)] for i in range(last - first - 2)), finish]
    return [*ids, vocabulary.ids["<|endoftext|>"]]


def reciting_state(dims: weights.Dims, vocabulary: Vocabulary, said: list[int], seed: int = 1) -> weights.State:
    """Weights under which the token at each place of the output is that of `said`.

    The first block's MLP has one row for each place, which answers to that place's positional embedding and adds
    the token's embedding. The place decides and not the token before, so that all hypotheses of a beam end
    together, as those of a trained model mostly do."""
    state = weights.random_state(dims, seed)
    width, places = dims["n_text_state"], dims["n_text_ctx"]
    embedding = directions(dims["n_vocab"], width, seed + 1)
    place = directions(places, width, seed + 2)
    small, strength, confidence, threshold = 0.1, 4.0, 0.35, 0.75
    state["decoder.token_embedding.weight"] = (embedding * small).astype(np.float32)
    state["decoder.positional_embedding"] = place.astype(np.float32)
    for layer in range(dims["n_text_layer"]):
        for silent in ("attn.out", "cross_attn.out", "mlp.2"):
            state[f"decoder.blocks.{layer}.{silent}.weight"][:] = 0
    after = [*(vocabulary.ids[name] for name in PROMPT[1:]), *said]
    after += [vocabulary.ids["<|endoftext|>"]] * (places - len(after))
    gain = 10.0 / ((1 - threshold) * width)
    first, second = np.zeros((4 * width, width)), np.zeros((width, 4 * width))
    bias = np.full(4 * width, -10.0)
    first[:places] = place * gain
    bias[:places] = -gain * threshold * width
    second[:, :places] = (embedding[after] * strength / 10.0).T
    mlp = "decoder.blocks.0.mlp"
    state[f"{mlp}.0.weight"] = first.astype(np.float32)
    state[f"{mlp}.0.bias"] = bias.astype(np.float32)
    state[f"{mlp}.2.weight"] = second.astype(np.float32)
    state["decoder.ln.weight"][:] = confidence / small
    return state


def directions(count: int, width: int, seed: int) -> Any:
    """`count` random vectors of mean 0 and length sqrt(width)."""
    vectors = np.random.default_rng(seed).standard_normal((count, width))
    vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors * np.sqrt(width) / np.linalg.norm(vectors, axis=1, keepdims=True)


def miniature(folder: Path) -> Path:
    """The miniature as a CTranslate2 folder; written once and kept."""
    path = folder / "miniature"
    if not path.exists():
        dims, state = weights.miniature()
        staging = path.with_name(path.name + ".new")
        WRITERS["ct2"][1](staging, dims, state, Vocabulary(find_tiktoken()))
        staging.rename(path)
    return path
