"""The command line's own manners: quick to start, truthful exit codes, quiet when nobody listens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from kuulo import __version__, engines
from kuulo.cli import COMMANDS

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

HEAVY = ("av", "ctranslate2", "docx", "faster_whisper", "huggingface_hub", "numpy", "platformdirs", "rich", "torch")


def test_starting_imports_nothing_heavy() -> None:
    code = f"import kuulo.cli, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_reading_every_engines_spec_imports_no_engine() -> None:
    code = f"import sys; from kuulo import engines; engines.specs(); print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_and_version(kuulo: Kuulo) -> None:
    helped = kuulo("--help")
    assert helped.returncode == 0 and all(name in helped.stdout for name in COMMANDS)
    assert kuulo("--version").stdout == f"kuulo {__version__}\n"
    for name in COMMANDS:
        assert kuulo(name, "--help").returncode == 0, name


@pytest.mark.parametrize("arguments", [["nonsense"], ["transcribe", "--nonsense"], []])
def test_wrong_usage_is_2(kuulo: Kuulo, arguments: list[str]) -> None:
    done = kuulo(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_engines_are_listed_for_people_and_for_machines(kuulo: Kuulo) -> None:
    listed = kuulo("engines")
    rows = {row["name"]: row for row in json.loads(kuulo("engines", "--json").stdout)["engines"]}
    every = [*engines.specs(), *engines.specs("diarize"), *engines.specs("chat")]
    assert list(rows) == [s.name for s in every]
    for spec in every:
        assert spec.name in listed.stdout
        assert (rows[spec.name]["version"] is not None) == engines.installed(spec)


def test_explain_shows_names_refusals_and_the_native_call(kuulo: Kuulo) -> None:
    plain = kuulo("explain", "--engine", "faster-whisper", "--beam-size", "3", "--hotwords", "Kuulo")
    assert plain.returncode == 0, plain.stderr
    assert "--word-times off\n      word_timestamps" in plain.stdout
    assert "beam_size=3" in plain.stdout and "hotwords='Kuulo'" in plain.stdout and "models pull" in plain.stdout
    refused = kuulo("explain", "--engine", "pocketsphinx", "--beam-size", "3")
    assert refused.returncode == 2 and "refused: pocketsphinx has nothing like it" in refused.stdout
    answer = json.loads(kuulo("explain", "--engine", "whisper-cpp", "--json").stdout)
    assert answer["engine"] == "whisper-cpp" and "Model(" in answer["native"]


def test_nobody_listening_is_no_error(kuulo_command: list[str], kuulo_environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*kuulo_command, "transcribe", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kuulo_environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
