"""`whisper-diarization`: `diarize.py -a FILE`, faster-whisper with NeMo's speakers.

The speakers are Kuulo's own (`--speakers auto`), not NeMo's, and so is the punctuation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from kuulo.commands import base
from kuulo.commands.base import FASTER_WHISPER, Argument, Common, Given, Heard, Own, Program, Refused, Wanted
from kuulo.formats.cues import timestamp
from kuulo.transcript import Segment

ARGUMENTS = (
    Argument(("-a", "--audio"), Own("the recording, one"), None, required=True),
    Argument(("--no-stem",), Own("without it, voices are first separated from music (demucs). Kuulo never does that"),
             True, action="store_false", dest="stemming"),
    Argument(("--suppress_numerals",), Refused("no engine of Kuulo's has it"), False, action="store_true"),
    Argument(("--whisper-model",), Common("a name, a name at the Hugging Face hub, or a folder", "model",
             base.model_name), "medium.en", dest="model_name"),
    Argument(("--batch-size",), Common("0: not in batches", "batch_size", lambda n: n or 1), 8, int),
    Argument(("--language",), Common("without it: found out", "language"), None, str,
             base.language_choices("mandarin")),
    Argument(("--device",), Common("without it: a GPU where there is one. The number format follows: int8 on a CPU",
             "device"), None),
)  # fmt: skip


class WhisperDiarization(Program):
    """whisper-diarization."""

    name = "whisper-diarization"
    summary = "faster-whisper with NeMo's speakers."
    url = "https://github.com/MahmoudAshraf97/whisper-diarization"
    version = "2025-07"
    engine = FASTER_WHISPER
    arguments = ARGUMENTS
    model_argument = "model_name"
    surprises = (
        "The default model is medium.en: English alone.",
        "txt and srt are written beside the recording, and there is no option for another place.",
        "Voices are separated from music first, unless --no-stem is given.",
        "Speakers are always told apart.",
    )

    def understand(self, given: Given) -> Wanted:
        values = given.values
        language, warnings = base.english_only(values["model_name"], values["language"], "received")
        options, raw = self.common(given)
        options |= {"speech_detection": True, "speakers": "auto"}
        if values["batch_size"]:  # with 0 it runs faster-whisper's own loop, with its defaults, which are Kuulo's too
            options |= {"condition_on_previous_text": False, "temperature": (0.0,)}
        if language:
            options["language"] = language
        return Wanted(given, (values["audio"],), options, raw, formats=("txt", "srt"), warnings=warnings)

    def files(self, wanted: Wanted, heard: Heard, number: int) -> dict[str, bytes]:
        name = os.path.splitext(heard.path)[0]  # noqa: PTH122 - any name, and beside the recording
        return {f"{name}.txt": text(heard.segments), f"{name}.srt": srt(heard.segments)}


def text(segments: Sequence[Segment]) -> bytes:
    """Its txt: a paragraph for each speaker in turn (helpers.py, get_speaker_aware_transcript)."""
    parts: list[str] = []
    for number, segment in enumerate(segments):
        speaker = called(segment)
        if number == 0:
            parts.append(f"{speaker}: ")
        elif speaker != called(segments[number - 1]):
            parts.append(f"\n\n{speaker}: ")
        parts.append(segment.text.strip() + " ")
    return "".join(parts).encode("utf-8-sig", "replace")


def srt(segments: Sequence[Segment]) -> bytes:
    """Its srt: a cue for each sentence, with its speaker (helpers.py, write_srt)."""
    cues = []
    for number, segment in enumerate(segments, 1):
        start, end = (timestamp(ms, always_hours=True, marker=",") for ms in (segment.start_ms, segment.end_ms))
        cues.append(f"{number}\n{start} --> {end}\n{called(segment)}: {segment.text.strip().replace('-->', '->')}\n\n")
    return "".join(cues).encode("utf-8-sig", "replace")


def called(segment: Segment) -> str:
    """`Speaker 0` is who speaks first, and who has what nobody else has."""
    return f"Speaker {int(segment.speaker[1:]) - 1 if segment.speaker else 0}"


PROGRAM = WhisperDiarization()
