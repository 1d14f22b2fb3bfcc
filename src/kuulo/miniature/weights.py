"""Whisper weights in numpy under openai-whisper's names, and the miniature's, expanded from their compact file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kuulo import miniature
from kuulo.miniature.vocabulary import Vocabulary

Dims = dict[str, int]
"""openai-whisper's ModelDimensions."""

State = dict[str, Any]
"""Name -> numpy float32 array."""

Heads = tuple[tuple[int, int], ...]
"""(layer, head) of the decoder, from 0."""

POSITIONS = "encoder.positional_embedding"
TOKENS = "decoder.token_embedding.weight"
ABOUT = ("__dims__", "tokens", "alignment_heads", "translates")
"""Keys of the compact file that are no tensors."""


@dataclass(frozen=True)
class Whisper:
    """A whole model, as the writers take it. `heads`: those whose attention follows the words in time, if known.
    `translates`: whether it was trained to translate into English."""

    dims: Dims
    state: State
    vocabulary: Vocabulary
    heads: Heads | None = None
    translates: bool = False

    @property
    def alignment_heads(self) -> Heads:
        """`heads`, or all of the upper half of the decoder, as openai-whisper takes when a model names none."""
        if self.heads is not None:
            return self.heads
        layers = range(self.dims["n_text_layer"] // 2, self.dims["n_text_layer"])
        return tuple((layer, head) for layer in layers for head in range(self.dims["n_text_head"]))


def trained(path: Path = miniature.WEIGHTS) -> Whisper:
    """The trained miniature from its compact file, an archive of numpy arrays:

    - `__dims__`: openai-whisper's dimensions, as JSON;
    - tensors in float16, named as openai-whisper does; without the encoder's positions, which are sinusoids;
    - `tokens` (int32): the tokens that can occur. The token embedding has a row for each, in this order, and one
      more in the end, which all other tokens share;
    - `alignment_heads` (n, 2), if they are known: layer and head;
    - `translates`, when it does: 1.
    """
    with np.load(path) as stored:
        dims: Dims = json.loads(str(stored["__dims__"]))
        tokens = stored["tokens"]
        heads = stored["alignment_heads"].tolist() if "alignment_heads" in stored.files else None
        translates = bool(stored["translates"]) if "translates" in stored.files else False
        state: State = {name: stored[name].astype(np.float32) for name in stored.files if name not in ABOUT}
    if POSITIONS not in state:
        state = {POSITIONS: sinusoids(dims["n_audio_ctx"], dims["n_audio_state"]), **state}
    rows = state[TOKENS]
    full = np.repeat(rows[-1:], dims["n_vocab"], axis=0)
    full[tokens] = rows[:-1]
    state[TOKENS] = full
    pairs = None if heads is None else tuple((int(layer), int(head)) for layer, head in heads)
    return Whisper(dims, state, Vocabulary(), pairs, translates)


def sinusoids(length: int, channels: int) -> Any:
    """Positions as openai-whisper's `sinusoids`: float32 (length, channels)."""
    step = np.log(10_000) / (channels // 2 - 1)
    scaled = np.arange(length)[:, None] * np.exp(-step * np.arange(channels // 2))[None]
    return np.concatenate([np.sin(scaled), np.cos(scaled)], axis=1).astype(np.float32)
