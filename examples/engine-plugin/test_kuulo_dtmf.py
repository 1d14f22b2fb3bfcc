"""Kuulo's contract, and what is dtmf's own: `pytest examples/engine-plugin`, where it is installed."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

import kuulo_dtmf
from kuulo.testing import EngineContract

RATE = 16_000


def dialled(text: str, on_ms: int = 80, off_ms: int = 80) -> Any:
    """The tones of these keys, float32 at 16 kHz; a space is a pause of 1.2 s."""
    parts = [np.zeros(RATE // 4)]
    for key in text:
        if key == " ":
            parts.append(np.zeros(RATE * 6 // 5))
            continue
        (row,) = [r for r, line in enumerate(kuulo_dtmf.KEYS) if key in line]
        tones = kuulo_dtmf.LOW[row], kuulo_dtmf.HIGH[kuulo_dtmf.KEYS[row].index(key)]
        time = np.arange(RATE * on_ms // 1000) / RATE
        parts += [sum(0.2 * np.sin(2 * np.pi * tone * time) for tone in tones), np.zeros(RATE * off_ms // 1000)]
    return np.concatenate(parts).astype(np.float32)


class TestContract(EngineContract):
    engine = "dtmf"
    raw = MappingProxyType({"shortest_ms": 60})

    def clip(self) -> tuple[Any, str]:
        return dialled("358 0*#"), "3 5 8 0 * #"


def test_every_key_in_noise() -> None:
    noise = np.random.default_rng(1).standard_normal(RATE * 4).astype(np.float32) * 0.01
    audio = dialled("123A456B789C*0#D")
    audio += noise[: len(audio)]
    assert [w.text.strip() for w in kuulo_dtmf.keys(audio)] == list("123A456B789C*0#D")


def test_times_are_those_of_the_tones() -> None:
    first, second = kuulo_dtmf.keys(dialled("12"))
    assert abs(first.start_ms - 250) <= 20 and abs(first.end_ms - 330) <= 20
    assert abs(second.start_ms - 410) <= 20 and abs(second.end_ms - 490) <= 20


def test_a_tone_that_is_too_short_is_no_key() -> None:
    assert list(kuulo_dtmf.keys(dialled("5", on_ms=60), shortest_ms=120)) == []


def test_a_key_across_two_blocks_is_one() -> None:
    silence = np.zeros(RATE * 60 - RATE // 4 - 640, np.float32)
    assert [w.text for w in kuulo_dtmf.keys(np.concatenate([silence, dialled("7")]))] == [" 7"]
