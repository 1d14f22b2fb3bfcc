"""The command line that `kuulo explain` shows for an engine's own program does what Kuulo does: the real programs, run
with it, write the same words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recordings
from kuulo import engines
from kuulo.engines.base import AUDIO, CommandLine
from models_fixture import KnownClip, Miniature

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def explained(kuulo: Kuulo, engine: str, model: Path, *options: str) -> CommandLine:
    """What `kuulo explain --json` says of the program."""
    done = kuulo("explain", "--engine", engine, "--model", model, "--device", "cpu", "--json", *options)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["command"]
    return CommandLine(tuple(said["arguments"]), tuple(said["notes"]))


def run(line: CommandLine, audio: Path, *more: str, environment: Mapping[str, str]) -> str:
    """The program's standard output."""
    program = shutil.which(line.arguments[0], path=f"{Path(sys.executable).parent}:{environment['PATH']}")
    if program is None:
        pytest.skip(f"{line.arguments[0]} is not installed")
    arguments = [str(audio) if word == AUDIO else word for word in line.arguments[1:]]
    command = [program, *arguments, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**environment}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wav(clip: KnownClip, path: Path) -> Path:
    return recordings.wav(path, clip.samples())


@pytest.mark.parametrize(("engine", "format_"), [("faster-whisper", "ct2"), ("openai-whisper", "pt")])
@pytest.mark.parametrize("options", [("-l", "fi", "--beam-size", "1"), ("--word-times", "--temperature", "0")], ids=str)
def test_the_program_writes_the_same_words(
    engine: str,
    format_: str,
    options: tuple[str, ...],
    kuulo: Kuulo,
    kuulo_environment: dict[str, str],
    miniature: Miniature,
    tmp_path: Path,
    needs_program: Any,
) -> None:
    if engine == "openai-whisper":
        needs_program("ffmpeg")
    clip = miniature.clip("finnish")
    line = explained(kuulo, engine, miniature.path(format_), *options)
    assert not line.notes
    files = ("--output_format", "txt", "--output_dir", str(tmp_path / "out"))
    run(line, clip.path, *files, environment=kuulo_environment)
    ours = kuulo("transcribe", clip.path, "-e", engine, "-m", miniature.path(format_), *options, "-f", "txt", "-o", "o")
    assert ours.returncode == 0, ours.stderr
    theirs = (tmp_path / "out" / "finnish.txt").read_text(encoding="utf-8")
    assert theirs == (tmp_path / "o" / "finnish.txt").read_text(encoding="utf-8")
    assert theirs.split() == clip.text.split()


def test_sherpa_onnx_offline_says_the_same_words(
    kuulo: Kuulo, kuulo_environment: dict[str, str], miniature: Miniature, tmp_path: Path
) -> None:
    clip = miniature.clip("three_children")
    line = explained(kuulo, "sherpa-onnx", miniature.path("onnx"), "-l", "en")
    said = run(line, wav(clip, tmp_path / "clip.wav"), environment=kuulo_environment)
    (found,) = [json.loads(text) for text in said.splitlines() if text.startswith("{")]
    assert found["text"].strip() == clip.text


def test_whisper_cli_says_the_same_words(
    kuulo: Kuulo, kuulo_environment: dict[str, str], miniature: Miniature, tmp_path: Path
) -> None:
    clip = miniature.clip("three_children")
    line = explained(kuulo, "whisper-cpp", miniature.path("ggml"), "-l", "en")
    said = run(line, wav(clip, tmp_path / "clip.wav"), "-nt", environment=kuulo_environment)
    assert said.strip() == clip.text


SETS: tuple[dict[str, Any], ...] = (
    {},
    {"language": "fi", "task": "translate", "beam_size": 1, "temperature": (0.0,)},
    {"temperature": FALLBACK, "initial_prompt": "it's; $(a) prompt", "hotwords": "Kuulo", "word_times": True},
    {"condition_on_previous_text": False, "compute_type": "int8", "device": "cuda:1", "threads": 3},
    {"temperature": (0.4, 0.7, 1.0), "device": "cpu"},
)


def understood(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What whisper-ctranslate2's own parser makes of them."""
    commandline = pytest.importorskip("whisper_ctranslate2.commandline")
    monkeypatch.setattr(sys, "argv", list(arguments))
    found: dict[str, Any] = commandline.CommandLine.read_command_line()
    return found


@pytest.mark.parametrize("options", SETS, ids=str)
def test_whisper_ctranslate2_understands_what_was_asked(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = engines.module("faster-whisper")
    raw = {"patience": 2.0, "log_prob_threshold": -0.5}
    line = module.command({**options, "model_path": "/models/it's here"}, raw)
    asked, native = understood(line.arguments, monkeypatch), module._arguments(options, raw)
    for name in ("language", "task", "beam_size", "initial_prompt", "hotwords", "word_timestamps", "patience"):
        assert asked[name] == native[name], name
    assert asked["condition_on_previous_text"] == native["condition_on_previous_text"]
    assert asked["logprob_threshold"] == -0.5
    step = asked["temperature_increment_on_fallback"]
    ladder = np.arange(asked["temperature"], 1.0 + 1e-6, step) if step else [asked["temperature"]]
    assert np.allclose(ladder, native["temperature"])
    device, _, index = options.get("device", "auto").partition(":")
    assert (asked["device"], asked["device_index"]) == (device, int(index or 0))
    assert (asked["compute_type"], asked["threads"]) == (options.get("compute_type", "auto"), options.get("threads", 0))
    assert (asked["model_directory"], asked["local_files_only"]) == ("/models/it's here", True)
    assert asked["audio"] == [AUDIO] and not line.notes


def test_what_a_program_cannot_do_is_said() -> None:
    def notes(name: str, options: dict[str, Any], raw: dict[str, Any]) -> str:
        line: CommandLine = engines.module(name).command({"model_path": "M", **options}, raw)
        return "; ".join(line.notes)

    assert "equal steps" in notes("faster-whisper", {"temperature": (0.0, 0.5)}, {})
    assert "flash_attention" in notes("faster-whisper", {}, {"flash_attention": True})
    assert "batches" in notes("faster-whisper", {"batch_size": 4}, {})
    assert "sample_len" in notes("openai-whisper", {}, {"sample_len": 3})
    assert "30 s" in notes("sherpa-onnx", {}, {})
    assert "heads" in notes("whisper-cpp", {"word_times": True, "model": "my-own"}, {})


@pytest.mark.parametrize("engine", [s.name for s in engines.specs()])
def test_explain_says_what_differs_and_who_can(engine: str, kuulo: Kuulo) -> None:
    said = json.loads(kuulo("explain", "--engine", engine, "--hotwords", "Kuulo", "--json").stdout)
    spec = engines.spec(engine)
    assert said["differs"] == list(spec.differs) and said["differs"]
    (row,) = [row for row in said["options"] if row["option"] == "--hotwords"]
    if "hotwords" in spec.options:
        assert row["others"] == [] and row["native"]
    else:
        assert row["refused"] and "faster-whisper" in row["others"]
    assert bool(said["command"]) == hasattr(engines.module(engine), "command")
