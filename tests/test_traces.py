"""What a run really does, seen from outside: no connection, no file outside the output folder and scratch."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from models_fixture import Miniature

MODELS = {"faster-whisper": "ct2", "whisper-cpp": "ggml", "openai-whisper": "pt", "transformers": "hf"}
CALLS = "connect,sendto,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"


@pytest.mark.parametrize("engine", [*MODELS, "pocketsphinx"])
def test_a_run_stays_on_the_machine_and_in_its_folders(
    engine: str,
    miniature: Miniature,
    kuulo_command: list[str],
    kuulo_environment: dict[str, str],
    needs_program: Callable[[str], str],
    tmp_path: Path,
) -> None:
    log = tmp_path / "trace"
    command = [*kuulo_command, "transcribe", str(miniature.clip("three_children").path), "-e", engine, "--word-times"]
    command += ["-o", str(tmp_path / "out"), "-f", "all", "--speech-detection"]
    if engine in MODELS:
        command += ["-m", str(miniature.path(MODELS[engine])), "--beam-size", "1"]
    trace = [needs_program("strace"), "-f", "-qq", "-o", str(log), "-e", f"trace={CALLS}", "--", *command]
    ours = ("HF_", "ORT_", "PYANNOTE_", "TRANSFORMERS_")  # what Kuulo has to set is not set for it
    environment = {k: v for k, v in kuulo_environment.items() if not k.startswith(ours)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(trace, env=environment, capture_output=True, text=True, check=False, timeout=300)
    if "ptrace" in done.stderr and not log.exists():
        pytest.skip(f"strace may not trace here: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    calls = log.read_text(errors="replace").splitlines()
    assert len(calls) > 100
    outside = [c for c in calls if re.search(r"(connect|sendto)\(.*AF_INET6?\b", c) and "htons(0)" not in c]
    assert outside == []
    allowed = (str(tmp_path / "out"), kuulo_environment["TMPDIR"], "/dev/", "/proc/")
    written = {
        path
        for call in calls
        if re.search(r"O_WRONLY|O_RDWR|O_CREAT|\b(creat|mkdir|mkdirat|rename\w*)\(", call) and " = -1 " not in call
        for path in re.findall(r'"(/[^"]*)"', call)
    }
    assert {p for p in written if not p.startswith(allowed)} == set()
    assert list(Path(kuulo_environment["TMPDIR"]).iterdir()) == []
    assert [p for p in Path(kuulo_environment["HOME"]).rglob("*") if p.is_file()] == []
