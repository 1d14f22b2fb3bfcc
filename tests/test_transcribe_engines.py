"""`kuulo transcribe` with real engines: real processes, the miniature Whisper, recorded and synthesised speech."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recordings
from models_fixture import Miniature

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

EXAMPLE = Path(__file__).parent.parent / "examples" / "jfk.flac"
FORMATS = {"faster-whisper": "ct2", "whisper-cpp": "ggml", "openai-whisper": "pt", "transformers": "hf"}
GREEDY = ["--beam-size", "1", "--temperature", "0", "--no-condition-on-previous-text"]
"""The miniature never saw text before a window, so what came before must not be told to it."""


def segments(output: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((output / f"{name}.json").read_text(encoding="utf-8"))["segments"]
    return found


def text(output: Path, name: str) -> str:
    return "".join(s["text"] for s in segments(output, name)).strip()


def step(output: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / f"{name}.json").read_text(encoding="utf-8"))["provenance"]["steps"][0]
    return found


def test_without_a_model_real_speech_becomes_a_draft_and_says_so(kuulo: Kuulo, tmp_path: Path) -> None:
    done = kuulo("transcribe", EXAMPLE, "-o", "out", "--print", "--word-times")
    assert done.returncode == 0, done.stderr
    heard = done.stdout.lower()
    assert sum(word in heard for word in ("fellow", "country", "what", "can", "do", "for", "you")) >= 5
    assert "rough draft" in done.stderr and "kuulo models pull small" in done.stderr
    words = [w for s in segments(tmp_path / "out", "jfk") for w in s["words"]]
    assert all(a["end_ms"] <= b["start_ms"] + 50 for a, b in itertools.pairwise(words))
    assert step(tmp_path / "out", "jfk")["engine"] == "pocketsphinx"


def test_a_file_that_an_engine_is_told_of_is_found_from_where_one_stands(kuulo: Kuulo, tmp_path: Path) -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    (tmp_path / "my words.dict").write_text("country K AH N T R IY\nfellow F EH L OW\n")
    (tmp_path / "my.jsgf").write_text("#JSGF V1.0; grammar g; public <s> = (country | fellow)+;")
    given = ["--engine-option", "dict=my words.dict", "--engine-option", "jsgf=my.jsgf", "--engine-option"]
    model = Path(pocketsphinx.get_model_path()) / "en-us" / "en-us"
    done = kuulo("transcribe", EXAMPLE, "-e", "pocketsphinx", *given, f"hmm={model}", "-o", "out", "--print")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {"country", "fellow"}, "it knows no other words"
    assert "country" in done.stdout


@pytest.mark.parametrize("engine", FORMATS)
def test_every_whisper_engine_hears_every_clip_through_the_worker(
    engine: str, kuulo: Kuulo, miniature: Miniature, tmp_path: Path
) -> None:
    model = miniature.path(FORMATS[engine])
    clips = miniature.clips()
    done = kuulo(
        "transcribe", *(c.path for c in clips), "-e", engine, "-m", model, *GREEDY, "-o", "out", "-f", "all",
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for clip in clips:
        assert text(tmp_path / "out", clip.name) == clip.text, (engine, clip.name)
        if clip.text:
            master = json.loads((tmp_path / "out" / f"{clip.name}.json").read_text(encoding="utf-8"))
            assert master["language"] == clip.language and master["language_confidence"] > 0.5
        assert (tmp_path / "out" / f"{clip.name}.srt").exists()
    about = step(tmp_path / "out", "three_children")
    assert about["engine"] == engine and about["engine_version"] != "unknown" and len(about["model_sha256"]) == 64


def test_a_model_in_the_store_is_found_and_its_engine_is_the_default(
    kuulo: Kuulo, miniature: Miniature, tmp_path: Path
) -> None:
    assert kuulo("models", "add", miniature.path("ct2-int8"), "--name", "mini").returncode == 0
    clip = miniature.clip("three_children")
    done = kuulo("transcribe", clip.path, *GREEDY, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "faster-whisper, model mini" in done.stderr and "best model in the store" in done.stderr
    assert text(tmp_path / "out", clip.name) == clip.text
    assert "mini" in kuulo("models", "list").stdout
    explained = kuulo("explain", "--engine", "faster-whisper", "-m", "mini")
    assert explained.returncode == 0 and "WhisperModel(" in explained.stdout and "beam_size" in explained.stdout


def many(miniature: Miniature, folder: Path, copies: int) -> dict[str, str]:
    """Copies of the clips under names of their own, and what is said in each."""
    said = {}
    folder.mkdir()
    for clip in miniature.clips():
        for number in range(copies):
            name = f"{clip.name}-{number}"
            shutil.copy(clip.path, folder / f"{name}.flac")
            said[name] = clip.text
    return said


@pytest.mark.parametrize("options", [[], ["--word-times"], ["--workers", "1"], ["--speech-detection"]])
def test_many_recordings_at_once_have_the_words_of_one_by_one(
    options: list[str], kuulo: Kuulo, miniature: Miniature, tmp_path: Path
) -> None:
    said = many(miniature, tmp_path / "in", 4)
    if "--speech-detection" in options:  # its windows are others where silence is left out
        said = {name: words for name, words in said.items() if not name.startswith("two_windows")}
    done = kuulo("transcribe", "in", "-m", miniature.path("ct2"), *GREEDY, *options, "-o", "out", "-f", "txt")
    assert done.returncode == 0, done.stderr
    assert {name: text(tmp_path / "out", name) for name in said} == said


def test_packed_clips_get_their_own_words_back(kuulo: Kuulo, miniature: Miniature, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    clips = [miniature.clip(n) for n in ("three_children", "two_sentences", "silence")]
    for clip in clips:
        shutil.copy(clip.path, tmp_path / "in")
    done = kuulo("transcribe", "in", "-m", miniature.path("ct2"), *GREEDY, "-l", "en", "--pack", "-o", "out")
    assert done.returncode == 0, done.stderr
    # The miniature hears crowded windows badly, and each processor's rounding makes other words of them:
    # whatever it hears is with its own clip.
    heard = {name: set(text(tmp_path / "out", name).split()) for name in ("three_children", "two_sentences")}
    assert heard["three_children"] | heard["two_sentences"]
    assert not heard["three_children"] & {"mother", "mother.", "coffee."}
    assert not heard["two_sentences"] & {"Three", "people."}
    assert text(tmp_path / "out", "silence") == ""
    for clip in clips:
        ends = [s["end_ms"] for s in segments(tmp_path / "out", clip.name)]
        assert all(end <= len(clip.samples()) // 16 + 1 for end in ends)
        assert all("words" not in s for s in segments(tmp_path / "out", clip.name))


def test_a_range_of_a_recording_is_heard_at_its_own_times(kuulo: Kuulo, miniature: Miniature, tmp_path: Path) -> None:
    clip = miniature.clip("two_windows")
    start, _, expected = clip.segments[-1]
    begin = (start - 600) / 1000
    done = kuulo(
        "transcribe", clip.path, "-m", miniature.path("ct2"), *GREEDY, "--from", f"{begin}", "-o", "out", "-l", "en"
    )
    assert done.returncode == 0, done.stderr
    heard = segments(tmp_path / "out", clip.name)
    assert heard[-1]["text"].strip() == expected.strip()
    assert abs(heard[-1]["start_ms"] - start) <= 600  # the miniature's sentences may begin at its window's start


def test_paths_may_be_relative(kuulo: Kuulo, miniature: Miniature, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(miniature.path("ct2"))
    (tmp_path / "scratch").mkdir()
    clip = miniature.clip("three_children")
    shutil.copy(clip.path, tmp_path / "a.flac")
    done = kuulo("transcribe", "a.flac", "-m", "./model", *GREEDY, "--scratch", "scratch", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert text(tmp_path / "out", "a") == clip.text
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_broken_model_is_refused_before_an_engine_sees_it(kuulo: Kuulo, miniature: Miniature, tmp_path: Path) -> None:
    whole = miniature.path("ggml").read_bytes()
    broken = tmp_path / "broken.bin"
    broken.write_bytes(whole[: len(whole) // 2])
    done = kuulo("transcribe", EXAMPLE, "-e", "whisper-cpp", "-m", broken, "-o", "out")
    assert done.returncode == 3 and "broken.bin" in done.stderr and not (tmp_path / "out").exists()
    folder = tmp_path / "ct2"
    shutil.copytree(miniature.path("ct2"), folder)
    (folder / "tokenizer.json").unlink()
    done = kuulo("transcribe", EXAMPLE, "-m", folder, "-o", "out", timeout=15)
    assert done.returncode == 3 and "tokenizer.json" in done.stderr


def test_options_mean_the_same_on_every_engine_or_are_refused(
    kuulo: Kuulo, miniature: Miniature, tmp_path: Path
) -> None:
    clip = miniature.clip("three_children")
    for engine, format_ in FORMATS.items():
        common = ["transcribe", clip.path, "-e", engine, "-m", miniature.path(format_), *GREEDY, "-o", f"out {engine}"]
        done = kuulo(*common, "--hotwords", "children")
        if engine == "faster-whisper":
            assert done.returncode == 0, done.stderr
        else:
            assert done.returncode == 2 and "faster-whisper" in done.stderr, engine
        assert kuulo(*common, "--engine-option", "no_such_option=1").returncode == 3, engine


def test_raw_engine_options_reach_the_engine(kuulo: Kuulo, miniature: Miniature, tmp_path: Path) -> None:
    clip = miniature.clip("three_children")
    common = ["transcribe", clip.path, "-m", miniature.path("ct2"), *GREEDY, "-o", "out", "-l", "en"]
    done = kuulo(*common, "--engine-option", "max_new_tokens=3")
    assert done.returncode == 0, done.stderr
    assert len(text(tmp_path / "out", clip.name)) < len(clip.text)
    assert step(tmp_path / "out", clip.name)["options"]["engine_option"] == {"max_new_tokens": 3}


def test_batched_decoding_of_one_recording(kuulo: Kuulo, miniature: Miniature, tmp_path: Path) -> None:
    clip = miniature.clip("two_windows")
    done = kuulo(
        "transcribe", clip.path, "-m", miniature.path("ct2"), "--beam-size", "1", "--temperature", "0", "-l", "en",
        "--batch-size", "4", "-o", "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Three children and two people" in text(tmp_path / "out", clip.name)


@pytest.mark.parametrize(
    ("engine", "times", "options"),
    [
        ("faster-whisper", 3, ["--word-times"]),  # what was said before guides what follows: the state must be exact
        ("faster-whisper", 7, ["--no-condition-on-previous-text", "--speech-detection"]),
        ("whisper-cpp", 8, ["--no-condition-on-previous-text"]),
    ],
)
def test_a_run_killed_at_any_moment_ends_with_the_words_of_an_undisturbed_one(
    engine: str,
    times: int,
    options: list[str],
    kuulo: Kuulo,
    kuulo_command: list[str],
    kuulo_environment: dict[str, str],
    miniature: Miniature,
    tmp_path: Path,
) -> None:
    samples = np.concatenate([c.samples() for c in miniature.clips() if c.language == "en"] * times)
    recordings.wav(tmp_path / "long.wav", samples)
    common = [
        "transcribe", "long.wav", "-e", engine, "-m", str(miniature.path(FORMATS[engine])), "-l", "en",
        "--beam-size", "1", "--temperature", "0", *options,
    ]  # fmt: skip
    assert kuulo(*common, "-o", "undisturbed").returncode == 0
    kills = 0
    while not (tmp_path / "out" / "long.json").exists():
        process = subprocess.Popen(
            [*kuulo_command, *common, "-o", "out", "-q"], cwd=tmp_path, env=kuulo_environment, stdin=subprocess.DEVNULL
        )
        before = checkpoints(tmp_path / "out")
        while process.poll() is None and checkpoints(tmp_path / "out") < before + 1:
            time.sleep(0.01)
        process.kill()
        process.wait()
        kills += 1
        assert kills < 40
    assert kills > 1
    assert segments(tmp_path / "out", "long") == segments(tmp_path / "undisturbed", "long")


def checkpoints(output: Path) -> int:
    """How many checkpoints the journals have."""
    return sum(j.read_bytes().count(b'"type":"checkpoint"') for j in output.glob(".kuulo/partial/*.jsonl"))
