"""Language models to measure servers with: the shapes of real ones, random weights, as GGUF in 8 bits (Q8_0).

The arithmetic, the memory and the tokens' number are those of a real model of the shape. Every piece that it can say is
plain letters: random bytes would be halves of characters, which servers hold back until they are whole, and a random
end would come at any time. So the rows of all else in the table of tokens are zero: their logit is 0, and never the
largest.
"""

from __future__ import annotations

import itertools
import string
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import gguf_file  # noqa: E402

BLOCK = 32
"""Values that share a scale in Q8_0 (ggml-common.h: block_q8_0)."""

Q8_0 = 8
SPREAD = 0.02
"""Standard deviation of the weights, as most models begin with."""

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Of a model, as its config.json has it. `biases`: of queries, keys and values."""

    architecture: str
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    tokens: int
    context: int
    biases: bool = False

    @property
    def parameters(self) -> int:
        return sum(rows * columns for _, rows, columns in self.matrices())

    def matrices(self) -> Iterator[tuple[str, int, int]]:
        """Name, rows and columns of each matrix; the table of tokens is also the last layer."""
        size = self.width // self.heads
        yield "token_embd.weight", self.tokens, self.width
        for n in range(self.layers):
            yield f"blk.{n}.attn_q.weight", self.heads * size, self.width
            yield f"blk.{n}.attn_k.weight", self.kv_heads * size, self.width
            yield f"blk.{n}.attn_v.weight", self.kv_heads * size, self.width
            yield f"blk.{n}.attn_output.weight", self.width, self.heads * size
            yield f"blk.{n}.ffn_gate.weight", self.inner, self.width
            yield f"blk.{n}.ffn_up.weight", self.inner, self.width
            yield f"blk.{n}.ffn_down.weight", self.width, self.inner

    def vectors(self) -> Iterator[tuple[str, int, float]]:
        """Name, length and value of each vector."""
        size = self.width // self.heads
        yield "output_norm.weight", self.width, 1.0
        for n in range(self.layers):
            yield f"blk.{n}.attn_norm.weight", self.width, 1.0
            yield f"blk.{n}.ffn_norm.weight", self.width, 1.0
            if self.biases:
                for part, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
                    yield f"blk.{n}.attn_{part}.bias", heads * size, 0.0


SHAPES = {
    "qwen2.5-0.5b": Shape("qwen2", 24, 896, 4864, 14, 2, 151_936, 32_768, biases=True),
    "smollm2-135m": Shape("llama", 30, 576, 1536, 9, 3, 49_152, 8192),
}
"""Of Qwen/Qwen2.5-0.5B and HuggingFaceTB/SmolLM2-135M."""


def written(folder: Path, name: str) -> Path:
    """The model of that shape, written once and kept."""
    path = folder / f"{name}-random-q8_0.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(path.name + ".new")
        write(staging, SHAPES[name])
        staging.rename(path)
    return path


def write(path: Path, shape: Shape) -> None:
    """The file, a matrix at a time."""
    tokens, merges = vocabulary(shape.tokens)
    metadata = facts(shape, tokens, merges)
    chance = np.random.default_rng(0)
    matrices, vectors = list(shape.matrices()), list(shape.vectors())
    head = [b"GGUF", struct.pack("<IQQ", 3, len(matrices) + len(vectors), len(metadata))]
    head += [gguf_file.text(key) + gguf_file.entry(value) for key, value in metadata.items()]
    offset = 0
    for name, rows, columns in matrices:
        head.append(gguf_file.text(name) + struct.pack("<IQQIQ", 2, columns, rows, Q8_0, offset))
        offset += _padded(rows * columns // BLOCK * (BLOCK + 2))
    for name, length, _ in vectors:
        head.append(gguf_file.text(name) + struct.pack("<IQIQ", 1, length, gguf_file.F32, offset))
        offset += _padded(4 * length)
    silent = len(tokens) - len(merges)  # bytes and special ones come first
    with path.open("wb") as out:
        start = b"".join(head)
        out.write(start + b"\0" * (_padded(len(start)) - len(start)))
        for name, rows, columns in matrices:
            data = q8_0(chance, rows, columns, silent if name == "token_embd.weight" else 0)
            out.write(data + b"\0" * (_padded(len(data)) - len(data)))
        for _, length, value in vectors:
            data = np.full(length, value, np.float32).tobytes()
            out.write(data + b"\0" * (_padded(len(data)) - len(data)))


def q8_0(chance: np.random.Generator, rows: int, columns: int, silent: int = 0) -> bytes:
    """A random matrix whose first `silent` rows are zero: for each 32 values a scale (float16) and 32 whole numbers."""
    blocks = np.zeros(rows * columns // BLOCK, np.dtype([("scale", "<f2"), ("values", "i1", BLOCK)]))
    blocks["scale"] = SPREAD / (255 / 12**0.5)  # of even numbers from -127 to 127
    first = silent * columns // BLOCK
    blocks["values"][first:] = chance.integers(-127, 128, (len(blocks) - first, BLOCK), np.int8)
    return blocks.tobytes()


def vocabulary(count: int) -> tuple[list[str], list[str]]:
    """So many tokens, and the merges that make them: bytes, the special ones, pairs of letters, and pairs of pairs."""
    single = [*bytes_as_text(), *SPECIAL]
    pairs = [(a, b) for a in string.ascii_lowercase for b in string.ascii_lowercase]
    wanted = count - len(single)
    fours = itertools.product(*[["".join(pair) for pair in pairs]] * 2)
    made = list(itertools.islice(itertools.chain(pairs, fours), wanted))
    assert len(made) == wanted
    return [*single, *("".join(one) for one in made)], [" ".join(one) for one in made]


def bytes_as_text() -> list[str]:
    """The 256 bytes as GPT-2's tokenizer writes them: those that can be seen as themselves."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + hidden.index(byte)) for byte in range(256)]


def facts(shape: Shape, tokens: list[str], merges: list[str]) -> dict[str, Any]:
    """The file's metadata."""
    special = range(256, 256 + len(SPECIAL))
    of_shape = {
        "context_length": shape.context, "embedding_length": shape.width, "block_count": shape.layers,
        "feed_forward_length": shape.inner, "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads, "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1_000_000.0, "rope.dimension_count": shape.width // shape.heads,
        "vocab_size": len(tokens),
    }  # fmt: skip
    return {
        "general.architecture": shape.architecture, "general.name": "random", "general.file_type": 7,
        **{f"{shape.architecture}.{name}": value for name, value in of_shape.items()},
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if n in special else 1 for n in range(len(tokens))],
        "tokenizer.ggml.merges": merges, "tokenizer.ggml.eos_token_id": special[2],
        "tokenizer.ggml.bos_token_id": special[0], "tokenizer.ggml.padding_token_id": special[0],
        "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": TEMPLATE,
    }  # fmt: skip


def _padded(length: int) -> int:
    return -(-length // gguf_file.ALIGNMENT) * gguf_file.ALIGNMENT
