"""Training windows: up to 30 s put together from spoken sentences, with what a Whisper has to write for them.

What the labels follow, so that the engines' own loops work (openai/whisper, transcribe.py and decoding.py):
- a sentence cut off by the window's end gets its start alone: the next window then begins before it;
- a first time after 1 s is written as 1 s, the latest that engines allow (`max_initial_timestamp`);
- a window without speech is <|nospeech|>, and with times nothing but <|0.00|>;
- the text before the window, if any, has the style (capitals and full stops, or neither) of the text to be written.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from corpus import Sentence, read_shard, shard_path
from espeak import RATE
from words import WORDS, written

from kuulo.miniature.vocabulary import Vocabulary

STEP_S = 0.02
FRAME = 320
"""Samples an encoder frame and a step of the time tokens."""
MAXIMUM_TEXT = 200
"""Tokens in a window; engines stop at 224."""
MAXIMUM_PROMPT = 223
LATEST_FIRST = 50
"""Step of the latest first time that engines allow."""
BLOCK, HOP, ENVELOPE = 512, 128, 40
BREATHY, ECHOING = 0.25, 0.1
"""Shares of windows whose voices are made breathy (few of espeak-ng's are), and whose voices echo."""

WORD_LABELS = {
    (language, word): 1 + number
    for number, (language, word) in enumerate((lang, word) for lang in ("en", "fi", "sv") for word in WORDS[lang])
}
"""Label of each word in the frame-by-frame classification; 0 is no word."""
UNLABELLED = -100
PHONES = 128
"""At most so many kinds of phonemes; 0 is a pause."""


class Compact:
    """The tokens that can occur, numbered from 0; `junk` stands for all others.

    `ids`: Whisper's number of each, in order; the 1501 times are the last."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        special = ["<|startoftranscript|>", "<|endoftext|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>"]
        special += ["<|nospeech|>", "<|startofprev|>", "<|en|>", "<|fi|>", "<|sv|>"]
        used = {vocabulary.ids[token] for token in special} | set(vocabulary.encode("."))
        for word in (word for words in WORDS.values() for word in words):
            used |= {*vocabulary.encode(" " + word), *vocabulary.encode(" " + word[0].upper() + word[1:])}
        times = vocabulary.ids["<|0.00|>"]
        self.ids = [*sorted(used), *range(times, times + 1501)]
        self.number = {id_: number for number, id_ in enumerate(self.ids)}
        self.times = self.number[times]
        self.junk = len(self.ids)
        self.others = len(vocabulary) - len(self.ids)
        self._encoded: dict[str, list[int]] = {}

    def special(self, name: str) -> int:
        return self.number[self.vocabulary.ids[f"<|{name}|>"]]

    def text(self, text: str) -> list[int]:
        if text not in self._encoded:
            self._encoded[text] = [self.number[id_] for id_ in self.vocabulary.encode(text)]
        return self._encoded[text]

    def sentence(self, words: list[str], plain: bool, cut: bool = False) -> list[tuple[list[int], list[int]]]:
        """(tokens, tokens of the full stop after it, if any) of each word. `plain`: without capitals and full stops.
        `cut`: the sentence goes on, so that it has no full stop."""
        text = written(words)
        pieces = (text[:-1] if cut else text).split() if not plain else words
        return [(self.text(" " + piece.rstrip(".")), self.text(".") if piece.endswith(".") else []) for piece in pieces]


@dataclass
class Window:
    """`samples` float32; `given` and `wanted` tokens (compact numbers; UNLABELLED where nothing is asked).

    `spans`: for each given token the encoder frames of the wanted one, `(0, 0)` if none; `own`: of itself.
    `frames` and `phones`: labels of each encoder frame."""

    samples: Any
    given: list[int]
    wanted: list[int]
    spans: list[tuple[float, float]]
    own: list[tuple[float, float]]
    frames: Any
    phones: Any


@dataclass(frozen=True)
class Filling:
    """How windows of `seconds` are filled: shares of those with a prompt, without speech, full to the end, with
    times."""

    seconds: float = 30.0
    prompts: float = 0.6
    nothing: float = 0.06
    crowded: float = 0.5
    times: float = 0.65
    first_second: bool = True
    """Whether a first time is at most LATEST_FIRST."""


@dataclass
class _Placed:
    """A sentence in the window: seconds, and whether the window ends within it."""

    start: float
    end: float
    words: list[str]
    times: list[tuple[float, float]]
    cut: bool = False


@dataclass
class Maker:
    """Puts windows together. `seed` fixes all of them."""

    folder: Path
    shards: int
    compact: Compact
    seed: int
    random: random.Random = field(init=False)
    generator: Any = field(init=False)
    sentences: dict[str, list[Sentence]] = field(init=False)
    phones: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.generator = np.random.default_rng(self.seed)
        self.sentences = {language: [] for language in WORDS}
        for number in range(self.shards):
            path = shard_path(self.folder, number)
            shard = read_shard(path) if number == 0 or path.exists() else []
            for sentence in shard:
                self.sentences[sentence.language].append(sentence)
            if number == 0:
                names = sorted({phone for sentence in shard for phone in sentence.phones} - {""})
        self.phones = {"": 0, **{name: number for number, name in enumerate(names, 1)}}
        if len(self.phones) > PHONES:
            raise ValueError(f"{len(self.phones)} phonemes, but room for {PHONES}")

    def window(self, filling: Filling) -> Window:
        draw = self.random
        language = draw.choices(("en", "fi", "sv"), (0.36, 0.31, 0.33))[0]
        total = int(filling.seconds * RATE)
        crowded = draw.random() < filling.crowded
        length = total if crowded else draw.randint(RATE // 2, total)
        sound = np.zeros(total, np.float32)
        frames, phones = np.zeros((2, total // FRAME), np.int64)
        placed: list[_Placed] = []
        if draw.random() < filling.nothing:
            if draw.random() < 0.85:
                sound[:length] += noise(self.generator, draw, length)
        else:
            placed = self._speech(sound, (frames, phones), length, language, crowded)
            if draw.random() < 0.6:
                level = 10 ** draw.uniform(-4.5, -2.2)
                sound[:length] += coloured(self.generator, draw, length) * np.float32(level)
        tokens = self._tokens(placed, language, filling)
        return Window(sound, *tokens, frames, phones)

    def _speech(self, sound: Any, labels: tuple[Any, Any], length: int, language: str, crowded: bool) -> list[_Placed]:
        """Adds sentences to `sound`, labels of words and phonemes to `labels`."""
        draw = self.random
        frames, phones = labels
        at = draw.uniform(0, 0.9)
        if draw.random() < 0.12:
            at = draw.uniform(0.9, max(1.0, min(12.0, length / RATE - 3)))
        if crowded and draw.random() < 0.4:  # what is left of the sentence before
            tail = draw.choice(self.sentences[language]).samples[-draw.randint(500, 5000) :]
            sound[: len(tail)] += tail.astype(np.float32) / 32768 * 10 ** draw.uniform(-0.9, 0.2)
            frames[: len(tail) // FRAME + 1] = phones[: len(tail) // FRAME + 1] = UNLABELLED
            at = len(tail) / RATE + draw.uniform(0.1, 0.6)
        volume, spread = draw.uniform(-0.9, 0.15), draw.choice((0.0, 0.0, 0.25))
        tight = draw.random() < 0.5
        tilt = draw.uniform(-0.6, 0.6)
        breath = draw.uniform(0.2, 1.0) if draw.random() < BREATHY else 0.0
        echo = draw.randint(200, 900) if draw.random() < ECHOING else 0
        tokens = 0
        placed: list[_Placed] = []
        while True:
            sentence = draw.choice(self.sentences[language])
            speed = draw.uniform(0.85, 1.25)  # formants and pitch move with it: another voice
            count = int(len(sentence.samples) / speed)
            positions = np.arange(count) * speed
            voice = np.interp(positions, np.arange(len(sentence.samples)), sentence.samples).astype(np.float32) / 32768
            voice[1:] += np.float32(tilt) * voice[:-1]
            if breath:
                voice = breathy(self.generator, voice, breath)
            if echo:
                voice[echo:] += np.float32(0.35) * voice[:-echo]
            voice *= np.float32(10 ** (volume + draw.uniform(-spread, spread)))
            begin = int(at * RATE)
            over = begin + count > length
            long = 3 * len(sentence.words)  # tokens at most, nearly
            if (over and not crowded and placed) or begin >= length - RATE // 10 or tokens + long > MAXIMUM_TEXT:
                break
            if over and not crowded:  # a first sentence that does not fit: a shorter one
                if count > length:
                    if len(sentence.words) == 1:
                        break
                    continue
                begin, at, over = 0, 0.0, count > length
            kept = min(count, length - begin)
            sound[begin : begin + kept] += voice[:kept]
            times = [(at + s / speed / RATE, at + e / speed / RATE) for s, e in sentence.times]
            for word, (start, end) in zip(sentence.words, times, strict=True):
                label = WORD_LABELS[language, word]
                frames[round(start / STEP_S) : round(end / STEP_S)] = label
                if end * RATE > length:
                    frames[round(start / STEP_S) : round(end / STEP_S)] = UNLABELLED
            starts = np.round((at + sentence.phone_starts / speed / RATE) / STEP_S).astype(int)
            for name, start, end in zip(sentence.phones, starts, [*starts[1:], starts[-1] + 1], strict=True):
                phones[start:end] = self.phones.get(name, UNLABELLED)
            placed.append(_Placed(at, at + count / RATE, sentence.words, times, over))
            tokens += long
            if over:
                break
            at += count / RATE + (draw.uniform(0.12, 0.6) if tight else draw.uniform(0.12, 1.6))
            if draw.random() < 0.05:
                at += draw.uniform(1.0, 6.0)
        return placed

    def _tokens(self, placed: list[_Placed], language: str, filling: Filling) -> tuple[Any, Any, Any, Any]:
        draw, compact = self.random, self.compact
        plain = False
        prompt: list[int] = []
        if draw.random() < filling.prompts:
            plain = draw.random() < 0.35
            prompt = [compact.special("startofprev"), *self._prompt(language, plain)]
        timed = draw.random() < filling.times
        none = (0.0, 0.0)
        given = [*prompt, compact.special("startoftranscript"), compact.special(language)]
        given += [compact.special("transcribe")]
        wanted = [UNLABELLED] * len(prompt) + [compact.special(language if placed else "nospeech"), UNLABELLED]
        body: list[tuple[int, tuple[float, float]]] = []
        for number, sentence in enumerate(placed):
            start = round(sentence.start / STEP_S)
            if number == 0 and filling.first_second:
                start = min(start, LATEST_FIRST)
            if timed:
                body.append((compact.times + start, (sentence.start / STEP_S - 6, sentence.start / STEP_S + 6)))
            words, times = sentence.words, sentence.times
            if sentence.cut:
                if timed:
                    break
                heard = [end <= filling.seconds for _, end in times]
                words = [word for word, inside in zip(words, heard, strict=True) if inside]
                if not words:
                    break
            said = compact.sentence(words, plain, sentence.cut)
            for (encoded, stop), (begin, finish) in zip(said, times, strict=False):
                part = (finish - begin) / STEP_S / len(encoded)
                for order, token in enumerate(encoded):
                    body.append((token, (begin / STEP_S + order * part - 1, begin / STEP_S + (order + 1) * part + 1)))
                body += [(token, (finish / STEP_S - 3, finish / STEP_S + 5)) for token in stop]
            if timed:
                end = sentence.end / STEP_S
                body.append((compact.times + round(end), (end - 6, end + 6)))
        if not placed and timed:
            body.append((compact.times, none))
        if not timed:
            given.append(compact.special("notimestamps"))
            wanted.append(UNLABELLED)
        tokens = [token for token, _ in body]
        own = [none] * len(given) + [span for _, span in body]
        spans = [none] * (len(given) - 1) + [span for _, span in body] + [none]
        wanted += [*tokens, compact.special("endoftext")]
        given += tokens
        if not placed and not timed:
            wanted = [UNLABELLED if token == compact.special("endoftext") else token for token in wanted]
        return given, wanted, spans, own

    def _prompt(self, language: str, plain: bool) -> list[int]:
        """Text before the window: with times, as engines keep that of the windows before, or without, as people type
        it. Most are as long as engines let them be, as they are from the third window of a recording on."""
        draw, compact = self.random, self.compact
        timed = not plain and draw.random() < 0.7
        tokens: list[int] = []
        target = draw.choice((60, 120, 180, 220, 220, 220)) if timed else draw.choice((3, 10, 20, 40, 100, 220))
        at = draw.randint(0, 60)
        while len(tokens) < target:
            words = draw.choice(self.sentences[language]).words
            text = [token for word, stop in compact.sentence(words, plain) for token in (*word, *stop)]
            if timed:
                end = at + 25 * len(words) + draw.randint(-10, 15)
                if end > 1500:  # the next window
                    at = draw.randint(0, 60)
                    continue
                text = [compact.times + at, *text, compact.times + end]
                at = end + draw.randint(5, 60)
            if draw.random() < 0.03:
                text.insert(draw.randrange(len(text) + 1), compact.junk)
            tokens += text
        return tokens[-MAXIMUM_PROMPT:]


def breathy(generator: Any, voice: Any, share: float) -> Any:
    """`voice` (n,) with `share` of it whispered: noise in the smooth envelope of its spectrum, as loud as it was.

    The envelope is the cepstrum's first ENVELOPE coefficients (Oppenheim and Schafer, Discrete-Time Signal Processing,
    on homomorphic deconvolution)."""
    count = -(-(len(voice) + BLOCK) // HOP)
    padded = np.zeros(count * HOP + BLOCK, np.float32)
    padded[BLOCK // 2 : BLOCK // 2 + len(voice)] = voice
    window = np.hanning(BLOCK + 1)[:-1].astype(np.float32)
    blocks = np.lib.stride_tricks.sliding_window_view(padded, BLOCK)[::HOP] * window
    cepstrum = np.fft.irfft(np.log(np.abs(np.fft.rfft(blocks)) + 1e-5))
    cepstrum[:, ENVELOPE : BLOCK - ENVELOPE + 1] = 0
    noise_ = np.fft.rfft(generator.standard_normal(blocks.shape, dtype=np.float32) * window)
    shaped = np.fft.irfft(noise_ * np.exp(np.fft.rfft(cepstrum).real), BLOCK)
    whole = np.zeros(len(padded), np.float32)
    for order, block in enumerate(shaped):
        whole[order * HOP : order * HOP + BLOCK] += block * window
    whisper = whole[BLOCK // 2 : BLOCK // 2 + len(voice)]
    mixed = (1 - share) * voice / _loudness(voice) + share * whisper / _loudness(whisper)
    return (mixed * (_loudness(voice) / _loudness(mixed))).astype(np.float32)


def _loudness(sound: Any) -> float:
    return float(np.sqrt(np.mean(np.square(sound)))) + 1e-9


def coloured(generator: Any, draw: random.Random, length: int) -> Any:
    """Noise (length,) of about unit power: white, pink or brown."""
    white = generator.standard_normal(length, dtype=np.float32)
    colour = draw.choice((0.0, 0.0, 0.5, 1.0))
    if not colour or length < 64:
        return white
    spectrum = np.fft.rfft(white)
    spectrum[1:] /= np.arange(1, len(spectrum)) ** colour
    spectrum[0] = 0
    shaped = np.fft.irfft(spectrum, length).astype(np.float32)
    return shaped / np.float32(np.sqrt(np.mean(shaped**2)) + 1e-12)


def tones(draw: random.Random, length: int) -> Any:
    """Something like music (length,): notes of harmonics with an attack and a decay, in turn or together."""
    sound = np.zeros(length, np.float32)
    at = 0.0
    beat = draw.uniform(0.12, 0.7)
    key = draw.uniform(80, 330)
    decay = draw.uniform(0.5, 8)
    vibrato = draw.choice((0.0, 0.0, draw.uniform(0.002, 0.02)))
    brightness = draw.uniform(0.3, 1.0)
    while at < length / RATE:
        count = int(min(draw.choice((1, 1, 2, 4)) * beat, length / RATE - at) * RATE)
        if count < 64:
            break
        time = np.arange(count, dtype=np.float32) / RATE
        for step in draw.sample((0, 2, 4, 5, 7, 9, 11, 12, 16), draw.choice((1, 1, 2, 3))):
            pitch = key * 2 ** (step / 12)
            phase = 2 * np.pi * pitch * (time + vibrato * np.sin(2 * np.pi * 5.5 * time) / 10)
            note = sum(brightness**k * np.sin(k * phase) for k in range(1, draw.randint(2, 8)))
            sound[int(at * RATE) : int(at * RATE) + count] += (
                note * np.exp(-decay * time) * np.minimum(1, time * draw.choice((20, 200)))
            ).astype(np.float32)
        at += beat * draw.choice((1, 1, 1, 2))
    return sound / (np.abs(sound).max() + 1e-6)


def noise(generator: Any, draw: random.Random, length: int) -> Any:
    """What is not speech (length,): noise, hum, clicks, music, or several."""
    sound = np.zeros(length, np.float32)
    kinds = draw.sample(("noise", "hum", "clicks", "music", "music"), draw.choice((1, 1, 2)))
    for kind in kinds:
        level = np.float32(10 ** draw.uniform(-4, -0.6))
        if kind == "noise":
            burst = coloured(generator, draw, length) / 3
            if draw.random() < 0.3:  # comes and goes
                burst *= np.interp(np.arange(length), *_envelope(draw, length)).astype(np.float32)
            sound += burst * level
        elif kind == "hum":
            time = np.arange(length, dtype=np.float32) / RATE
            base = draw.choice((50.0, 60.0, draw.uniform(40, 1000)))
            sound += level * sum(np.sin(2 * np.pi * base * k * time) / k for k in range(1, draw.randint(2, 12)))
        elif kind == "clicks":
            for _ in range(draw.randint(1, 20)):
                begin = draw.randrange(length)
                click = generator.standard_normal(draw.randint(16, 1500), dtype=np.float32)
                click *= np.exp(-np.arange(len(click)) / draw.uniform(10, 300)).astype(np.float32)
                sound[begin : begin + len(click)] += level * click[: length - begin]
        else:
            sound += level * tones(draw, length)
    return sound


def _envelope(draw: random.Random, length: int) -> tuple[list[int], list[float]]:
    at = sorted(draw.randrange(length) for _ in range(12))
    return at, [draw.random() ** 2 for _ in at]
