"""openai/whisper's own JSON: what `whisper --output_format json` writes, for programs that read that.

Same keys in the same order, times in seconds, ASCII with escapes. What the engine did not tell is left out and not
made up: without decoding fields a segment has id, seek (0), start, end, text and, where there are any, words.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from kuulo.formats import Layout
from kuulo.transcript import Segment, Transcript, Word


def render(transcript: Transcript, layout: Layout) -> str:
    """The file's text, on one line without an end, as openai's."""
    # openai writes the key `words` for every segment or for none.
    with_words = any(s.words for s in transcript.segments)
    result = {
        "text": transcript.text,
        "segments": [_segment(i, s, with_words) for i, s in enumerate(transcript.segments)],
        "language": transcript.language,
    }
    return json.dumps(result)


def _segment(number: int, segment: Segment, with_words: bool) -> dict[str, Any]:
    decoding = dataclasses.asdict(segment.decoding) if segment.decoding else {}
    return {
        "id": number,
        "seek": decoding.pop("seek", 0),
        "start": segment.start_ms / 1000,
        "end": segment.end_ms / 1000,
        "text": segment.text,
        **decoding,
        **({"words": [_word(w) for w in segment.words]} if with_words else {}),
    }


def _word(word: Word) -> dict[str, Any]:
    probability = {} if word.confidence is None else {"probability": word.confidence}
    return {"word": word.text, "start": word.start_ms / 1000, "end": word.end_ms / 1000, **probability}
