"""Puts a training checkpoint into the compact file that comes with Kuulo.

python tools/miniature/compact.py CHECKPOINT [FILE]
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import torch
from train import HEADS, LAYERS
from windows import Compact

from kuulo import miniature
from kuulo.atomic import write_bytes
from kuulo.miniature.vocabulary import Vocabulary
from kuulo.miniature.weights import POSITIONS, TOKENS

LIMIT = 8_000_000
"""Bytes that the file may have."""


def compact(checkpoint: Path) -> bytes:
    """The compact file's contents (kuulo.miniature.weights.trained reads it)."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")["model"]
    vocabulary = Vocabulary()
    tokens = Compact(vocabulary).ids
    rows, width = state[TOKENS].shape
    if rows != len(tokens) + 1:
        raise ValueError(f"the checkpoint has {rows} rows of tokens, and words.py {len(tokens) + 1}")
    dims = {
        "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": width, "n_audio_head": HEADS, "n_audio_layer": LAYERS[0],
        "n_vocab": len(vocabulary), "n_text_ctx": 448, "n_text_state": width, "n_text_head": HEADS,
        "n_text_layer": LAYERS[1],
    }  # fmt: skip
    heads = [(layer, head) for layer in range(1, LAYERS[1]) for head in range(HEADS)]  # those that training guided
    arrays = {name: tensor.numpy().astype(np.float16) for name, tensor in state.items() if name != POSITIONS}
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        __dims__=np.array(json.dumps(dims)),
        tokens=np.array(tokens, np.int32),
        alignment_heads=np.array(heads, np.int32),
        **arrays,
    )
    if packed.tell() > LIMIT:
        raise ValueError(f"{packed.tell()} bytes, but the file may have {LIMIT}")
    return packed.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path, nargs="?", default=miniature.WEIGHTS)
    given = parser.parse_args()
    write_bytes(given.file, compact(given.checkpoint))
    print(f"{given.file}: {given.file.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
