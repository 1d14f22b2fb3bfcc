"""Whisper's vocabulary from openai-whisper's own file, and the tokenizer files that other engines read.

The file is its `whisper/assets/multilingual.tiktoken` (MIT), compressed: one token a line, base64 and rank.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import re
from typing import Any

from kuulo import miniature

# openai/whisper, whisper/tokenizer.py: the order is the order of the language tokens.
_LANGUAGES = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi
ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd
gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue
"""
LANGUAGES = tuple(_LANGUAGES.split())

TIMESTAMPS = tuple(f"<|{step * 0.02:.2f}|>" for step in range(1501))

_NO_PAIR = 1 << 30


class Vocabulary:
    """All tokens of a multilingual Whisper.

    `tokens`: text of each id, bytes written in GPT-2's alphabet. `ids`: the reverse. `ranks`: bytes -> id,
    without the special tokens. `languages`: 99, or 100 in the vocabulary of large-v3."""

    def __init__(self, languages: int = 99) -> None:
        pairs = (line.split() for line in tiktoken().splitlines())
        self.ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
        self.languages = LANGUAGES[:languages]
        self.special = [
            "<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in self.languages),
            "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>",
            "<|notimestamps|>",
        ]  # fmt: skip
        self._alphabet = byte_alphabet()
        by_rank = sorted(self.ranks.items(), key=lambda pair: pair[1])
        self.base = [self._spell(token) for token, _ in by_rank]
        self.bytes = [token for token, _ in by_rank]
        self.tokens = [*self.base, *self.special, *TIMESTAMPS]
        self.ids = {token: id_ for id_, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def _spell(self, token: bytes) -> str:
        return "".join(self._alphabet[byte] for byte in token)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, cut at spaces and punctuation: right for plain sentences."""
        ids = []
        for word in re.findall(r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+", text):
            parts = [bytes([byte]) for byte in word.encode()]
            while len(parts) > 1:
                rank, at = _lowest_pair(parts, self.ranks)
                if rank == _NO_PAIR:
                    break
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            ids += [self.ranks[part] for part in parts]
        return ids

    def merges(self) -> list[list[str]]:
        """Byte-pair merges in order: what is left of a token after merging its bytes with lower ranks."""
        merges = []
        for rank, token in enumerate(self.bytes):
            if len(token) < 2:
                continue
            parts = [bytes([byte]) for byte in token]
            while len(parts) > 2:
                best, at = _lowest_pair(parts, self.ranks)
                if best >= rank:
                    break
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            left, right = parts
            merges.append([self._spell(left), self._spell(right)])
        return merges

    def tokenizer_json(self) -> dict[str, Any]:
        """What `tokenizer.json` of Hugging Face's tokenizers holds."""
        added = [
            {
                "id": self.ids[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": token in set(self.special),
            }
            for token in (*self.special, *TIMESTAMPS)
        ]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": {**byte_level, "add_prefix_space": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": {token: id_ for id_, token in enumerate(self.base)},
                "merges": self.merges(),
            },
        }


def tiktoken() -> str:
    """openai-whisper's file as text."""
    return gzip.decompress(miniature.VOCABULARY.read_bytes()).decode("ascii")


def byte_alphabet() -> dict[int, str]:
    """GPT-2's letter for each byte: printable bytes stand for themselves, the others for U+0100 onwards."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + n) for n, b in enumerate(others)}}


def _lowest_pair(parts: list[bytes], ranks: dict[bytes, int]) -> tuple[int, int]:
    """(rank, position) of the neighbours that merge first."""
    return min((ranks.get(a + b, _NO_PAIR), at) for at, (a, b) in enumerate(itertools.pairwise(parts)))
