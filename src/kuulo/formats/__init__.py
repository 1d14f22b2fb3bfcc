"""The table of output formats. A format's module is imported when it is first asked for.

A format is a module with

    def render(transcript: Transcript, layout: Layout) -> bytes (or str, which becomes UTF-8)
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kuulo.errors import UsageError
from kuulo.transcript import Transcript

ALL = "all"
"""Instead of names: every format."""


@dataclass(frozen=True)
class FormatSpec:
    """What can be known of a format without importing it. `extension` begins with a dot. `needs_words`: the layout
    options act on it, and they need the words' times (without them it needs none)."""

    name: str
    extension: str
    summary: str
    module: str
    needs_words: bool = False
    shows_turns: bool = False
    """Whether it has something to show where nothing but turns is known."""


_SPECS = (
    FormatSpec("audacity", ".audacity.txt", "Label track for Audacity", "kuulo.formats.audacity"),
    FormatSpec("cha", ".cha", "CHAT: an utterance for each sentence, for CLAN and TalkBank",
               "kuulo.formats.cha"),
    FormatSpec("csv", ".csv", "Table for spreadsheets and statistics: a row for each segment", "kuulo.formats.csv"),
    FormatSpec("ctm", ".ctm", "Each word with its time, for sclite and aligners", "kuulo.formats.ctm"),
    FormatSpec("docx", ".docx", "Word document: a paragraph with its time for each segment, lines numbered",
               "kuulo.formats.docx"),
    FormatSpec("eaf", ".eaf", "ELAN: a tier for each speaker", "kuulo.formats.eaf", shows_turns=True),
    FormatSpec("exb", ".exb", "EXMARaLDA: a tier for each speaker", "kuulo.formats.exb", shows_turns=True),
    FormatSpec("f4", ".f4.txt", "Text with an end time after each paragraph, for f4, MAXQDA and ATLAS.ti",
               "kuulo.formats.f4"),
    FormatSpec("html", ".html", "Page for a browser: times that play the recording", "kuulo.formats.html"),
    FormatSpec("json", ".json", "The master copy: all that is known; other formats are made from it",
               "kuulo.formats.json", shows_turns=True),
    FormatSpec("lrc", ".lrc", "Lyrics: lines with their times, for music players", "kuulo.formats.lrc"),
    FormatSpec("nvivo", ".nvivo.txt", "Table of time spans and speakers for NVivo", "kuulo.formats.nvivo"),
    FormatSpec("rttm", ".rttm", "Who speaks when, for diarization tools and their scorers",
               "kuulo.formats.rttm", shows_turns=True),
    FormatSpec("srt", ".srt", "Subtitles (SubRip)", "kuulo.formats.srt", needs_words=True),
    FormatSpec("textgrid", ".TextGrid", "Praat: a tier for each speaker", "kuulo.formats.textgrid", shows_turns=True),
    FormatSpec("timestamps", ".timestamps.txt", "Text with a time before each line, for MAXQDA, ATLAS.ti and NVivo",
               "kuulo.formats.timestamps"),
    FormatSpec("tsv", ".tsv", "Table with start and end in milliseconds, as openai/whisper writes it",
               "kuulo.formats.tsv"),
    FormatSpec("txt", ".txt", "Text: a line for each segment", "kuulo.formats.txt"),
    FormatSpec("vtt", ".vtt", "Subtitles for the web (WebVTT)", "kuulo.formats.vtt", needs_words=True),
    FormatSpec("whisper-json", ".whisper.json", "JSON as openai/whisper writes it", "kuulo.formats.whisper_json"),
)  # fmt: skip

FORMATS: dict[str, FormatSpec] = {s.name: s for s in _SPECS}
"""By name, sorted."""


@dataclass(frozen=True)
class Layout:
    """How subtitles are cut into cues and lines, as openai/whisper's options of these names.

    `max_line_width`: characters in a line. `max_line_count`: lines in a cue; with it, cues no longer follow the
    segments. `max_words_per_line`: words in a cue's line. `highlight_words`: a cue for each word, underlined.
    `follow_segments`: whether a segment always begins a cue; None: unless lines are counted and have a width."""

    max_line_width: int | None = None
    max_line_count: int | None = None
    max_words_per_line: int | None = None
    highlight_words: bool = False
    follow_segments: bool | None = None

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Layout:
        """The layout in resolved options; raises UsageError when one of them would have no effect."""
        layout = cls(
            max_line_width=values.get("max_line_width") or None,
            max_line_count=values.get("max_line_count") or None,
            max_words_per_line=values.get("max_words_per_line") or None,
            highlight_words=bool(values.get("highlight_words")),
        )
        if layout.max_line_count and not layout.max_line_width:
            raise UsageError(
                "--max-line-count has no effect without --max-line-width",
                do="add --max-line-width (42 is usual) or leave --max-line-count out",
            )
        if layout.max_line_count and layout.max_words_per_line:
            raise UsageError(
                "--max-words-per-line has no effect with --max-line-width and --max-line-count",
                do="leave --max-words-per-line or --max-line-count out",
            )
        return layout

    def given(self) -> list[str]:
        """The flags of the options that are set."""
        return [
            "--" + name.replace("_", "-") for name, value in vars(self).items() if value and name != "follow_segments"
        ]

    def check(self, transcript: Transcript) -> None:
        """Raises UsageError when an option is set and the transcript has text but not the words' times."""
        if self.given() and transcript.text.strip() and not any(s.words for s in transcript.segments):
            raise UsageError(
                f"{self.given()[0]} needs the words' times, and this transcript has none",
                looked_at=f"the {len(transcript.segments)} segments of {transcript.audio.name}",
                do=f"transcribe with --word-times, or leave {', '.join(self.given())} out",
            )


def names() -> list[str]:
    """Every format's name, sorted."""
    return list(FORMATS)


def spec(name: str) -> FormatSpec:
    """The format of that name; raises UsageError with the names that are near."""
    check([name])
    if name == ALL:
        raise UsageError(f"{ALL!r} stands for every format and is none itself", do="use formats.expand first")
    return FORMATS[name]


def check(names: Sequence[str]) -> None:
    """Raises UsageError for the first name that is no format's, with those that are near. `all` is known."""
    for name in names:
        if name in FORMATS or name == ALL:
            continue
        near = difflib.get_close_matches(name.lower().lstrip("."), [*FORMATS, ALL], n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(
            f"{name!r} is no output format",
            looked_at="formats: " + ", ".join([*FORMATS, ALL]),
            do=hint + "`kuulo formats` shows what each is",
        )


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """`names` in their order, each once, with `all` replaced by every format; raises UsageError as `check`."""
    check(names)
    return tuple(dict.fromkeys(f for name in names for f in (FORMATS if name == ALL else (name,))))


def render(name: str, transcript: Transcript, layout: Layout) -> bytes:
    """The file's content. Raises UsageError for an unknown name, and for a layout that the transcript cannot have."""
    format_ = spec(name)
    if format_.needs_words:
        layout.check(transcript)
    content: bytes | str = importlib.import_module(format_.module).render(transcript, layout)
    return content if isinstance(content, bytes) else _utf8(content)


def _utf8(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which it cannot hold, becomes U+FFFD."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")
