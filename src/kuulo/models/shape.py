"""A Whisper's dimensions, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

MULTILINGUAL_VOCABULARY = 51_865
"""Tokens of a multilingual Whisper with 99 languages (large-v3: one more); English-only ones have 51864.
From openai/whisper, model.py: `is_multilingual`."""

LARGE_ENOUGH = 12
"""Encoder layers from which a much smaller decoder means distilled: small and larger."""


@dataclass(frozen=True)
class Shape:
    """Dimensions as far as the files tell them."""

    vocabulary: int | None = None
    mels: int | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None

    @property
    def multilingual(self) -> bool | None:
        if self.vocabulary is None:
            return None
        return self.vocabulary >= MULTILINGUAL_VOCABULARY

    @property
    def distilled(self) -> bool | None:
        """Whether the decoder was cut down: turbo (encoder layers 32, decoder layers 4), distil-* (32 and 2, 24
        and 2, 12 and 4)."""
        if self.encoder_layers is None or self.decoder_layers is None:
            return None
        return self.encoder_layers >= LARGE_ENOUGH and 3 * self.decoder_layers <= self.encoder_layers

    @property
    def translates(self) -> bool | None:
        """Whether it was trained to translate into English: multilingual and not distilled. (OpenAI's turbo
        was fine-tuned without translations; distil-* know English alone.)"""
        if self.multilingual is False or self.distilled:
            return False
        if self.multilingual is None or self.distilled is None:
            return None
        return True
