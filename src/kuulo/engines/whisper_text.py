"""What the adapters of Whisper engines share: refusals, checks of raw options, words from tokens, times.

Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

import dataclasses
import math
import queue
import threading
import zlib
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from kuulo.engines.base import SAMPLE_RATE, Said, Unusable
from kuulo.transcript import Segment, Word

NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages that Whisper writes without spaces between words (openai/whisper, tokenizer.py)."""

CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")
"""Punctuation that belongs to the word before it (openai/whisper, transcribe.py)."""


def refuse_by_model(options: Mapping[str, Any]) -> Dict[str, str]:
    """Languages and tasks that the model does not know, as far as facts about it are there."""
    refused: Dict[str, str] = {}
    model = options.get("model")
    if options.get("multilingual") is False and options.get("language") not in (None, "auto", "en"):
        refused["language"] = f"the model {model} knows English alone"
    if options.get("task") == "translate":
        if options.get("multilingual") is False:
            refused["task"] = f"the model {model} knows English alone"
        elif options.get("translates") is False:
            refused["task"] = f"the model {model} cannot translate; large-v3, medium, small can"
    return refused


def check_raw(engine: str, raw: Mapping[str, Any], valid: Iterable[str]) -> None:
    """Raises Unusable, with the valid names, when `raw` has an option that the engine does not."""
    valid = sorted(valid)
    unknown = sorted(set(raw) - set(valid))
    if unknown:
        raise Unusable(f"{engine} has no option {unknown[0]!r}", f"its options: {', '.join(valid)}")


def split_device(device: Any) -> Tuple[str, int]:
    """`cuda:1` -> ("cuda", 1); nothing -> ("auto", 0)."""
    name, _, index = str(device or "auto").partition(":")
    return name, int(index or 0)


def torch_device(asked: Any, torch: Any) -> str:
    """The device for PyTorch (its module is given): a GPU for "auto" where it sees one. Raises Unusable."""
    name, _ = split_device(asked)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise Unusable("this PyTorch sees no CUDA GPU", "try --device cpu")
    return str(asked)


TOP = 1.0
"""The highest temperature of a fallback, in openai-whisper's program and in whisper.cpp."""


def ladder(temperatures: Tuple[float, ...]) -> Optional[Tuple[float, float]]:
    """(first, step) of temperatures in equal steps up to the top; step 0 for one; None for anything else."""
    if len(temperatures) < 2:
        return (temperatures or (0.0,))[0], 0.0
    step = temperatures[1] - temperatures[0]
    equal = all(abs(t - temperatures[0] - n * step) < 1e-3 for n, t in enumerate(temperatures))
    if step <= 0 or not equal or temperatures[-1] + step < TOP + 1e-3:
        return None
    return temperatures[0], round(step, 4)


def flags(pairs: Mapping[str, Any]) -> List[str]:
    """`--name value` of each pair whose value is not None, as openai-whisper's program takes them."""
    return [word for name, value in pairs.items() if value is not None for word in (f"--{name}", str(value))]


def fallback_flags(options: Mapping[str, Any], notes: List[str]) -> Dict[str, Any]:
    """Temperatures as openai-whisper's program takes them; a note where it cannot."""
    steps = ladder(tuple(options.get("temperature") or (0.0,)))
    if steps is None:
        notes.append("the program takes one temperature, or equal steps up to 1")
        return {}
    first, step = steps
    return {"temperature": f"{first:g}", "temperature_increment_on_fallback": f"{step:g}" if step else "None"}


def milliseconds(seconds: Any, samples: int) -> int:
    """Seconds as ms, not before the start nor after the end of a clip of `samples` samples."""
    return max(0, min(round(float(seconds) * 1000), samples * 1000 // SAMPLE_RATE))


def confidence(avg_logprob: float) -> float:
    """exp of a mean log probability, from 0 to 1."""
    return round(math.exp(min(0.0, avg_logprob)), 4)


def compression_ratio(text: str) -> float:
    """How well the text compresses; high for repetitions (openai/whisper, utils.py)."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


@dataclasses.dataclass(frozen=True)
class Token:
    """A piece of text as its bytes, with its times and its probability."""

    text: bytes
    start_ms: int
    end_ms: int
    probability: Optional[float] = None


def words_from(tokens: Iterable[Token], language: Optional[str]) -> Tuple[Word, ...]:
    """Tokens joined into words: a new one begins at a space, or, in a language without spaces, at a character.

    A word's confidence is the mean of its tokens'. Punctuation after it belongs to its text alone, as in
    openai-whisper."""
    groups: List[List[Token]] = []
    for token in tokens:
        if not token.text:
            continue
        if groups and not _begins_word(groups[-1], token, language):
            groups[-1].append(token)
        else:
            groups.append([token])
    words = []
    for group in groups:
        spoken = [t for t in group if not _closes(t)] or group
        known = [t.probability for t in spoken if t.probability is not None]
        text = b"".join(t.text for t in group).decode("utf-8", errors="replace")
        probability = round(sum(known) / len(known), 4) if known else None
        words.append(Word(text, group[0].start_ms, max(t.end_ms for t in spoken), probability))
    return tuple(words)


def _begins_word(before: List[Token], token: Token, language: Optional[str]) -> bool:
    if language not in NO_SPACES:
        return token.text.startswith(b" ")
    try:
        b"".join(t.text for t in before).decode("utf-8")
    except UnicodeDecodeError:
        return False  # a character over several tokens
    return not _closes(token)


def _closes(token: Token) -> bool:
    return token.text.decode("utf-8", errors="replace") in CLOSING


EARLY_MS = 500
"""How long before its segment a first word may begin: where openai-whisper finds it unduly long it keeps the segment's
own time, and lets the word begin up to so much earlier (whisper/timing.py, add_word_timestamps)."""


def tidy(segment: Segment) -> Segment:
    """The segment with its words inside it, but for a first one that begins up to EARLY_MS before, and in order of
    time."""
    words = []
    at = segment.start_ms - EARLY_MS
    for word in segment.words:
        start = min(max(word.start_ms, at), segment.end_ms)
        end = min(max(word.end_ms, start), segment.end_ms)
        words.append(dataclasses.replace(word, start_ms=start, end_ms=end))
        at = max(start, segment.start_ms)
    return dataclasses.replace(segment, words=tuple(words))


Tell = Callable[[Said], None]


def streamed(work: Callable[[Tell, threading.Event], None]) -> Iterator[Said]:
    """What `work(tell, stop)` tells, while it runs in a thread. Its exception is raised here.

    When nobody listens any longer `stop` is set, and the thread is waited for."""
    said: "queue.Queue[Tuple[Optional[Said], Optional[BaseException]]]" = queue.Queue()
    stop = threading.Event()

    def run() -> None:
        try:
            work(lambda event: said.put((event, None)), stop)
        except BaseException as error:  # raised below, in the caller's thread
            said.put((None, error))
        else:
            said.put((None, None))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            event, error = said.get()
            if error is not None:
                raise error
            if event is None:
                return
            yield event
    finally:
        stop.set()
        thread.join()
