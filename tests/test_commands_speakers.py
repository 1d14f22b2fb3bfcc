"""Speakers in the other programs' files: as the originals' own writers have them, and by real runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recordings
import test_speakers
from kuulo import audio, commands
from kuulo.commands import base
from kuulo.commands.base import Heard
from kuulo.transcript import Decoding, Segment, Word

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
talk = test_speakers.talk
RATE = 16_000

LAYOUTS = [
    [],
    ["--highlight_words", "True"],
    ["--max_line_width", "22"],
    ["--max_line_width", "22", "--max_line_count", "2"],
]


def said(*segments: tuple[str, str | None], words: bool = True) -> Heard:
    """Segments of a text and a speaker, a word each 300 ms, a pause of 500 ms after each."""
    made, at = [], 200
    for text, speaker in segments:
        start, found = at, []
        for part in text.split():
            found.append(Word(f" {part}", at, at + 250, 0.5, speaker))
            at += 300
        decoding = Decoding(tokens=(50_364, 11, 50_400), temperature=0.0, avg_logprob=-0.3, compression_ratio=1.0,
                            no_speech_prob=0.1, seek=0)  # fmt: skip
        made.append(
            Segment(start, at - 50, f" {text}", tuple(found) if words else (), speaker, "en", 0.5, (), decoding)
        )
        at += 500
    return Heard("talk.wav", "en", 0.9, tuple(made), at)


TALK = (
    ("Good morning, dear mother, how do you do?", "S1"),
    ("Not <so> well & tired -->", "S2"),
    ("Who is there?", None),
    ("Oh", "S2"),
    ("We need coffee and milk today, and bread.", "S1"),
)


def originals(module: str, heard: Heard, options: dict[str, Any], folder: Path, **called: Any) -> dict[str, bytes]:
    """What the writers of a program write about it."""
    utils = pytest.importorskip(module)
    segments: list[dict[str, Any]] = []
    for segment in heard.segments:
        one: dict[str, Any] = {"start": segment.start_ms / 1000, "end": segment.end_ms / 1000, "text": segment.text}
        if segment.words:
            one["words"] = [
                {"word": w.text if called["spaced"] else w.text.strip(), "start": w.start_ms / 1000,
                 "end": w.end_ms / 1000}
                for w in segment.words
            ]  # fmt: skip
        if name := base.speaker_name(segment.speaker):
            one["speaker"] = name.replace("SPEAKER", called.get("name", "SPEAKER"))
        segments.append(one)
    written = {}
    for format_ in ("txt", "srt", "vtt", "tsv"):
        utils.get_writer(format_, str(folder))({"segments": segments, "language": "en"}, "talk.wav", options)
        written[format_] = (folder / f"talk.{format_}").read_bytes()
    return written


def ours(program: base.Program, words: list[str], heard: Heard) -> dict[str, bytes]:
    wanted = program.understand(program.parse(["talk.wav", *words], lambda name: True))
    files = program.files(wanted, heard, 0)
    return {path.rsplit(".", 1)[1]: content for path, content in files.items()}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda words: " ".join(words) or "plain")
@pytest.mark.parametrize("name", ["", "Voice"])
def test_whisper_ctranslate2s_writers_name_speakers_as_ours(layout: list[str], name: str, tmp_path: Path) -> None:
    heard = said(*TALK)
    words = ["--hf_token", "x", "--word_timestamps", "True", *layout, *(["--speaker_name", name] if name else [])]
    written = ours(commands.program("whisper-ctranslate2"), words, heard)
    options = {
        "highlight_words": "--highlight_words" in layout,
        "max_line_width": 22 if "--max_line_width" in layout else None,
        "max_line_count": 2 if "--max_line_count" in layout else None,
        "max_words_per_line": None,
    }
    theirs = originals("whisper_ctranslate2.writers", heard, options, tmp_path, spaced=True, name=name or "SPEAKER")
    for format_, content in theirs.items():
        assert written[format_] == content, format_
    found = [s.get("speaker") for s in json.loads(written["json"])["segments"]]
    label = name or "SPEAKER"
    assert found == [f"{label}_00", f"{label}_01", None, f"{label}_01", f"{label}_00"]


def test_whisper_ctranslate2s_writers_without_words(tmp_path: Path) -> None:
    heard = said(*TALK, words=False)
    written = ours(commands.program("whisper-ctranslate2"), ["--hf_token", "x"], heard)
    for format_, content in originals("whisper_ctranslate2.writers", heard, {}, tmp_path, spaced=True).items():
        assert written[format_] == content, format_


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=lambda words: " ".join(words) or "plain")
def test_whisperxs_writers_name_speakers_as_ours(layout: list[str], tmp_path: Path) -> None:
    heard = said(*TALK)
    written = ours(commands.program("whisperx"), ["--diarize", *layout], heard)
    options = {
        "highlight_words": "--highlight_words" in layout,
        "max_line_width": 22 if "--max_line_width" in layout else None,
        "max_line_count": None,
    }
    for format_, content in originals("whisperx.utils", heard, options, tmp_path, spaced=False).items():
        assert written[format_] == content, format_


def test_whisperxs_files_name_speakers() -> None:
    """What its writers make, where it is not installed to be asked (whisperx/utils.py of 3.8.6)."""
    written = ours(commands.program("whisperx"), ["--diarize"], said(("Good morning.", "S1"), ("Yes?", None)))
    assert written["txt"] == b"[SPEAKER_00]: Good morning.\nYes?\n"
    assert b"\n[SPEAKER_00]: Good morning.\n" in written["srt"] and b"\n[SPEAKER_00]: Good morning.\n" in written["vtt"]
    assert b"SPEAKER" not in written["tsv"]
    data = json.loads(written["json"])
    assert [s.get("speaker") for s in data["segments"]] == ["SPEAKER_00", None]
    assert [w.get("speaker") for w in data["word_segments"]] == ["SPEAKER_00", "SPEAKER_00", None]
    labels = ours(commands.program("whisperx"), ["--diarize", "-f", "aud"], said(("Good morning.", "S1")))
    assert labels["aud"] == b"0.2\t0.75\t[[SPEAKER_00]]Good morning.\n"


def test_whisper_cli_says_which_channel_is_louder(kuulo: Kuulo, miniature: Any, tmp_path: Path) -> None:
    """Two sentences: the first on the left channel alone, the second a little louder on the right, by less and by more
    than a tenth."""
    clip = miniature.clip("two_sentences")
    samples, cut = clip.samples(), clip.segments[0][1] * RATE // 1000
    for name, right, channel in (("more", 1.2, "1"), ("less", 1.05, "?")):
        both = np.stack([samples, samples * right], 1) * 0.5
        both[:cut, 1] = 0
        recordings.wav(tmp_path / f"{name}.wav", both, RATE)
        done = kuulo(
            "as", "whisper-cli", "--engine", base.FASTER_WHISPER, "--", "-m", "miniature", f"{name}.wav", "-di",
            "-otxt", "-ovtt", "-osrt", "-ocsv", "-oj", "-olrc",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        written = {p.suffix: p.read_text() for p in tmp_path.glob(f"{name}.wav.*")}
        first, second = written[".txt"].splitlines()
        assert first.startswith("(speaker 0) ") and second.startswith(f"(speaker {channel}) ")
        assert [line for line in written[".vtt"].splitlines() if "<v" in line] == [
            f"<v Speaker0>{first.removeprefix('(speaker 0)')}",
            f"<v Speaker{channel}>{second.removeprefix(f'(speaker {channel})')}",
        ]
        assert first in written[".srt"] and second in written[".lrc"] and f"]  {first}" in done.stdout
        assert written[".csv"].splitlines()[0] == "start,end,speaker,text"
        assert [row.split(",")[2] for row in written[".csv"].splitlines()[1:]] == ["0", channel]
        assert [s["speaker"] for s in json.loads(written[".json"])["transcription"]] == ["0", channel]
    mono = recordings.wav(tmp_path / "mono.wav", samples, RATE)
    assert audio.levels(mono).shape == (-(-len(samples) // 160), 2)
    words = ("-m", "miniature", "mono.wav", "-di")
    assert kuulo("as", "whisper-cli", "--engine", base.FASTER_WHISPER, "--", *words).stdout.count("(speaker ?)") == 2


@pytest.mark.parametrize(
    ("name", "words", "speakers"),
    [
        ("whisperx", ["--diarize"], "auto"),
        ("whisperx", ["--diarize", "--min_speakers", "2"], "2-99"),
        ("whisperx", ["--diarize", "--min_speakers", "2", "--max_speakers", "2"], "2"),
        ("whisperx", ["--diarize", "--max_speakers", "4"], "1-4"),
        ("whisperx", ["--max_speakers", "4"], None),
        ("whisper-ctranslate2", ["--hf_token", "x"], "2"),
        ("whisper-ctranslate2", ["--hf_token", "x", "--speaker_num", "3"], "3"),
        ("whisper-ctranslate2", ["--speaker_num", "3"], None),
    ],
)
def test_how_many_speakers_are_wanted(name: str, words: list[str], speakers: str | None) -> None:
    program = commands.program(name)
    wanted = program.understand(program.parse(["talk.wav", *words], lambda name: True))
    assert wanted.options.get("speakers") == speakers


def test_insanely_fast_whispers_speakers() -> None:
    program = commands.program("insanely-fast-whisper")
    words = ["--file-name", "talk.wav", "--hf-token", "x", "--min-speakers", "2"]
    wanted = program.understand(program.parse(words, lambda name: True))
    assert wanted.options["speakers"] == "2-99"
    heard = said(("Good morning.", "S1"), ("Yes?", None), ("No.", "S2"))
    (content,) = program.files(wanted, heard, 0).values()
    data = json.loads(content)
    assert data["speakers"] == [
        {"speaker": "SPEAKER_00", **data["chunks"][0]}, {"speaker": "SPEAKER_01", **data["chunks"][2]},
    ]  # fmt: skip
    by_word = dataclasses.replace(wanted, given=dataclasses.replace(wanted.given, values={
        **wanted.given.values, "timestamp": "word"}))  # fmt: skip
    (content,) = program.files(by_word, heard, 0).values()
    assert [s["speaker"] for s in json.loads(content)["speakers"]] == ["SPEAKER_00", "SPEAKER_00", "SPEAKER_01"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("whisperx", ["--model", "miniature", "--diarize", "--max_speakers", "2", "-o", "."]),
        ("whisper-ctranslate2", ["--model", "miniature", "--hf_token", "secret", "-o", "."]),
        ("insanely-fast-whisper", ["--model-name", "miniature", "--hf-token", "secret", "--num-speakers", "2"]),
    ],
)
def test_the_shims_tell_speakers_apart(name: str, words: list[str], talk: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    file = ["--file-name", str(talk)] if name == "insanely-fast-whisper" else [str(talk)]
    done = kuulo("as", name, "--engine", base.FASTER_WHISPER, "--", *file, *words)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    written = (tmp_path / ("output.json" if name == "insanely-fast-whisper" else "talk.json")).read_text()
    data = json.loads(written)
    spoken = data["speakers"] if name == "insanely-fast-whisper" else data["segments"]
    assert {s["speaker"] for s in spoken} == {"SPEAKER_00", "SPEAKER_01"}
    assert [s["speaker"] for s in spoken][:2] == ["SPEAKER_00", "SPEAKER_01"]
    printed = [line for line in done.stdout.splitlines() if "-->" in line]
    assert len(printed) == len(set(printed)), "nothing is said twice"
