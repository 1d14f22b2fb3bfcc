"""Whisper's network in PyTorch under openai-whisper's names, made for training: it shows where the decoder looks.

Same computation as openai/whisper's model.py. What differs: the token embedding has a row for each token that can
occur and one more for all others; `decode` also gives the cross-attention's scores, which training guides.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kuulo.miniature import ggml
from kuulo.miniature.weights import sinusoids

MELS, POSITIONS, TEXT_POSITIONS = 80, 1500, 448


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, heads, length, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        heard = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out(heard.transpose(1, 2).flatten(2))

    def look(self, x: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(what is heard, scores (batch, heads, text, frames) before the softmax)."""
        query, key, value = self.split(self.query(x)), self.split(self.key(audio)), self.split(self.value(audio))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        heard = scores.softmax(-1) @ value
        return self.out(heard.transpose(1, 2).flatten(2)), scores


class Block(nn.Module):
    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width)
        if cross:
            self.cross_attn = Attention(width, heads)
            self.cross_attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positional_embedding", positions(POSITIONS, width))
        self.blocks = nn.ModuleList(Block(width, heads, cross=False) for _ in range(layers))
        self.ln_post = nn.LayerNorm(width)

    def forward(self, mel: Tensor, offset: int = 0) -> tuple[Tensor, Tensor]:
        """(batch, mels, 2 n) -> (batch, n, width), and the same after half of the layers.

        `offset`: position of the first frame."""
        x = functional.gelu(self.conv1(mel))
        x = functional.gelu(self.conv2(x)).transpose(1, 2)
        embedding: Any = self.positional_embedding
        x = x + embedding[offset : offset + x.shape[1]]
        half = x
        for number, block in enumerate(self.blocks, 1):
            x = x + block.attn(block.attn_ln(x))
            x = x + block.mlp(block.mlp_ln(x))
            if 2 * number == len(self.blocks):
                half = x
        return self.ln_post(x), half


class Decoder(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, tokens: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(tokens, width)
        self.positional_embedding = nn.Parameter(torch.randn(TEXT_POSITIONS, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, cross=True) for _ in range(layers))
        self.ln = nn.LayerNorm(width)
        nn.init.normal_(self.token_embedding.weight, std=0.05)

    def forward(self, tokens: Tensor, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(logits (batch, text, tokens), the scores of each layer's cross-attention)."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        looked = []
        for block in self.blocks:
            x = x + block.attn(block.attn_ln(x), causal=True)
            heard, scores = block.cross_attn.look(block.cross_attn_ln(x), audio)
            x = x + heard
            looked.append(scores)
            x = x + block.mlp(block.mlp_ln(x))
        return self.ln(x) @ self.token_embedding.weight.t(), looked


class Labels(nn.Module):
    """What training asks of the encoder frame by frame: the phoneme after half of its layers, the word at the end."""

    def __init__(self, width: int, phones: int, words: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.phones = nn.Linear(width, phones)
        self.words = nn.Linear(width, words)

    def forward(self, audio: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        """(logits of words, logits of phonemes)."""
        return self.words(audio.float()), self.phones(self.norm(half.float()))


class Whisper(nn.Module):
    def __init__(self, width: int, heads: int, layers: tuple[int, int], tokens: int, times: int) -> None:
        """`times`: row of <|0.00|>. The times' rows begin as the encoder's positions: their steps are the same."""
        super().__init__()
        self.encoder = Encoder(width, heads, layers[0])
        self.decoder = Decoder(width, heads, layers[1], tokens)
        with torch.no_grad():
            self.decoder.token_embedding.weight[times : times + 1501] = 0.07 * positions(1501, width)


def positions(length: int, width: int) -> Tensor:
    """The encoder's positions (length, width)."""
    return torch.from_numpy(sinusoids(length, width))


def mel_filters() -> Tensor:
    """Whisper's mel filters (80, 201)."""
    return torch.from_numpy(ggml.mel_filters(MELS))


def log_mel(samples: Tensor, filters: Tensor) -> Tensor:
    """(batch, n) float -> (batch, 80, n / 160), as openai/whisper's `log_mel_spectrogram`."""
    window = torch.hann_window(400)
    power = torch.stft(samples, 400, 160, window=window, return_complex=True)[..., :-1].abs() ** 2
    mel = torch.clamp(filters @ power, min=1e-10).log10()
    mel = torch.maximum(mel, mel.amax((-1, -2), keepdim=True) - 8.0)
    return (mel + 4) / 4
