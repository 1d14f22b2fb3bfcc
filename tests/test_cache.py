"""What other tools left in a home: what is found, how large it is, and what a purge removes and leaves."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from conftest import ROOT, WEIRD_NAMES
from kuulo import caches, leftovers, purge
from kuulo.errors import UsageError
from kuulo.models import adding
from kuulo.models.store import Store
from kuulo.runtimes import here

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

LEFT = {
    ".cache/huggingface/hub/models--a--b/blobs/0123": 5_000_000,
    ".cache/huggingface/hub/version.txt": 1,
    ".cache/huggingface/token": 37,
    ".cache/huggingface/stored_tokens": 60,
    ".cache/whisper/medium.pt": 3_000_000,
    ".cache/torch/hub/checkpoints/wav2vec2.pth": 2_000_000,
    ".cache/torch/NeMo/NeMo_2.1/titanet/x.nemo": 1_000_000,
    ".cache/torch/pyannote/models--p--q/blobs/1": 900_000,
    ".cache/torch/kernels/x.so": 10,
    ".cache/pip/http-v2/a/b": 10_000,
    ".triton/cache/ABC/kernel.cubin": 20_000,
    ".nv/ComputeCache/index": 30_000,
    "nltk_data/tokenizers/punkt_tab/x": 100,
    ".ollama/models/blobs/sha256-1": 700_000,
    ".ollama/id_ed25519": 400,
    ".ollama/history": 50,
    ".config/io.datasette.llm/keys.json": 40,
    ".config/io.datasette.llm/logs.db": 4_000,
    ".apptainer/cache/blob/x": 5_000,
    ".apptainer/docker-config.json": 30,
    ".local/share/pywhispercpp/models/ggml-base.bin": 10_000,
}
"""Files of other tools in a home, and their sizes."""

NAMES = {
    "huggingface-hub", "huggingface-token", "huggingface-tokens", "whisper", "torch-hub", "nemo-cache",
    "pyannote.audio", "torch-kernels", "pip", "triton", "cuda", "nltk", "ollama", "ollama-key", "ollama-history", "llm",
    "apptainer", "apptainer-logins", "whisper.cpp",
}  # fmt: skip


@pytest.fixture
def home(kuulo_environment: dict[str, str]) -> Path:
    folder = Path(kuulo_environment["HOME"])
    for name, size in LEFT.items():
        write(folder / name, size)
    return folder


@pytest.fixture
def environ(kuulo_environment: dict[str, str], home: Path) -> dict[str, str]:
    """The user's variables, and none of the tests' own."""
    own = {name: value for name, value in kuulo_environment.items() if name in caches.TRUSTED}
    return {**own, "USER": "anna"}


def write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def by_name(environ: dict[str, str]) -> dict[str, leftovers.Leftover]:
    return {one.name: one for one in leftovers.find(environ)}


# ---------------------------------------------------------------------- the table


def test_the_table_is_whole_and_says_one_thing_of_each_variable() -> None:
    variables = [name for cache in caches.CACHES for name in (cache.variable, *cache.older) if name]
    assert len(variables) == len({*variables})
    names = [cache.name for cache in caches.CACHES if cache.name]
    assert len(names) == len({*names})
    folders = [folder for name, folder in caches.PRIVATE.items()]
    assert len(folders) == len({*folders})
    for cache in caches.CACHES:
        assert cache.kind in caches.KINDS and cache.holds and cache.library, cache
        assert cache.default == "" or cache.default[0] in "~{/", cache
        if cache.name:
            assert caches.places(cache, {"HOME": "/home/anna", cache.variable or "_": "/x"}), cache
    assert not {*caches.OFFLINE} & {*caches.PRIVATE, *caches.REMOVED}


def test_every_place_is_in_the_home_or_the_temporary_folder() -> None:
    environ = {"HOME": "/home/anna", "USER": "anna", "TMPDIR": "/scratch/anna"}
    for cache in caches.CACHES:
        for place in caches.places(cache, environ):
            assert str(place.path).startswith(("/home/anna", "/scratch/anna")), cache
            assert "{" not in str(place.path), cache


def row(cache: caches.Cache) -> str:
    """A cache's line in the page."""
    variables = ", ".join(f"`{name}`" for name in (cache.variable, *cache.older) if name) or "(none)"
    default = re.sub(r"\{(\w+)\}", r"$\1", cache.default.replace("{user}", "USER"))
    where = f"`{default}`" if default else "nowhere"
    name = f"`{cache.name}`, {cache.kind}" if cache.name else " "
    return f"| {variables} | {cache.library} | {where} | {cache.holds} | {name} |"


def test_the_page_has_the_whole_table() -> None:
    page = (ROOT / "docs" / "caches.md").read_text(encoding="utf-8")
    rows = [row(cache) for cache in caches.CACHES]
    assert rows == [line for line in page.splitlines() if line.startswith(("| `", "| (none)"))], "\n".join(rows)
    for name in (*caches.OFFLINE, *caches.SECRETS):
        assert f"`{name}`" in page, name


def test_variables_for_other_tools_and_tokens_do_not_reach_a_worker(tmp_path: Path) -> None:
    theirs = {name: "/theirs" for cache in caches.CACHES for name in (cache.variable, *cache.older) if name}
    given = {**theirs, **dict.fromkeys(caches.SECRETS, "secret"), "HF_HUB_OFFLINE": "0", "MINE": "kept"}
    told = here.worker_environment(tmp_path, given)
    assert [name for name, value in told.items() if "theirs" in value or value == "secret"] == []
    assert told["HF_HUB_OFFLINE"] == "1" and told["MINE"] == "kept"
    caches.make(tmp_path)
    for name in caches.PRIVATE:
        assert told[name].startswith(f"{tmp_path}/")
        assert Path(told[name]).is_dir() is (name not in caches.FILES), name
        assert Path(told[name]).parent.is_dir()
    native = here.for_program(tmp_path, given)
    users = {name for name, value in native.items() if value == "/theirs"}
    assert users == {"HOME", *caches.TEMPORARY}, "an engine's own program keeps the home and the temporary folder"
    assert "secret" not in native.values()


# ---------------------------------------------------------------------- what is found


def test_all_that_is_in_a_home_is_found_with_sizes(home: Path, environ: dict[str, str]) -> None:
    found = by_name(environ)
    assert found.keys() == NAMES
    assert found["whisper"].bytes == 3_000_000 and found["whisper"].files == 1
    assert found["whisper"].disk_bytes >= 3_000_000
    assert found["huggingface-hub"].bytes == 5_000_001 and found["huggingface-hub"].files == 2
    assert found["torch-hub"].bytes == 2_000_000, "what other tools have beside it is theirs"
    assert found["huggingface-token"].path == home / ".cache/huggingface/token"
    kept = {name for name, one in found.items() if one.cache.kind == caches.KEPT}
    assert kept == {
        "huggingface-token",
        "huggingface-tokens",
        "ollama-key",
        "ollama-history",
        "llm",
        "apptainer-logins",
    }
    order = leftovers.find(environ)
    assert order[0].name == "huggingface-hub" and {one.name for one in order[-len(kept) :]} == kept


@pytest.mark.parametrize(
    ("variable", "name", "made"),
    [
        ("HF_HOME", "huggingface-hub", "hub/models--c--d/x"),
        ("HF_HOME", "huggingface-token", "token"),
        ("HF_HUB_CACHE", "huggingface-hub", "models--c--d/x"),
        ("HUGGINGFACE_HUB_CACHE", "huggingface-hub", "models--c--d/x"),
        ("XDG_CACHE_HOME", "whisper", "whisper/x.pt"),
        ("TORCH_HOME", "torch-hub", "hub/checkpoints/x"),
        ("TRITON_HOME", "triton", ".triton/cache/x"),
        ("TRITON_CACHE_DIR", "triton", "x"),
        ("NLTK_DATA", "nltk", "corpora/x"),
        ("APPTAINER_CACHEDIR", "apptainer", "cache/oci-tmp/x"),
        ("OLLAMA_MODELS", "ollama", "blobs/x"),
        ("TMPDIR", "gradio", "gradio/x"),
        ("TMPDIR", "torch-inductor", "torchinductor_anna/x"),
        ("FLASHINFER_WORKSPACE_BASE", "flashinfer", ".cache/flashinfer/x"),
    ],
)
def test_variables_that_move_a_cache_are_followed(
    variable: str, name: str, made: str, environ: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "else where"
    write(folder / made, 123)
    found = by_name({**environ, variable: str(folder)})[name]
    assert found.bytes == 123 and str(found.path).startswith(str(folder))


def test_a_list_of_folders_and_a_tilde_are_understood(home: Path, environ: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "one" / "corpora" / "x", 10)
    write(home / "two" / "taggers" / "x", 20)
    found = [one for one in leftovers.find({**environ, "NLTK_DATA": f"{tmp_path}/one::~/two"}) if one.name == "nltk"]
    assert sorted(one.bytes for one in found) == [10, 20]


def test_what_shares_a_folder_is_not_the_librarys(environ: dict[str, str], tmp_path: Path) -> None:
    """HF_HUB_CACHE=/scratch/anna is often said; all else that is there is not the hub's."""
    shared = tmp_path / "scratch"
    write(shared / "models--a--b" / "x", 100)
    write(shared / "interviews" / "anna.wav", 1000)
    environ = {**environ, "HF_HUB_CACHE": str(shared), "WANDB_CACHE_DIR": str(shared)}
    found = by_name(environ)["huggingface-hub"]
    assert found.bytes == 100
    assert purge.refusal(found, [], environ) is None
    removed = purge.remove(found)
    assert (removed.files, removed.problems) == (1, [])
    assert [path.name for path in shared.iterdir()] == ["interviews"]


def test_names_links_and_hard_links(home: Path, environ: dict[str, str], tmp_path: Path) -> None:
    whisper = home / ".cache" / "whisper"
    for name in WEIRD_NAMES.values():
        write(whisper / name / name, 1000)
    os.link(whisper / "medium.pt", whisper / "again.pt")
    os.link(whisper / "medium.pt", home / ".cache" / "torch" / "hub" / "same.pt")
    (whisper / "loop").symlink_to(whisper)
    (whisper / "out").symlink_to(write(tmp_path / "elsewhere" / "large", 9_000_000))
    (whisper / "gone").symlink_to("/nowhere")
    found = by_name(environ)
    counted = found["whisper"].bytes + found["torch-hub"].bytes
    links = sum(len(os.readlink(whisper / name)) for name in ("loop", "out", "gone"))  # noqa: PTH115
    assert counted == 3_000_000 + 2_000_000 + 1000 * len(WEIRD_NAMES) + links
    removed = purge.remove(found["whisper"])
    assert removed.problems == [] and not whisper.exists()
    assert (tmp_path / "elsewhere" / "large").stat().st_size == 9_000_000
    assert removed.bytes == 3_000_000 + 1000 * len(WEIRD_NAMES) + links
    assert removed.disk_bytes < 3_000_000, "medium.pt is in torch/hub too, and takes its place on"


def test_when_it_was_last_used(home: Path, environ: dict[str, str]) -> None:
    os.utime(home / ".cache" / "whisper" / "medium.pt", (1_700_000_000, 1_600_000_000))
    os.utime(home / ".nv" / "ComputeCache" / "index", (1_500_000_000, 1_650_000_000))
    found = by_name(environ)
    assert found["whisper"].last_used == 1_700_000_000
    assert found["cuda"].last_used == 1_650_000_000


def test_no_more_is_counted_than_there_is_time_for(home: Path, environ: dict[str, str]) -> None:
    for number in range(10):
        write(home / ".cache" / "whisper" / f"{number}.pt", 1000)
    found = {one.name: one for one in leftovers.find(environ, most_files=5)}
    assert found["whisper"].files == 5 and not found["whisper"].whole
    assert found["huggingface-hub"].whole


def test_an_empty_home_has_none(kuulo_environment: dict[str, str], kuulo: Kuulo) -> None:
    environ = {name: kuulo_environment[name] for name in caches.TRUSTED if name in kuulo_environment}
    assert leftovers.find(environ) == []
    (Path(environ["HOME"]) / ".cache" / "whisper").mkdir()
    assert leftovers.find(environ) == [], "nor is an empty folder one"
    assert "no caches" in kuulo("cache", "list").stdout
    assert "nothing to remove" in kuulo("cache", "purge", "--all").stdout


WITHOUT_RIGHTS = """
import json, os, sys
from pathlib import Path
from kuulo import leftovers, purge
(found,) = [one for one in leftovers.find() if one.name == "whisper"]
removed = purge.remove(found)
print(json.dumps([found.bytes, list(found.unreadable), removed.problems, removed.files]))
"""


def test_folders_that_cannot_be_read_are_told(
    home: Path, environ: dict[str, str], needs_program: Callable[[str], str]
) -> None:
    """Also root is refused there, without its capabilities."""
    locked = home / ".cache" / "whisper" / "locked"
    write(locked / "x", 10)
    locked.chmod(0)
    (home / ".triton").chmod(0)
    command = [sys.executable, "-c", WITHOUT_RIGHTS]
    if os.getuid() == 0:
        command = [needs_program("setpriv"), "--bounding-set=-all", "--inh-caps=-all", *command]
    env = {**os.environ, **environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    locked.chmod(0o700)
    (home / ".triton").chmod(0o700)
    size, unreadable, problems, files = json.loads(done.stdout)
    assert size == 3_000_000 and unreadable == [str(locked)]
    assert problems == [f"{locked}: Permission denied"] and files == 1
    assert (locked / "x").exists(), "what cannot be removed stays, and is told"


# ---------------------------------------------------------------------- what is refused


def test_a_link_is_not_followed_out_of_the_home(home: Path, environ: dict[str, str], tmp_path: Path) -> None:
    real = tmp_path / "scratch $(x)" / "hf"
    shutil.move(home / ".cache" / "huggingface", real)
    (home / ".cache" / "huggingface").symlink_to(real)
    found = by_name(environ)
    hub = found["huggingface-hub"]
    assert (hub.bytes, hub.link) == (0, home / ".cache" / "huggingface")
    why = purge.refusal(hub, [], environ)
    assert why and "is a link to" in why[0] and f"HF_HUB_CACHE='{real}/hub' kuulo cache purge" in why[1]
    assert purge.remove(hub).problems, "nor when it became one after it was looked at"
    assert (real / "hub" / "version.txt").exists()
    given = {**environ, "HF_HUB_CACHE": str(real / "hub")}
    assert by_name(given)["huggingface-hub"].bytes == 5_000_001
    assert purge.refusal(by_name(given)["huggingface-hub"], [], given) is None
    (tmp_path / "also").symlink_to(real / "hub")
    assert by_name({**environ, "HF_HUB_CACHE": str(tmp_path / "also")})["huggingface-hub"].bytes == 5_000_001


def test_a_home_whose_cache_folder_is_a_link_is_an_ordinary_one(
    home: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    shutil.move(home / ".cache", tmp_path / "cache")
    (home / ".cache").symlink_to(tmp_path / "cache")
    found = by_name(environ)
    assert found["whisper"].bytes == 3_000_000 and found["whisper"].link is None
    assert purge.refusal(found["whisper"], [], environ) is None
    assert purge.remove(found["whisper"]).problems == []
    assert not (tmp_path / "cache" / "whisper").exists() and (tmp_path / "cache" / "pip").exists()


def test_a_folder_that_became_a_link_meanwhile_is_not_followed(
    home: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    found = by_name(environ)["whisper"]
    write(tmp_path / "mine" / "thesis.txt", 10)
    shutil.rmtree(home / ".cache" / "whisper")
    (home / ".cache" / "whisper").symlink_to(tmp_path / "mine")
    assert purge.remove(found).files == 0
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("where", ["", ".cache", "..", "../..", ".config"])
def test_a_variable_that_names_a_home_is_no_cache(where: str, home: Path, environ: dict[str, str]) -> None:
    write(home / where / "something", 10)
    environ = {**environ, "NEMO_CACHE_DIR": str((home / where).resolve())}
    found = by_name(environ)["nemo-cache"]
    why = purge.refusal(found, [], environ)
    assert why and "no cache's own folder" in why[0]


@pytest.mark.parametrize(
    ("variable", "name", "made", "ok"),
    [
        ("NLTK_DATA", "nltk", "scratch/corpora/mine.txt", False),
        ("NLTK_DATA", "nltk", "mine/corpora/brown/x", True),
        ("NEMO_HOME", "nemo-models", "scratch/models/mine", False),
        ("NEMO_HOME", "nemo-models", "NeMo/models/theirs", True),
        ("CUDA_CACHE_PATH", "cuda", "scratch/index", False),
        ("HF_HOME", "huggingface-datasets", "scratch/datasets/mine", False),
        ("HF_HOME", "huggingface-datasets", "hf/datasets/squad", True),
        ("HF_HUB_CACHE", "huggingface-hub", "scratch/models--a--b", True),
        ("APPTAINER_CACHEDIR", "apptainer", "scratch/cache/net/x", True),
        ("TORCH_HOME", "torch-hub", "scratch/hub/checkpoints/x", True),
    ],
)
def test_a_folder_that_is_shared_with_other_things_is_left(
    variable: str, name: str, made: str, ok: bool, environ: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path / "at" / made, 10)
    write(tmp_path / "at" / "scratch" / "thesis.txt", 10)
    given = {**environ, variable: str(tmp_path / "at" / made.split("/")[0])}
    found = by_name(given)[name]
    assert found.bytes == 10
    why = purge.refusal(found, [], given)
    assert (why is None) is ok, why


def test_a_temporary_folder_of_others_is_not_ours(home: Path, environ: dict[str, str], tmp_path: Path) -> None:
    write(Path(environ["TMPDIR"]) / "gradio" / "x", 10)
    assert "gradio" in by_name(environ)
    if os.getuid() == 0:
        os.chown(Path(environ["TMPDIR"]) / "gradio", 12345, 12345)
        assert "gradio" not in by_name(environ)
        os.chown(home / ".cache" / "whisper", 12345, 12345)
        why = purge.refusal(by_name(environ)["whisper"], [], environ)
        assert why and "another user" in why[0]


def test_what_holds_another_tools_cache_or_a_token_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    caches_ = tmp_path / "caches"
    write(caches_ / "x", 10)
    write(caches_ / "hf" / "hub" / "models--a--b" / "x", 10)
    given = {**environ, "NEMO_CACHE_DIR": str(caches_), "HF_HOME": str(caches_ / "hf")}
    why = purge.refusal(by_name(given)["nemo-cache"], [], given)
    assert why and "another tool's" in why[0]
    write(tmp_path / "numba" / "token", 10)
    given = {**environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba"), "HF_TOKEN_PATH": str(tmp_path / "numba" / "token")}
    why = purge.refusal(by_name(given)["numba"], [], given)
    assert why and "token" in why[0]


@pytest.mark.parametrize("as_link", [False, True])
def test_kuulos_own_models_are_never_removed(as_link: bool, home: Path, kuulo: Kuulo, tmp_path: Path) -> None:
    hub = home / ".cache" / "huggingface" / "hub"
    source = tiny.make("ggml", hub / "models--x--y" / "model")
    if as_link:
        store = tmp_path / "store"
        store.mkdir()
        folder = adding.add(Store(store), source, name="mine").folder
        (folder / "model.bin").unlink()
        (folder / "model.bin").symlink_to(source)
    else:
        store = hub / "models--x--y" / "store"
        adding.add(Store(store), source, name="mine")
    done = kuulo("cache", "purge", "huggingface-hub", "whisper", "--yes", env={"KUULO_STORE": str(store)})
    assert done.returncode == 1 and "Kuulo needs it" in done.stderr, done.stderr
    assert source.exists() and (hub / "version.txt").exists()
    assert not (home / ".cache" / "whisper").exists(), "the others go"


def test_a_name_that_no_cache_has(home: Path, environ: dict[str, str], kuulo: Kuulo) -> None:
    with pytest.raises(UsageError, match="no cache is called 'wisper'"):
        purge.chosen([], ["wisper"], everything=False)
    done = kuulo("cache", "purge", "../..", "--yes")
    assert done.returncode == 2 and "huggingface-hub" in done.stderr
    assert kuulo("cache", "purge").returncode == 2


# ---------------------------------------------------------------------- the commands


def test_the_list_for_people_and_for_machines(home: Path, kuulo: Kuulo) -> None:
    write(home / ".cache" / "llama.cpp" / "a\nb.gguf", 5)
    (home / ".cache" / "vllm").symlink_to("/nowhere")
    listed = kuulo("cache", "list")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert lines[0].split()[:3] == ["name", "on", "disk"] and lines[1].startswith("huggingface-hub ")
    assert "OpenAI's Whisper: models (.pt) (fetched)" in listed.stdout and "kept: tokens" in listed.stdout
    assert "is a link to /nowhere" in listed.stderr
    told = json.loads(kuulo("cache", "list", "--json").stdout)
    rows: dict[str, Any] = {row["name"]: row for row in told["caches"]}
    assert rows.keys() == NAMES | {"llama.cpp", "vllm"}
    assert rows["whisper"]["bytes"] == 3_000_000 and rows["whisper"]["last_used"].startswith("20")
    assert rows["whisper"]["path"] == str(home / ".cache" / "whisper") and rows["huggingface-token"]["kind"] == "kept"
    assert told["disk_bytes"] == sum(row["disk_bytes"] for row in told["caches"])


def snapshot(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*")}


def test_a_dry_run_and_a_run_without_a_terminal_remove_nothing(home: Path, kuulo: Kuulo) -> None:
    before = snapshot(home)
    dry = kuulo("cache", "purge", "--all", "--dry-run")
    assert dry.returncode == 0 and "nothing was removed" in dry.stdout and "whisper: 3.0 MB" in dry.stderr
    told = json.loads(kuulo("cache", "purge", "--all", "--dry-run", "--json").stdout)
    assert told["dry_run"] and told["freed_bytes"] == 0
    asked = kuulo("cache", "purge", "whisper")
    assert asked.returncode == 2 and "--yes" in asked.stderr
    assert snapshot(home) == before


def test_all_leaves_what_nothing_brings_back(home: Path, kuulo: Kuulo) -> None:
    done = kuulo("cache", "purge", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    secret = ("/token", "/stored_tokens", "/id_ed25519", "/history", "/keys.json", "/logs.db", "/docker-config.json")
    assert left == {name for name in LEFT if name.endswith(secret)}
    assert "MB came free" in done.stdout
    named = kuulo("cache", "purge", "huggingface-token", "--yes", "--json")
    assert json.loads(named.stdout)["caches"][0]["removed"] is True
    assert not (home / ".cache" / "huggingface" / "token").exists()
    assert (home / ".cache" / "huggingface" / "stored_tokens").exists(), "one is not the other"


@pytest.mark.parametrize(("answer", "code", "gone"), [("n\n", 130, False), ("y\n", 0, True)])
def test_it_asks_on_a_terminal(
    answer: str, code: int, gone: bool, home: Path, kuulo_command: list[str], kuulo_environment: dict[str, str]
) -> None:
    ours, theirs = pty.openpty()
    command = [*kuulo_command, "cache", "purge", "whisper"]
    with subprocess.Popen(command, env=kuulo_environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.write(ours, answer.encode())
        assert process.wait(60) == code
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "Remove 3.0 MB for good?" in said
    assert (home / ".cache" / "whisper").exists() is not gone


@pytest.mark.parametrize("how", ["open", "mapped", "inside"])
def test_who_uses_it_is_told(how: str, home: Path, kuulo: Kuulo) -> None:
    model = home / ".cache" / "whisper" / "medium.pt"
    code = {
        "open": f"f = open({str(model)!r})",
        "mapped": f"import mmap; f = open({str(model)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); f.close()",
        "inside": f"import os; os.chdir({str(model.parent)!r})",
    }[how]
    waits = [sys.executable, "-c", f"{code}; print('ready', flush=True); import time; time.sleep(100)"]
    process = subprocess.Popen(waits, stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        done = kuulo("cache", "purge", "whisper", "--dry-run")
        assert f"(process {process.pid}) uses {model if how != 'inside' else model.parent}" in done.stderr
        assert "in use" not in kuulo("cache", "purge", "triton", "--dry-run").stderr
    finally:
        process.kill()
        process.communicate()


def test_another_file_system_is_left(home: Path, environ: dict[str, str], needs_program: Callable[[str], str]) -> None:
    """In a namespace of its own, where a folder of the cache is a mount."""
    mount = home / ".cache" / "whisper" / "mount"
    mount.mkdir()
    script = f'mount -t tmpfs none "$1" && echo hello > "$1/file" && {sys.executable} -c "$2"; ls "$1"'
    command = [needs_program("unshare"), "-rm", "sh", "-c", script, "sh", str(mount), WITHOUT_RIGHTS]
    env = {**os.environ, **environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr[:200]}")
    told, listed = done.stdout.splitlines()
    size, unreadable, problems, files = json.loads(told)
    assert size == 3_000_000 and unreadable == [str(mount)] and files == 1
    assert problems == [f"{mount}: is on another file system"] and listed == "file"


def test_what_is_deeper_than_a_path_may_be_is_told_and_left(home: Path, environ: dict[str, str]) -> None:
    folder = home / ".cache" / "whisper"
    deep = os.open(folder, os.O_RDONLY)
    for _ in range(500):
        os.mkdir("d" * 20, dir_fd=deep)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    found = by_name(environ)["whisper"]
    assert found.bytes == 3_000_000 and found.unreadable
    removed = purge.remove(found)
    assert removed.files == 1 and len(removed.problems) == 1 and "folders deep" in removed.problems[0]
