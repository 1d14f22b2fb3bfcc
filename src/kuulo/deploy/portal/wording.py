"""What the form calls options and says of them."""

from __future__ import annotations

from collections.abc import Mapping

from kuulo.options import Option

LABELS: Mapping[str, str] = {
    "batch_size": "Windows decoded together",
    "compute_type": "Number format for computing",
    "condition_on_previous_text": "What was said guides what follows",
    "engine_option": "Other options of the engine",
    "existing": "Results that are there already",
    "from": "Start at",
    "highlight_words": "Subtitles: underline words as they are spoken",
    "hotwords": "Words to expect",
    "initial_prompt": "Text before the beginning",
    "max_line_count": "Subtitles: lines in a cue",
    "max_line_width": "Subtitles: characters in a line",
    "max_words_per_line": "Subtitles: words in a line",
    "pack": "Many short recordings together",
    "roster": "File of voices with names",
    "speaker_option": "Other options for telling speakers apart",
    "speech_detection": "Leave out what holds no speech",
    "then": "Afterwards, a language model makes",
    "then_option": "Options of what is made afterwards",
    "to": "Stop at",
    "word_times": "Times for each word",
}
"""What options are called in the form, where it is not their name."""


HELP: Mapping[str, str] = {
    "engine": "The program that recognises speech.",
    "engine_option": "Handed to the engine as they are: KEY=VALUE, one on a line.",
    "language": "Say which one where you know it: that is surer than to have it found out.",
    "hotwords": "Names and terms that may come anywhere in the recording.",
    "max_line_count": "Needs the characters in a line.",
    "model": "A large one hears better and takes longer.",
    "roster": "Its path: names for the speakers whose voices are enrolled in it (`kuulo speakers enrol`).",
    "speaker_engine": "The program that tells speakers apart.",
    "speaker_model": "What tells speakers apart.",
    "speaker_option": "Handed to who tells speakers apart as they are: KEY=VALUE, one on a line.",
    "speakers": "Who says what.",
    "then": "Of each transcript, beside it. It reads the transcripts here, and sends them nowhere.",
    "then_option": "KEY=VALUE, one on a line: the language of a translation (to=fi), a code book (codebook=/PATH).",
}
"""What the form says of options, where that is not what the command line says."""


def label(option: Option) -> str:
    """What the form calls an option."""
    return LABELS.get(option.name, option.name.replace("_", " ").capitalize())


def markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join("\\" + c if c in "\\`*_[]<>|" else c for c in text)
