"""`-m miniature`: the built-in model, written into a store when it is named, for every engine, and never a default."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kuulo import engines
from kuulo import miniature as package
from kuulo.errors import ModelMissing, UsageError
from kuulo.miniature import weights
from kuulo.miniature.writers import WRITERS
from kuulo.models import adding, built_in, check, files, manifest, store
from kuulo.models.store import Store
from kuulo.models.stores import Stores, stores_from
from models_fixture import Miniature

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

EXAMPLE = Path(__file__).parent.parent / "examples" / "synthetic.flac"
WHISPERS = {spec.name: spec.model_formats[0] for spec in engines.specs() if spec.model_formats}
READ_ONLY = Path("/sys/kuulo-models")
"""A place that nobody may write to, not even root."""


def transcript(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("engine", WHISPERS)
def test_every_whisper_engine_transcribes_the_example_from_an_empty_store(
    engine: str, kuulo: Kuulo, kuulo_environment: dict[str, str], miniature: Miniature, tmp_path: Path
) -> None:
    if not engines.installed(engines.spec(engine)):
        pytest.skip(f"{engine} is not installed")
    done = kuulo("transcribe", EXAMPLE, "-e", engine, "-m", "miniature", "-o", "out", "--print")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == miniature.clip("two_sentences").text.split()
    assert done.stderr.count(package.NOTE) == 1
    (folder,) = Path(kuulo_environment["KUULO_STORE"]).glob("*/*")
    ref = manifest.read(folder, "here")
    assert (ref.format, ref.name, ref.source, ref.licence) == (WHISPERS[engine], "miniature", "built in", "MIT")
    master = transcript(tmp_path / "out" / "synthetic.json")
    assert master["language"] == "en" and master["provenance"]["steps"][0]["model_sha256"] == ref.digest
    made = (folder / manifest.MANIFEST).stat().st_mtime_ns
    again = kuulo("transcribe", EXAMPLE, "-e", engine, "-m", "miniature", "-o", "out")
    assert again.returncode == 0 and "skipped" in again.stderr
    assert (folder / manifest.MANIFEST).stat().st_mtime_ns == made


def test_it_is_listed_always_and_taken_only_by_who_names_it(kuulo: Kuulo) -> None:
    listed = kuulo("models", "list")
    assert package.NOTE in listed.stdout
    (row,) = json.loads(kuulo("models", "list", "--json").stdout)["built_in"]
    assert row == {"name": "miniature", "bytes": package.size(), "note": package.NOTE}
    assert kuulo("explain", "-m", "miniature").returncode == 0  # now it is in the store
    assert [m["name"] for m in json.loads(kuulo("models", "list", "--json").stdout)["models"]] == ["miniature"]
    plan = json.loads(kuulo("transcribe", EXAMPLE, "--dry-run", "--json").stdout)
    assert plan["model"] is None
    refused = kuulo("transcribe", EXAMPLE, "--dry-run", "-e", "faster-whisper")
    assert refused.returncode == 3 and "models pull small" in refused.stderr
    named = json.loads(kuulo("transcribe", EXAMPLE, "--dry-run", "--json", "-m", "miniature").stdout)
    assert named["model"]["built_in"] and package.NOTE in named["notes"][0]
    translated = kuulo("transcribe", EXAMPLE, "-m", "miniature", "--task", "translate", "--dry-run")
    if weights.trained().translates:
        assert translated.returncode == 0
    else:
        assert translated.returncode == 2 and "cannot translate" in translated.stderr


def test_pull_verify_and_remove(kuulo: Kuulo, kuulo_environment: dict[str, str]) -> None:
    missing = kuulo("models", "verify", "miniature")
    assert missing.returncode == 3 and "kuulo models pull miniature" in missing.stderr
    pulled = kuulo("models", "pull", "miniature", "--format", "ggml")
    assert pulled.returncode == 0 and "without a network" in pulled.stderr and "miniature (ggml" in pulled.stdout
    assert kuulo("models", "pull", "miniature", "--engine", "whisper-cpp").returncode == 0
    assert kuulo("models", "verify", "miniature").stdout == "miniature (ggml): ok\n"
    file = Path(kuulo("models", "path", "miniature", "--format", "ggml").stdout.strip())
    file.write_bytes(file.read_bytes()[:-8])
    assert kuulo("models", "verify", "miniature").returncode == 3
    damaged = kuulo("transcribe", EXAMPLE, "-m", "miniature", "-e", "whisper-cpp")
    assert damaged.returncode == 3 and "kuulo models pull miniature --format ggml --replace" in damaged.stderr
    assert kuulo("models", "pull", "miniature", "--format", "ggml", "--replace").returncode == 0
    assert kuulo("models", "verify").returncode == 0
    assert kuulo("models", "remove", "miniature", "--yes").returncode == 0
    assert not file.exists() and kuulo("models", "verify").stdout == ""
    for wrong in (["--revision", "x"], ["--name", "other"]):
        assert kuulo("models", "pull", "miniature", *wrong).returncode == 2
    assert list((Path(kuulo_environment["KUULO_STORE"]) / store.STAGING).iterdir()) == []


def test_where_the_store_cannot_be_written_the_users_cache_serves(
    kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    try:
        READ_ONLY.mkdir()
        pytest.skip("this machine lets folders be made in /sys")
    except PermissionError:
        pass
    except OSError as error:
        if error.errno not in built_in.NOT_OURS:
            pytest.skip(f"/sys is not there as it is elsewhere: {error}")
    for _ in range(2):
        shown = kuulo("models", "path", "miniature", env={"KUULO_STORE": str(READ_ONLY)})
        assert shown.returncode == 0, shown.stderr
        cache = Path(kuulo_environment["XDG_CACHE_HOME"]) / "kuulo" / "models"
        assert Path(shown.stdout.strip()) == cache / "ct2" / "miniature"
    pulled = kuulo("models", "pull", "miniature", env={"KUULO_STORE": str(READ_ONLY)})
    assert pulled.returncode == 3 and str(READ_ONLY) in pulled.stderr  # who pulls, means that store


def test_a_sites_store_has_it_for_all(tmp_path: Path) -> None:
    site = built_in.write(Store(tmp_path / "site"), "ggml")
    stores = stores_from({}, [tmp_path / "site"], tmp_path / "mine", tmp_path / "cache")
    assert stores.resolve("miniature", ("ggml",)) == dataclasses.replace(site, origin=str(tmp_path / "site"))
    assert not (tmp_path / "mine").exists() and not (tmp_path / "cache").exists()
    assert stores.resolve("miniature", ("pt", "ggml")).format == "ggml"
    assert stores.resolve("miniature", ("pt",)).origin == str(tmp_path / "mine" / "models")
    with pytest.raises(ModelMissing, match="cannot be written as nonsense"):
        stores.resolve("miniature", ("nonsense",))


def older(folder: Path) -> None:
    """Makes a built-in model one of another Kuulo."""
    path = folder / manifest.MANIFEST
    path.write_text(path.read_text().replace(package.digest(), "0" * 64))


def test_another_kuulos_is_replaced_and_anothers_model_of_the_name_is_not(tmp_path: Path) -> None:
    mine = Store(tmp_path / "mine")
    stores = Stores((mine,))
    first = stores.resolve("miniature", ("ggml",))
    older(first.folder)
    second = stores.resolve("miniature", ("ggml",))
    assert second.revision == package.digest() and second.digest == first.digest
    assert {s.state for s in files.verify(second)} == {"ok"}
    path = second.folder / manifest.MANIFEST
    path.write_text(path.read_text().replace('"built in"', '"/home/somebody/own.bin"'))
    with pytest.raises(UsageError, match="already has miniature"):
        stores.resolve("miniature", ("ggml",))
    with pytest.raises(UsageError, match="built-in model"):
        adding.add(mine, second.path, name="miniature")
    assert list((mine.folder / store.STAGING).iterdir()) == []


@pytest.mark.parametrize("stale", [False, True])
def test_several_who_name_it_at_once_all_get_it_whole(
    stale: bool, kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    mine = Store(Path(kuulo_environment["KUULO_STORE"]))
    if stale:
        older(built_in.write(mine, "ct2").folder)
    command = [*kuulo_command, "models", "path", "miniature", "--format", "ct2"]
    options = {"env": kuulo_environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    together = [subprocess.Popen(command, **options) for _ in range(3)]  # type: ignore[call-overload]
    said = [one.communicate(timeout=120) for one in together]
    assert [one.returncode for one in together] == [0, 0, 0], said
    assert {out.strip() for out, _ in said} == {str(mine.folder / "ct2" / "miniature")}
    (ref,) = Stores((mine,)).list()
    assert ref.revision == package.digest() and {s.state for s in files.verify(ref)} == {"ok"}
    assert list((mine.folder / store.STAGING).iterdir()) == []


def test_the_digest_is_the_same_wherever_it_is_written(tmp_path: Path) -> None:
    for format_ in sorted(set(check.FORMATS) & set(WRITERS)):
        one, other = (built_in.write(Store(tmp_path / name), format_) for name in ("a", "b"))
        assert one.digest == other.digest
        shutil.rmtree(tmp_path / "a")
        shutil.rmtree(tmp_path / "b")
