"""Engines of other packages: found by their entry points, held to the same contract, and no danger to the others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "engine-plugin"
VOICE = ROOT / "examples" / "jfk.flac"


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder that the example package is installed in, by pip, without a network."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("installed")
    shutil.copytree(EXAMPLE, source)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    command += ["--no-build-isolation", "--no-deps", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return str(target)


def path(*folders: object) -> dict[str, str]:
    return {"PYTHONPATH": ":".join([str(ROOT / "src"), *map(str, folders)])}


def test_the_example_passes_the_contract(plugged: str, kuulo_environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    done = subprocess.run(
        [*command, str(EXAMPLE)],
        cwd=kuulo_environment["HOME"],
        env={**kuulo_environment, **path(plugged), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_it_is_an_engine_like_others(plugged: str, kuulo: Kuulo) -> None:
    rows = json.loads(kuulo("engines", "--json", env=path(plugged)).stdout)["engines"]
    (row,) = [r for r in rows if r["name"] == "dtmf"]
    assert row["version"] == "1.0"
    assert [r for r in rows if "transcribe" in r["tasks"]][-1] is row, "ours come first"
    explained = kuulo("explain", "--engine", "dtmf", "--beam-size", "2", env=path(plugged))
    assert "kuulo_dtmf.keys(audio, shortest_ms=40)" in explained.stdout
    assert "--beam-size 2\n      refused: dtmf has nothing like it" in explained.stdout
    refused = kuulo("transcribe", VOICE, "-e", "dtmf", "-l", "fi", env=path(plugged))
    assert refused.returncode == 2 and "keys have no language" in refused.stderr
    without = kuulo("transcribe", VOICE, "-e", "dtmf")
    assert without.returncode == 2 and "there is no engine 'dtmf'" in without.stderr


GOOD = """
from kuulo.engines.base import EngineSpec
SPEC = EngineSpec(name="{name}", summary="Is.", url="https://example.org", licence="MIT", package="p", module="json",
                  install="p", tasks=("transcribe",), devices=("cpu",), options={{}})
def refuse(options): return {{}}
def native(options, raw): return "pass"
def load(task): raise RuntimeError
"""

BROKEN = {
    "raises": ("raise OSError('no such luck')", "importing plugin_raises fails: OSError: no such luck"),
    "leaves": ("import sys; sys.exit(0)", "importing plugin_leaves fails: SystemExit: 0"),
    "empty": ("", "plugin_empty has no SPEC"),
    "other": (GOOD.format(name="another"), "its SPEC calls it another"),
    "half": (GOOD.format(name="half").replace("def load", "def lead"), "plugin_half has no function load"),
    "pocketsphinx": (GOOD.format(name="pocketsphinx"), "Kuulo has an engine of this name"),
}


def install(folder: Path, name: str, source: str, package: str = "") -> None:
    """A package with one module and one entry point, as pip leaves it."""
    package = package or f"kuulo-{name}"
    about = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    module = f"{package.replace('-', '_')}_engine" if package != f"kuulo-{name}" else f"plugin_{name}"
    (about / "entry_points.txt").write_text(f"[kuulo.engines]\n{name} = {module}\n")
    (folder / f"{module}.py").write_text(source)


def test_a_broken_one_is_told_of_and_breaks_nothing(kuulo: Kuulo, tmp_path: Path) -> None:
    folder = tmp_path / "installed"
    folder.mkdir()
    for name, (source, _) in BROKEN.items():
        install(folder, name, source)
    install(folder, "twice", GOOD.format(name="twice"), "a-first")
    install(folder, "twice", GOOD.format(name="twice"), "b-second")
    listed = kuulo("engines", env=path(folder))
    assert listed.returncode == 0 and "faster-whisper" in listed.stdout and "twice" in listed.stdout
    for name, (_, why) in BROKEN.items():
        assert f"the engine {name} of the package kuulo-{name} cannot be used: {why}" in listed.stderr
    assert "the engine twice of the package b-second cannot be used: the package a-first has" in listed.stderr
    assert "Traceback" not in listed.stderr and len(listed.stderr.splitlines()) == len(BROKEN) + 1
    named = kuulo("transcribe", VOICE, "-e", "raises", env=path(folder))
    assert named.returncode == 3 and "no such luck" in named.stderr and "package kuulo-raises" in named.stderr
    ours = kuulo("transcribe", VOICE, "-e", "pocketsphinx", "--dry-run", env=path(folder))
    assert ours.returncode == 0 and "engine: pocketsphinx" in ours.stdout


def test_help_looks_for_none_of_them(kuulo: Kuulo, tmp_path: Path) -> None:
    folder, trace = tmp_path / "installed", tmp_path / "imported"
    folder.mkdir()
    install(folder, "tells", f"import pathlib; pathlib.Path({str(trace)!r}).touch()\n" + GOOD.format(name="tells"))
    for arguments in (("--help",), ("transcribe", "--help"), ("formats",)):
        assert kuulo(*arguments, env=path(folder)).returncode == 0
    assert not trace.exists()
    assert "tells" in kuulo("engines", env=path(folder)).stdout and trace.exists()


def test_a_worker_with_one_of_ours_imports_none_of_them(tmp_path: Path, kuulo_environment: dict[str, str]) -> None:
    folder, trace = tmp_path / "installed", tmp_path / "imported"
    folder.mkdir()
    install(folder, "tells", f"import pathlib; pathlib.Path({str(trace)!r}).touch()\n" + GOOD.format(name="tells"))
    code = "from kuulo import engines; engines.module('null'); print(engines._found.cache_info().currsize)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kuulo_environment, **path(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0" and not trace.exists()
