"""Synthetic speech from espeak-ng's library, with the times of words and phonemes that the library itself reports.

The library is Debian's `libespeak-ng1` (package espeak-ng; GPL, called at training time alone: nothing of it is in the
weights' file). Its C interface is described in espeak-ng/speak_lib.h.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from typing import Any

import numpy as np

RATE = 16_000
"""Samples a second of everything that Whisper hears."""

_SYNCHRONOUS = 2  # the callback gets the samples before espeak_Synth returns
_PHONEME_EVENTS = 1
_UTF8 = 1
_SPEED, _PITCH, _RANGE, _GAP = 1, 3, 4, 7
_WORD, _PHONEME, _LIST_END = 1, 7, 0


class SpeechMissing(Exception):
    """libespeak-ng is not on this machine, or does not have a voice."""


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng as `en-us+f2`; speed in words a minute; pitch and its range from 0 to 99."""

    name: str
    speed: int = 160
    pitch: int = 50
    range: int = 50


@dataclass(frozen=True)
class Utterance:
    """`samples` int16 (n,) at RATE, without the silence around it.

    `words` and `phones`: (start, end, text), in samples."""

    samples: Any
    words: tuple[tuple[int, int, str], ...]
    phones: tuple[tuple[int, int, str], ...]


class Speaker:
    """espeak-ng in this process. There is one a process: the library keeps its state in globals."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise SpeechMissing(f"{name} cannot be loaded ({error})\n  what to do: apt install espeak-ng") from error
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        if self._rate <= 0:
            raise SpeechMissing("espeak-ng has no data folder\n  what to do: apt install espeak-ng-data")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = kind(self._take)  # kept: the library holds a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)
        self._heard: list[Any] = []
        self._events: list[tuple[int, int, int, int, str]] = []

    def _take(self, samples: Any, length: int, events: Any) -> int:
        if samples and length > 0:
            self._heard.append(np.ctypeslib.as_array(samples, (length,)).copy())
        at = 0
        while events[at].type != _LIST_END:
            event = events[at]
            phone = event.id.string.decode("utf-8", "replace") if event.type == _PHONEME else ""
            self._events.append((event.type, event.sample, event.text_position, event.length, phone))
            at += 1
        return 0

    def say(self, text: str, voice: Voice) -> Utterance:
        """`text` in `voice`. Raises SpeechMissing for an unknown voice."""
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise SpeechMissing(f"espeak-ng has no voice {voice.name}")
        for parameter, value in ((_SPEED, voice.speed), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._heard, self._events = [], []
        raw = text.encode()
        self._library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8, None, None)
        return self._trim(text)

    def _trim(self, text: str) -> Utterance:
        """What was heard, at RATE, cut where it is silent."""
        sound = np.concatenate(self._heard).astype(np.float32) if self._heard else np.zeros(0, np.float32)
        scale = RATE / self._rate
        length = int(len(sound) * scale)
        # Below 8 kHz espeak's voices have nearly all they have: linear interpolation does.
        sound = np.interp(np.arange(length) / scale, np.arange(len(sound)), sound)
        loud = np.flatnonzero(np.abs(sound) > 0.01 * 32768)
        if not len(loud):
            return Utterance(np.zeros(0, np.int16), (), ())
        first, last = max(0, int(loud[0]) - 160), min(length, int(loud[-1]) + 160)

        def place(sample: int) -> int:
            return min(max(int(sample * scale) - first, 0), last - first)

        # A sentence may end with the event of a word without letters.
        words = [(place(s), text[p - 1 : p - 1 + n]) for kind, s, p, n, _ in self._events if kind == _WORD and n]
        phones = [(place(s), phone) for kind, s, _, _, phone in self._events if kind == _PHONEME]
        starts = [start for start, _ in words[1:]] + [last - first]
        ends = [start for start, _ in phones[1:]] + [last - first]
        return Utterance(
            sound[first:last].astype(np.int16),
            tuple((s, e, w) for (s, w), e in zip(words, starts, strict=True)),
            tuple((s, e, p) for (s, p), e in zip(phones, ends, strict=True) if e > s),
        )
