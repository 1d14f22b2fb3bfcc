"""SubRip and WebVTT, as Kuulo writes them and as subtitle editors save them.

A blank line does not end a cue here, the next line with times does: openai/whisper's files, and so ours, may have blank
lines inside a cue.
"""

from __future__ import annotations

import html
import re

from kuulo.imports import Stretch

_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{2})[,.](\d{1,3})"
_TIMES = re.compile(rf"^[ \t]*{_CLOCK}[ \t]+-->[ \t]+{_CLOCK}(?:[ \t][^\n]*)?$", re.MULTILINE)
_VOICE = re.compile(r"<v(?:\.[^ \t>]*)?[ \t]+([^>]*)>")
_TAG = re.compile(r"</?(?:[biucv]|ruby|rt|lang|font)(?:[ .][^<>]*)?>|<\d[\d:.]*>|\{\\[^{}]*\}")


def read(content: bytes) -> list[Stretch]:
    """The cues. Raises ValueError when there are lines but none with times, or a cue for each highlighted word."""
    text = decoded(content)
    is_vtt = text.startswith("WEBVTT")
    found = list(_TIMES.finditer(text))
    if not found and text.strip() and not (is_vtt and "-->" not in text):
        raise ValueError("no line has times as 00:00:01,000 --> 00:00:02,000")
    cues = []
    for number, match in enumerate(found):
        end = found[number + 1].start() if number + 1 < len(found) else len(text)
        body = text[match.end() : end]
        if number + 1 < len(found):
            body = _without_number(body, is_vtt)
        cues.append((_ms(match.groups()[:4]), _ms(match.groups()[4:]), _without_notes(body) if is_vtt else body))
    if sum("<u>" in body for _, _, body in cues) > max(1, len(cues) // 3):
        raise ValueError("it has a cue for each highlighted word: export it without --highlight-words to edit it")
    told = is_vtt and any(_VOICE.match(body.strip()) for _, _, body in cues)
    return [_stretch(start_ms, end_ms, body.strip(), told) for start_ms, end_ms, body in cues]


def decoded(content: bytes) -> str:
    """The text with line ends `\\n`. Raises ValueError when it is neither UTF-8 nor UTF-16 with a mark."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16")
    else:
        text = content.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _ms(parts: tuple[str | None, ...]) -> int:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1000 + int(fraction.ljust(3, "0"))


def _without_number(body: str, is_vtt: bool) -> str:
    """The cue's text without the line right before the next cue's times: its number, or in WebVTT any name."""
    before, newline, last = body.removesuffix("\n").rpartition("\n")
    if not newline or not last.strip():
        return body
    is_own = last.strip().isdigit() if not is_vtt else not before.strip(" \t") or before.endswith("\n")
    return before if is_own else body


def _without_notes(body: str) -> str:
    blocks = re.split(r"\n[ \t]*\n", body)
    return "\n\n".join(b for b in blocks if not re.match(r"\s*(NOTE|STYLE|REGION)\b", b) or b is blocks[0])


def _stretch(start_ms: int, end_ms: int, body: str, told: bool) -> Stretch:
    """`told`: whether the file has voices, so that a cue without one is nobody's."""
    voice = _VOICE.match(body) if told else None
    if voice:
        return Stretch(start_ms, end_ms, _words(body[voice.end() :]), html.unescape(voice[1]), body)
    return Stretch(start_ms, end_ms, _words(body), "" if told else None, body)


def _words(body: str) -> str:
    return html.unescape(_TAG.sub("", body))
