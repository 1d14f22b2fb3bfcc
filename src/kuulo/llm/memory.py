"""What a language model takes of the memory: its weights, the keys and values of its context, and what is needed while
computing. It is compared with what we were given before a model is loaded.

KV bytes of a token: 2 (a key and a value) x layers x KV heads x head size x 2 bytes (16 bit), as in llama.cpp
(llama-kv-cache.cpp) and vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KV_BYTES = 2
"""Bytes of a number in the cache: llama.cpp's and vLLM's default is 16 bit."""

PROGRAM_BYTES = 300_000_000
"""Of a server beside its model: the program, and buffers that do not grow with the model (measured: llama-server)."""

STEP = 256
"""Contexts that are offered are a multiple of this."""

DEFAULT_CONTEXT = 8192
"""The context where nobody asks for one and the model was trained for more: long ones cost memory from the start."""


@dataclass(frozen=True)
class Shape:
    """What its files tell of a model. `context`: what it was trained for; `key_value`: heads x size of a layer's keys
    and values together; `largest`: of the vocabulary's logits and the widest layer, for buffers."""

    weights_bytes: int
    layers: int | None = None
    key_value: int | None = None
    context: int | None = None
    vocabulary: int | None = None
    embedding: int | None = None
    architecture: str = ""
    quantisation: str = ""
    parameters: int | None = None
    template: bool | None = None

    @property
    def token_bytes(self) -> int | None:
        """KV bytes of a token; None where the files do not tell."""
        if self.layers is None or self.key_value is None:
            return None
        return KV_BYTES * self.layers * self.key_value


@dataclass(frozen=True)
class Need:
    """Bytes that a model with a context takes: `weights`, `cache`, and `buffers` while computing."""

    weights: int
    cache: int
    buffers: int
    context: int
    parallel: int = 1

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.buffers

    def __str__(self) -> str:
        what = f"{said(self.weights)} of weights, {said(self.cache)} for a context of {self.context} tokens"
        times = f" times {self.parallel}" if self.parallel > 1 else ""
        return f"{what}{times}, {said(self.buffers)} for computing"


def need(shape: Shape, context: int, parallel: int = 1) -> Need:
    """What a model takes with `parallel` contexts."""
    buffers = PROGRAM_BYTES
    if shape.vocabulary and shape.embedding:  # a batch of 512 tokens: logits and activations in 32 bit
        buffers += 512 * 4 * (shape.vocabulary + 8 * shape.embedding)
    return Need(shape.weights_bytes, (shape.token_bytes or 0) * context * parallel, buffers, context, parallel)


def largest_context(shape: Shape, available: int, parallel: int = 1) -> int:
    """Tokens of the largest context that fits, at most what the model was trained for; 0 where the weights alone do
    not fit."""
    left = available - need(shape, 0, parallel).total
    if left < 0:
        return 0
    most = shape.context or 2**24
    if shape.token_bytes:
        most = min(most, left // (shape.token_bytes * parallel))
    return most if most == shape.context else most // STEP * STEP


def choose_context(shape: Shape, available: int, parallel: int = 1) -> int:
    """The context where nobody asks for one: what the model was trained for, at most DEFAULT_CONTEXT, and what fits; at
    least STEP, which need not fit."""
    wanted = min(shape.context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return min(wanted, max(STEP, largest_context(shape, available, parallel)))


BASE_MB, MARGIN = 2048, 1.3
"""Of a job beside its model, and how much more than it needs is asked for."""


def to_ask_for(need_bytes: int, step_mb: int) -> int:
    """MB that a job asks for to have a model: in steps, with a margin and the rest of it."""
    return steps(need_bytes * MARGIN / 2**20 + BASE_MB, step_mb)


def steps(needed_mb: float, step_mb: int) -> int:
    """MB, rounded up."""
    return int(-(-needed_mb // step_mb) * step_mb)


def largest_fitting(models: Sequence[tuple[str, Shape]], available: int, context: int) -> str | None:
    """The name of the largest of these models that fits with this context."""
    fitting = [(shape.weights_bytes, name) for name, shape in models if need(shape, context).total <= available]
    return max(fitting)[1] if fitting else None


def said(count: int) -> str:
    """Bytes for people."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.0f} kB"
