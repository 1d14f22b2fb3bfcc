"""A real image of llama.cpp: built without a network by whoever runs the tests, as that of test_image_runs.py.

Its packages, which take minutes to build, are those that `make test` has built ($KUULO_TEST_LLAMA_BUNDLE, else
`sys.prefix/llama-bundle`)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Kuulo
from kuulo.llm import tiny
from serving import serving, until
from test_image_runs import BUNDLE, ROOTFS, call, skip_without
from test_serve import below

LLAMA = Path(os.environ.get("KUULO_TEST_LLAMA_BUNDLE") or Path(sys.prefix, "llama-bundle"))
ENGINE = "llama-cpp"
ASKED = ["-e", ENGINE, "-m", str(tiny.FILES["gguf"]), "--context", "512", "--max-tokens", "12"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\nSAY {{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


@pytest.fixture(scope="module", params=["charliecloud", "apptainer"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with a site's file, in whose folder of images the engine is, which is installed nowhere else."""
    starter: str = request.param
    skip_without(starter)
    if not (LLAMA / ENGINE / "bundle.json").is_file():
        pytest.skip(f"needs what `make test` builds: {LLAMA}")
    top = tmp_path_factory.mktemp(starter)
    bundle = top / "bundle"
    shutil.copytree(BUNDLE / "kuulo", bundle / "kuulo")
    shutil.copytree(LLAMA / ENGINE, bundle / ENGINE)
    (bundle / "wheels").mkdir()
    for wheel in (*(BUNDLE / "wheels").iterdir(), *(LLAMA / "wheels").iterdir()):
        if not (bundle / "wheels" / wheel.name).exists():
            (bundle / "wheels" / wheel.name).symlink_to(wheel.resolve())
    (top / "tmp").mkdir()
    (top / "site.toml").write_text(f'images = "{top}/images"\ncontainer = "{starter}"\n')
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KUULO_", "XDG_"))}
    variables = {"KUULO_SITE": str(top / "site.toml"), "KUULO_ENVIRONMENTS": str(top / "none")}
    environ = {**kept, **variables, "HOME": str(top), "TMPDIR": str(top / "tmp"), "PYTHONPATH": str(ROOT / "src")}
    done = call(["image", "build", ENGINE, "--from", bundle, "--base", ROOTFS], environ, top)
    assert done.returncode == 0, done.stderr
    assert "it answered 29 of 29 words of 3 answers" in done.stdout
    return {**variables, "PATH": os.environ["PATH"]}


def test_it_answers_as_outside_and_sees_a_template_of_the_folder(
    made: dict[str, str], kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a b.jinja").write_text(TEMPLATE)
    words = ["ask", "Where is the harbour?", *ASKED, "--no-stream", "--json"]
    own = ["--engine-option", "chat_template_file=a b.jinja"]
    answers = {}
    for where, variables in (
        ("inside", made),
        ("outside", {"KUULO_ENVIRONMENTS": str(Path(sys.prefix, "environments"))}),
    ):
        for how, given in (("plain", []), ("own", own)):
            done = kuulo(*words, *given, env=variables)
            assert done.returncode == 0, done.stderr
            answers[where, how] = json.loads(done.stdout)["text"]
    assert answers["inside", "plain"] == answers["outside", "plain"] != ""
    assert answers["inside", "own"] == answers["outside", "own"] != answers["inside", "plain"]
    assert list(Path(kuulo_environment["TMPDIR"]).iterdir()) == [], "scratch is gone"


def test_tasks_on_transcripts_several_at_a_time(made: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"a b {number}.txt").write_text(f"[00:00:01] Anna: This is recording {number}.\n")
    (tmp_path / "mine.toml").write_text('prompt = "$input"\n')
    found = [f"a b {number}.txt" for number in range(3)]
    done = kuulo("llm", "task", "summary", *found, "-t", "mine.toml", *ASKED, "--concurrency", "2", env=made)
    assert done.returncode == 0, done.stderr
    for number in range(3):
        record = json.loads((tmp_path / f"a b {number}.summary.json").read_text())
        assert record["provenance"]["environment"] and record["provenance"]["engine"] == ENGINE


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_its_server_ends_with_kuulo(
    made: dict[str, str],
    kuulo_command: list[str],
    kuulo_environment: dict[str, str],
    tmp_path: Path,
    how: signal.Signals,
) -> None:
    environ = {**kuulo_environment, **made}
    with serving(kuulo_command, environ, tmp_path, str(tiny.FILES["gguf"]), "-e", ENGINE) as one:
        started = below(one.process.pid)
        names = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] for pid in started]
        assert any(name.endswith(b"/llama-server") for name in names), names
        one.end(how)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    mounts = Path("/proc/self/mounts").read_text()
    assert str(tmp_path) not in mounts
