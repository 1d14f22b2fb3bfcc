"""pocketsphinx: the engine that needs no model to be fetched, since its wheel carries one for English.

Speech is cut at pauses by pocketsphinx's own endpointer, and its words at pauses into segments. Their text is lower
case and without punctuation. Parses on Python 3.9; imports pocketsphinx inside functions.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from kuulo.engines.base import SAMPLE_RATE, EngineSpec, Language, Native, Progress, Said, Session, Unusable
from kuulo.engines.whisper_text import check_raw
from kuulo.transcript import Segment, Word
from kuulo.wire import Task

FILES = (
    "allphone", "dict", "fdict", "featparams", "fsg", "hmm", "jsgf", "kws", "lda", "lm", "lmctl", "mdef", "mean",
    "mixw", "mllr", "sendump", "tmat", "var",
)  # fmt: skip

SPEC = EngineSpec(
    name="pocketsphinx",
    summary="Small classic recogniser with an English model inside: a first draft without any download.",
    url="https://github.com/cmusphinx/pocketsphinx",
    licence="BSD-2-Clause",
    package="pocketsphinx",
    module="pocketsphinx",
    install="pocketsphinx",
    tasks=("transcribe",),
    devices=("cpu",),
    languages=("en",),
    packages=("numpy",),
    options={
        "language": Native("", "English alone; auto is English"),
        "task": Native("", "transcribe alone"),
        "word_times": Native("Decoder.seg()"),
        "device": Native("", "cpu alone"),
    },
    differs=("a recogniser of another kind: lower case, no punctuation, English, many words wrong",),
    files=FILES,
    quality_note="pocketsphinx gives a rough draft: English only, many words wrong, no punctuation.",
)

LONGEST_S = 30.0
"""Speech without a pause is cut here, so that words come out while a long recording is heard."""

PAUSE_MS = 500
"""Silence between words that ends a segment."""

NOT_WORDS = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")
VARIANT = re.compile(r"\(\d+\)$")


def refuse(options: Mapping[str, Any]) -> Dict[str, str]:
    """Anything but English, as it is spoken, on the CPU."""
    refused = {}
    if options.get("language") not in (None, "auto", "en"):
        refused["language"] = "its model knows English alone"
    if options.get("task") == "translate":
        refused["task"] = "it cannot translate"
    if str(options.get("device") or "auto").partition(":")[0] not in ("auto", "cpu"):
        refused["device"] = "it runs on the CPU alone"
    return refused


def native(options: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The Python that does the same with pocketsphinx itself."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in _config(raw).items())
    return "\n".join(
        [
            "from pocketsphinx import Decoder, Segmenter",
            f"decoder = Decoder({arguments})",
            "for speech in Segmenter().segment(stream_of_16_bit_16_khz_mono):",
            "    decoder.start_utt(); decoder.process_raw(speech.pcm, full_utt=True); decoder.end_utt()",
            "    words = [(s.word, s.start_frame, s.end_frame, s.prob) for s in decoder.seg()]",
        ]
    )


def _config(raw: Mapping[str, Any]) -> Dict[str, Any]:
    return {"loglevel": "FATAL", **raw}


def load(task: Task) -> Session:
    """The decoder with the model of the wheel. Raises Unusable for settings that pocketsphinx does not know."""
    import pocketsphinx

    check_raw(SPEC.name, task.raw, list(pocketsphinx.Config()))
    try:
        decoder = pocketsphinx.Decoder(**_config(task.raw))
    except (RuntimeError, ValueError) as error:
        raise Unusable(f"pocketsphinx does not start: {error}", "check the --engine-option values") from error
    return Heard(decoder, bool(task.options.get("word_times")))


class Heard(Session):
    """A decoder; every recording starts from the same state."""

    def __init__(self, decoder: Any, word_times: bool) -> None:
        self._decoder = decoder
        self._word_times = word_times
        self._means = decoder.get_cmn(False)

    def transcribe(self, samples: Any, state: Optional[Dict[str, Any]] = None) -> Iterator[Said]:
        yield Language("en")
        self._decoder.reinit_feat()
        self._decoder.set_cmn(self._means)
        length_ms = len(samples) * 1000 // SAMPLE_RATE
        for start_s, end_s, pcm in utterances(samples):
            words = self._words(round(start_s * 1000), min(round(end_s * 1000), length_ms), pcm)
            for phrase in phrases(words):
                yield _segment(phrase, self._word_times)
            yield Progress(min(round(end_s * 1000), length_ms))

    def _words(self, start_ms: int, end_ms: int, pcm: bytes) -> List[Word]:
        """The words in one stretch of speech."""
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        words = []
        for part in self._decoder.seg() or ():
            if NOT_WORDS.match(part.word):
                continue
            begin = min(start_ms + part.start_frame * 10, end_ms)
            end = min(start_ms + (part.end_frame + 1) * 10, end_ms)
            probability = round(max(0.0, min(1.0, float(part.prob))), 4)
            words.append(Word(" " + VARIANT.sub("", part.word), begin, end, probability))
        return words


def phrases(words: List[Word]) -> List[List[Word]]:
    """The words, parted where nothing is said for PAUSE_MS."""
    parted: List[List[Word]] = []
    for word in words:
        if not parted or word.start_ms - parted[-1][-1].end_ms >= PAUSE_MS:
            parted.append([])
        parted[-1].append(word)
    return parted


def _segment(words: List[Word], with_words: bool) -> Segment:
    mean = sum(word.confidence or 0.0 for word in words) / len(words)
    text = "".join(word.text for word in words)
    shown = tuple(words) if with_words else ()
    return Segment(words[0].start_ms, words[-1].end_ms, text, shown, confidence=round(mean, 4))


def utterances(samples: Any) -> Iterator[Tuple[float, float, bytes]]:
    """(start s, end s, 16-bit samples as bytes) of each stretch of speech between pauses."""
    import numpy as np
    from pocketsphinx import Endpointer

    endpointer = Endpointer(sample_rate=SAMPLE_RATE)
    step = endpointer.frame_bytes // 2
    heard: List[bytes] = []
    begin = 0.0
    for at in range(0, len(samples), step):
        frame = (np.clip(samples[at : at + step], -1.0, 1.0) * 32767).astype("<i2").tobytes()
        last = at + step >= len(samples)
        speech = endpointer.end_stream(frame) if last else endpointer.process(frame)
        if speech is None:
            continue
        if not heard:
            begin = max(begin, endpointer.speech_start)
        heard.append(speech)
        length = sum(map(len, heard)) / 2 / SAMPLE_RATE
        if not endpointer.in_speech:
            yield begin, max(begin, endpointer.speech_end), b"".join(heard)
            heard = []
        elif length >= LONGEST_S:
            yield begin, begin + length, b"".join(heard)
            begin, heard = begin + length, []
