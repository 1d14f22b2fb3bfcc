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

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "miniature"))

import untrained  # noqa: E402

from kuulo import miniature as built_in  # noqa: E402
from kuulo.miniature import weights  # noqa: E402
from kuulo.miniature.vocabulary import Vocabulary  # noqa: E402
from kuulo.miniature.weights import Dims, State, Whisper  # noqa: E402
from kuulo.miniature.writers import WRITERS  # noqa: E402

PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>")

SENTENCE = "good morning we study water and language at home now and the answer is new"
"""Each word is one token."""


def reciting(folder: Path, size: str, tokens: int, seconds: float) -> Path:
    """A CTranslate2 folder of `size` that says `tokens` tokens (times among them) for each window and ends at
    `seconds`; written once and kept."""
    path = folder / f"{size}-{tokens}-tokens-{seconds:g}-s"
    if not path.exists():
        vocabulary = Vocabulary()
        dims = untrained.dims_of(size)
        said = recital(vocabulary, tokens, seconds)
        staging = path.with_name(path.name + ".new")
        WRITERS["ct2"][1](staging, Whisper(dims, reciting_state(dims, vocabulary, said), vocabulary))
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


def reciting_state(dims: Dims, vocabulary: Vocabulary, said: list[int], seed: int = 1) -> State:
    """Weights under which the token at each place of the output is that of `said`.

    The memory answers to a place's positional embedding. The place decides and not the token before, so that all
    hypotheses of a beam end together, as those of a trained model mostly do."""
    state = untrained.random_state(dims, seed)
    width, places = dims["n_text_state"], dims["n_text_ctx"]
    embedding = untrained.directions(dims["n_vocab"], width, seed + 1)
    place = untrained.directions(places, width, seed + 2)
    state["decoder.positional_embedding"] = place.astype(np.float32)
    after = [*(vocabulary.ids[name] for name in PROMPT[1:]), *said]
    after += [vocabulary.ids["<|endoftext|>"]] * (places - len(after))
    untrained.remember(state, embedding, place, embedding[after])
    return state


def miniature(folder: Path) -> Path:
    """The miniature as a CTranslate2 folder; written once and kept."""
    path = folder / f"miniature-{built_in.digest()[:16]}"
    if not path.exists():
        staging = path.with_name(path.name + ".new")
        WRITERS["ct2"][1](staging, weights.trained())
        staging.rename(path)
    return path
