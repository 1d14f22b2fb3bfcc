"""`insanely-fast-whisper`: transformers' pipeline on a GPU (insanely_fast_whisper/cli.py)."""

from __future__ import annotations

import json
from typing import Any

from kuulo import languages
from kuulo.commands import base
from kuulo.commands.base import (
    OWN_SPEAKERS,
    TRANSFORMERS,
    Argument,
    Common,
    Given,
    Heard,
    Idle,
    Own,
    Program,
    Refused,
    Stop,
    Wanted,
)

IF_SPEAKERS = Own("with --hf-token")
NO_TOKEN = "no_token"  # noqa: S105 - the default, which is no token

ARGUMENTS = (
    Argument(("--file-name",), Own("the recording; an address is refused"), None, str, required=True),
    Argument(("--device-id",), Own("a number is cuda:N in Kuulo", lambda number: ("--device", f"cuda:{number}")), "0",
             str),
    Argument(("--transcript-path",), Own("the one file that is written"), "output.json", str),
    Argument(("--model-name",), Common("a folder, or a name at the Hugging Face hub", "model", base.model_name),
             "openai/whisper-large-v3", str),
    Argument(("--task",), Common("", "task"), "transcribe", str, ("transcribe", "translate")),
    Argument(("--language",), Own("None: found out", lambda name: () if name == "None" else ("--language", name)),
             "None", str),
    Argument(("--batch-size",), Common("", "batch_size"), 24, int),
    Argument(("--flash",), Refused("Flash Attention 2 is not among what Kuulo's transformers engine takes"), False,
             bool),
    Argument(("--timestamp",), Own("word: --word-times", lambda kind: ("--word-times",) if kind == "word" else ()),
             "chunk", str, ("chunk", "word")),
    Argument(("--hf-token",), Own(f"any word asks for speakers; {OWN_SPEAKERS}. The options for their number make it a "
             "number or a range", lambda token: ("--speakers", "auto") if token != NO_TOKEN else ()), NO_TOKEN, str,
             secret=True),
    Argument(("--diarization_model",), Idle(OWN_SPEAKERS), "pyannote/speaker-diarization-3.1", str),
    Argument(("--num-speakers",), IF_SPEAKERS, None, int),
    Argument(("--min-speakers",), IF_SPEAKERS, None, int),
    Argument(("--max-speakers",), IF_SPEAKERS, None, int),
)  # fmt: skip


class InsanelyFastWhisper(Program):
    """insanely-fast-whisper."""

    name = "insanely-fast-whisper"
    summary = "Hugging Face transformers in large batches."
    url = "https://github.com/Vaibhavs10/insanely-fast-whisper"
    version = "0.0.15"
    engine = TRANSFORMERS
    arguments = ARGUMENTS
    model_argument = "model_name"
    surprises = (
        "The default model is large-v3, in batches of 24 windows, decoded greedily.",
        "It always wants a GPU. Kuulo takes the GPU of --device-id where one is named, and otherwise what there is.",
        "--flash takes any word for yes, also False.",
        "It writes one file, output.json in the current folder, over whatever is there.",
    )

    def understand(self, given: Given) -> Wanted:
        values = given.values
        self._check(values)
        if "://" in values["file_name"]:
            raise Stop(2, f"{self.name}: --file-name: refused: Kuulo fetches nothing. Fetch it first.\n")
        options, raw = self.common(given)
        options |= {"beam_size": 1, "temperature": (0.0,), "condition_on_previous_text": False}
        options["word_times"] = values["timestamp"] == "word"
        if "device_id" in given.typed:
            number = values["device_id"]
            options["device"] = f"cuda:{number}" if number.isdigit() else number
        if values["language"] != "None":
            options["language"] = languages.code(values["language"])
        if values["hf_token"] != NO_TOKEN:
            number, least, most = (values[f"{n}_speakers"] for n in ("num", "min", "max"))
            options["speakers"] = base.speakers(number, least, most)
        return Wanted(given, (values["file_name"],), options, raw, formats=("json",))

    def _check(self, values: Any) -> None:
        number, least, most = (values[f"{n}_speakers"] for n in ("num", "min", "max"))
        if number is not None and (least is not None or most is not None):
            self.error("--num-speakers cannot be used together with --min-speakers or --max-speakers.")
        for name, value in (("num", number), ("min", least), ("max", most)):
            if value is not None and value < 1:
                self.error(f"--{name}-speakers must be at least 1.")
        if least is not None and most is not None and least > most:
            self.error("--min-speakers cannot be greater than --max-speakers.")

    def files(self, wanted: Wanted, heard: Heard, number: int) -> dict[str, bytes]:
        by_word = wanted.value("timestamp") == "word"
        parts: list[tuple[str | None, Any]] = [
            (base.speaker_name(s.speaker), part) for s in heard.segments for part in (s.words if by_word else (s,))
        ]
        chunks = [{"text": p.text, "timestamp": [p.start_ms / 1000, p.end_ms / 1000]} for _, p in parts]
        spoken = [{"speaker": who, **chunk} for (who, _), chunk in zip(parts, chunks, strict=True) if who]
        data = {"speakers": spoken, "chunks": chunks, "text": "".join(s.text for s in heard.segments)}
        return {wanted.value("transcript_path"): json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")}

    def ends(self, wanted: Wanted, path: str) -> str:
        who = " & speaker segmented" if "speakers" in wanted.options else ""
        path = wanted.value("transcript_path")
        return f"Voila!✨ Your file has been transcribed{who} go check it out over here 👉 {path}\n"


PROGRAM = InsanelyFastWhisper()
