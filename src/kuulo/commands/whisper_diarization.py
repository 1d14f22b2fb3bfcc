"""`whisper-diarization`: `diarize.py -a FILE`, faster-whisper with NeMo's speakers.

All that it writes has speakers in it, so Kuulo cannot stand in for it yet: it says so, and `kuulo translate-command`
shows what of a command line Kuulo can do.
"""

from __future__ import annotations

from kuulo.commands import base
from kuulo.commands.base import FASTER_WHISPER, SPEAKERS, Argument, Common, Given, Own, Program, Refused, Stop, Wanted

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
        options["speech_detection"] = True
        if values["batch_size"]:  # with 0 it runs faster-whisper's own loop, with its defaults, which are Kuulo's too
            options |= {"condition_on_previous_text": False, "temperature": (0.0,)}
        if language:
            options["language"] = language
        return Wanted(given, (values["audio"],), options, raw, formats=("txt", "srt"), warnings=warnings)

    def look(self, wanted: Wanted) -> Wanted:
        raise Stop(
            2,
            f"{self.name}: refused: everything that it writes has speakers in it, and {SPEAKERS}.\n"
            f"  what to do: `kuulo translate-command {self.name} -- ...` shows how to get the text alone, or run the "
            "original\n",
        )


PROGRAM = WhisperDiarization()
