"""The language model that comes with Kuulo, and engines that are tried with it (`kuulo engines check`, `kuulo
selftest`). Servers are stand-ins here; llama.cpp itself is tried in test_llm_core.py."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

import llm_standin
from conftest import ROOT, Kuulo
from kuulo.environments import health
from kuulo.environments.installed import Environment, Environments, put_in_use
from kuulo.errors import CannotRun
from kuulo.llm import tiny
from kuulo.models import check

GARBAGE = dict.fromkeys(tiny.ANSWERS, "@@@ Ġof and \x1b[2J")


def program(folder: Path, says: dict[str, str]) -> Path:
    """A folder with a llama-server that answers so."""
    folder.mkdir(parents=True)
    answers = folder / "answers.json"
    answers.write_text(json.dumps({re.escape(question): text for question, text in says.items()}))
    llm_standin.program(folder, "llama-server", answers=str(answers))
    return folder


def one_that(folder: Path, does: str) -> Path:
    """A folder with a llama-server that is a line of sh."""
    folder.mkdir(parents=True)
    path = folder / "llama-server"
    path.write_text(f"#!/bin/sh\necho loading the model\n{does}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


def environment(folder: Path) -> Environment:
    """An environment with such a program in its folder `bin`."""
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    return Environment("llama-cpp", folder, "cpu", "3.11", "0", {"llama-cpp-python": "0.3"})


def test_it_is_a_model_like_others_and_small() -> None:
    found = tiny.model(("gguf",))
    assert found is not None and found.bytes < 300_000
    assert check.problems("gguf", found.path) == []
    assert tiny.model(("hf-text",)) is None
    taught = json.loads((ROOT / "tests" / "llm" / "tiny.json").read_text(encoding="utf-8"))
    assert tiny.ANSWERS.items() <= taught.items()


def test_a_word_may_be_wrong_and_no_more() -> None:
    story = "Tell me a story."
    one_wrong = {**tiny.ANSWERS, story: tiny.ANSWERS[story].replace("seven", "eight")}
    assert tiny.Said(one_wrong).enough and tiny.Said(one_wrong).right == tiny.Said(one_wrong).expected - 1
    cut = {**tiny.ANSWERS, story: "Anna spoke to Bo."}
    assert not tiny.Said(cut).enough
    assert story in tiny.Said(cut).worst and "said: 'Anna spoke to Bo.'" in tiny.Said(cut).worst


def test_an_environment_that_answers_is_good(tmp_path: Path) -> None:
    made = environment(program(tmp_path / "e" / "bin", dict(tiny.ANSWERS)).parent)
    assert health.check(made) == "it answered 29 of 29 words of 3 answers with the model tiny, on the CPU"


def test_one_that_computes_nonsense_is_not(tmp_path: Path) -> None:
    made = environment(program(tmp_path / "e" / "bin", GARBAGE).parent)
    with pytest.raises(CannotRun, match="it answered 0 of 29 words of 3 answers right") as refused:
        health.check(made)
    assert "\x1b" not in str(refused.value.looked_at) and "said: '@@@" in str(refused.value.looked_at)


def test_one_for_another_processor_is_not(tmp_path: Path) -> None:
    made = environment(one_that(tmp_path / "e" / "bin", "kill -ILL $$").parent)
    with pytest.raises(CannotRun, match="SIGILL, an instruction that this processor does not have") as refused:
        health.check(made)
    assert "loading the model" in str(refused.value.looked_at)


def told(done: Any) -> dict[str, Any]:
    (one,) = json.loads(done.stdout)["nodes"][0]["outcomes"]
    return dict(one)


def test_selftest_asks_it(kuulo: Kuulo, tmp_path: Path, kuulo_environment: dict[str, str]) -> None:
    before = sorted(Path(kuulo_environment["TMPDIR"]).iterdir())
    environ = {"PATH": f"{program(tmp_path / 'p', dict(tiny.ANSWERS))}:{os.environ['PATH']}"}
    done = kuulo("selftest", "-e", "llama-cpp", "--json", env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    one = told(done)
    assert (one["engine"], one["model"], one["state"], one["device"]) == ("llama-cpp", "tiny", "passed", "cpu")
    assert [(s["name"], s["ok"]) for s in one["stages"]] == [("engine", True), ("answers", True)]
    assert one["stages"][1]["found"] == "29 of 29 words of 3 answers"
    assert sorted(Path(kuulo_environment["TMPDIR"]).iterdir()) == before


def test_selftest_finds_a_build_that_cannot_compute(kuulo: Kuulo, tmp_path: Path) -> None:
    wrong = kuulo(
        "selftest", "-e", "llama-cpp", env={"PATH": f"{program(tmp_path / 'p', GARBAGE)}:{os.environ['PATH']}"}
    )
    assert wrong.returncode == 3 and "answers: 0 of 29 words" in wrong.stdout
    assert "is it built for this processor?" in wrong.stdout and "\x1b[2J" not in wrong.stdout
    dies = one_that(tmp_path / "q", "kill -ILL $$")
    killed = kuulo("selftest", "-e", "llama-cpp", "--json", env={"PATH": f"{dies}:{os.environ['PATH']}"})
    assert killed.returncode == 3
    (stage,) = told(killed)["stages"]
    assert stage["name"] == "engine" and "SIGILL" in stage["found"] and "loading the model" in stage["looked_at"]


def test_selftest_of_a_gpu_is_not_passed_by_the_cpu(kuulo: Kuulo, tmp_path: Path, nvml_library: Path) -> None:
    """A GPU is busy meanwhile, and the server was told to use none."""
    environ = {
        "PATH": f"{program(tmp_path / 'p', dict(tiny.ANSWERS))}:{os.environ['PATH']}",
        "KUULO_NVML": str(nvml_library),
        "FAKE_NVML": "ours",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = kuulo("selftest", "-e", "llama-cpp", "--gpu", "--json", env=environ)
    assert done.returncode == 3, done.stdout
    assert [(s["name"], s["ok"]) for s in told(done)["stages"]] == [("engine", True), ("answers", True), ("GPU", False)]
    assert "its device was the CPU" in told(done)["stages"][2]["found"]


def test_selftest_with_another_model(kuulo: Kuulo, tmp_path: Path) -> None:
    """It has to say a word; whoever does not have the model is left out, unless it was named."""
    environ = {"PATH": f"{program(tmp_path / 'p', {})}:{os.environ['PATH']}"}
    other = tmp_path / "other.gguf"
    other.write_bytes(tiny.FILES["gguf"].read_bytes())
    done = kuulo("selftest", "-e", "llama-cpp", "-m", other, "--json", env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none are known that it should say" in told(done)["stages"][1]["found"]
    none = kuulo("selftest", "-e", "llama-cpp", "-m", "large-v3", "--json", env=environ)
    assert none.returncode == 3 and "no store has the model large-v3" in told(none)["stages"][0]["found"]
    both = kuulo("selftest", "-e", "pocketsphinx", "-m", "large-v3", env=environ)
    assert "llama-cpp" not in both.stdout


def test_selftest_with_an_engine_that_the_small_model_is_not_for(kuulo: Kuulo, tmp_path: Path) -> None:
    llm_standin.program(tmp_path / "p", "vllm")
    done = kuulo("selftest", "-e", "vllm", "--json", env={"PATH": f"{tmp_path / 'p'}:{os.environ['PATH']}"})
    assert told(done)["state"] == "left out" and "name one with --model" in told(done)["stages"][0]["found"]


def test_selftest_tries_the_environment_that_is_in_use(kuulo: Kuulo, tmp_path: Path) -> None:
    home = tmp_path / "environments"
    made = environment(program(home / "llama-cpp" / "build" / "bin", dict(tiny.ANSWERS)).parent)
    put_in_use(made)
    assert Environments((home,)).find("llama-cpp") is not None
    done = kuulo("selftest", "-e", "llama-cpp", "--json", env={"KUULO_ENVIRONMENTS": str(home)})
    assert (told(done)["state"], told(done)["where"]) == ("passed", str(made.folder)), done.stdout
    checked = kuulo("engines", "check", "llama-cpp", env={"KUULO_ENVIRONMENTS": str(home)})
    assert checked.stdout.startswith("llama-cpp 0.3 works: it answered 29 of 29 words"), checked.stderr
