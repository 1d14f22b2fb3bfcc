"""Engines in environments of their own: recipes and locks, what counts as installed, and two that contradict each other
side by side, installed and transcribing without a network.

The wheels for that are in `sys.prefix/bundle`, put there by `make dev`."""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

import kuulo as package
from kuulo import engines
from kuulo.environments import installed, recipe, uv
from kuulo.environments.installed import Environment, Environments
from kuulo.environments.recipe import Variant
from kuulo.environments.sources import Sources
from kuulo.errors import CannotRun, UsageError
from kuulo.runtimes import venv
from kuulo.transcript import Transcript

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path(package.__file__).parent
BUNDLE = Path(sys.prefix) / "bundle"
OTHER_LOCK = ROOT / "tests" / "environments" / "sherpa-onnx.lock"
EXAMPLE = ROOT / "examples" / "synthetic.flac"

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

RECIPES = [(name, variant) for name in recipe.names() for variant in recipe.read(name).variants]


def locked(path: Path) -> dict[str, str]:
    """Distribution -> version; of several versions for several Pythons the last."""
    return dict(re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*)==(\S+)", path.read_text(encoding="utf-8")))


# ---------------------------------------------------------------------- recipes and locks


def test_every_engine_that_people_use_has_a_recipe() -> None:
    chat = {spec.name for spec in engines.specs("chat") if spec.kind != "endpoint" and not spec.environment}
    assert set(recipe.names()) == {*(spec.name for spec in engines.specs()), "nemo", "pyannote", *chat}


@pytest.mark.parametrize(("name", "variant_name"), RECIPES)
def test_a_lock_is_of_its_recipe_and_has_digests_alone(name: str, variant_name: str) -> None:
    variant = recipe.read(name).variants[variant_name]
    text = variant.lock.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    assert first.endswith(recipe.wanted_digest(variant)), f"out of date: python tools/locks.py {name}"
    entries = re.split(r"(?m)^(?=[a-z0-9])", rest)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+( ;[^\\\n]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+", entry), entry
    assert "://" not in text, "a lock says nothing of where it was made"
    assert ("+cpu" in text) == ("+cpu" in variant.wanted.read_text(encoding="utf-8")), (
        "PyTorch's build is the one meant"
    )


@pytest.mark.parametrize("name", recipe.names())
def test_a_recipe_has_the_engine_and_a_python_that_the_worker_runs_on(name: str) -> None:
    chosen = recipe.read(name)
    python = SpecifierSet(chosen.python)
    assert any(f"3.{minor}.1" in python for minor in range(9, 14))
    assert not any(f"3.{minor}.1" in python for minor in (*range(9), *range(15, 20)))
    wanted = recipe.read(name).variants
    for variant in wanted.values():
        packages = locked(variant.lock)
        assert "numpy" in packages, "a worker's samples are numpy's"
        assert not set(variant.without) & set(packages)


def test_the_engines_contradict_each_other() -> None:
    """That is why each has an environment: one for all cannot be."""
    openai, plain = locked(recipe.read("openai-whisper").variants["cpu"].lock), locked(OTHER_LOCK)
    assert openai["numpy"] != plain["numpy"]
    assert "triton" not in openai, "1 GB that only a GPU uses"
    assert "triton" in locked(recipe.read("openai-whisper").variants["cuda"].lock)


def test_a_variant_is_chosen_by_name_or_by_the_machine() -> None:
    torch, plain = recipe.read("openai-whisper"), recipe.read("whisper-cpp")
    assert torch.variant(None, gpu=False).name == "cpu"
    assert torch.variant(None, gpu=True).name == "cuda"
    assert torch.variant("cuda", gpu=False).name == "cuda"
    assert plain.variant(None, gpu=True).name == plain.variant("cuda", gpu=True).name == "any"
    with pytest.raises(UsageError, match="no variant rocm"):
        torch.variant("rocm", gpu=True)
    with pytest.raises(UsageError, match="no environment is known"):
        recipe.read("../environments/whisper-cpp/..")


def test_sources_as_uv_and_pip_are_told_them() -> None:
    cpu = recipe.read("openai-whisper").variants["cpu"]
    plain = recipe.read("whisper-cpp").variants["any"]
    assert Sources().flags(plain) == []
    assert Sources().flags(cpu)[:2] == ["--index", cpu.index]
    assert Sources().pip_flags(cpu) == ["--extra-index-url", cpu.index]
    assert Sources(index="http://here/simple").flags(cpu) == ["--default-index", "http://here/simple"]
    assert Sources(index="http://here/simple").pip_flags(cpu) == ["--index-url", "http://here/simple"]
    folders = ["--find-links", "/a b", "--find-links", "/c"]
    assert Sources(find_links=("/a b", "/c")).flags(cpu) == folders, "who names a folder has there what PyPI has not"


# ---------------------------------------------------------------------- what a worker has of the host


def test_the_worker_s_files_import_each_other_and_the_standard_library_alone() -> None:
    """At their tops, and from Kuulo also inside functions: nothing else is there in an engine's environment."""
    carried = {"kuulo", *(f"kuulo.{name.removesuffix('.py')}" for name in venv.WORKER)}
    files = [SOURCE / name for name in venv.WORKER if name.endswith(".py")] + sorted((SOURCE / "engines").glob("*.py"))
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        for node in ast.walk(tree):
            top = node in tree.body
            for name in imported(node):
                if name.split(".")[0] == "kuulo":
                    known = name in carried or ".".join(name.split(".")[:2]) in carried
                    assert known, f"{path.name} imports {name}"
                elif top:
                    assert name.split(".")[0] in sys.stdlib_module_names, f"{path.name} imports {name}"


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        if node.module == "kuulo":
            return [f"kuulo.{alias.name}" for alias in node.names]
        return [node.module or ""]
    return []


def test_nothing_of_the_host_s_python_gets_into_an_environment(tmp_path: Path) -> None:
    libraries = tmp_path / "lib" / "python3.11" / "site-packages" / "nvidia"
    for name in ("cublas", "cudnn"):
        (libraries / name / "lib").mkdir(parents=True)
    environ = {
        "PYTHONPATH": "/host",
        "PYTHONHOME": "/host",
        "VIRTUAL_ENV": "/host",
        "LD_LIBRARY_PATH": "/site",
        "A": "b",
    }
    made = Environment("x", tmp_path, "cuda", "3.11.1", "")
    told = venv.Venv(made).environment(tmp_path / "scratch", {**environ, "PATH": "/bin"})
    assert told["PYTHONPATH"] == str(tmp_path / "scratch" / venv.CARRIED)
    assert "PYTHONHOME" not in told and told["PYTHONNOUSERSITE"] == "1" and told["A"] == "b"
    assert told["VIRTUAL_ENV"] == str(tmp_path) and told["PATH"] == f"{tmp_path}/bin:/bin"
    assert told["LD_LIBRARY_PATH"] == f"{libraries}/cublas/lib:{libraries}/cudnn/lib:/site"
    assert told["HF_HUB_OFFLINE"] == told["ORT_DISABLE_TELEMETRY"] == "1"
    native = venv.for_program(made, tmp_path / "scratch", {**environ, "HOME": "/home/me", "TMPDIR": "/tmp/me"})
    assert "PYTHONPATH" not in native and (native["HOME"], native["TMPDIR"]) == ("/home/me", "/tmp/me")
    assert native["HF_HOME"].startswith(str(tmp_path / "scratch"))


# ---------------------------------------------------------------------- what counts as installed


def fake(home: Path, build: str = "abc") -> Environment:
    """An environment of links: enough to be found."""
    folder = home / "whisper-cpp" / build
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    made = Environment("whisper-cpp", folder, "any", "3.11.1", "0" * 64, {"pywhispercpp": "1.5.1"})
    installed.put_in_use(made)
    return made


def test_a_version_is_found_by_any_spelling_of_a_package() -> None:
    """Engines call theirs nemo_toolkit and pyannote.audio; an environment's list has the canonical names."""
    found = Environment("x", Path("/x"), "any", "", "", {"nemo-toolkit": "3.0.0", "pyannote-audio": "4.0.7"})
    assert [found.version(name) for name in ("nemo_toolkit", "pyannote.audio", "Pyannote-Audio")] == [
        "3.0.0", "4.0.7", "4.0.7",
    ]  # fmt: skip
    assert found.version("pyannote") is None


def test_an_environment_is_found_by_its_state_alone(tmp_path: Path) -> None:
    found = Environments((tmp_path / "mine", tmp_path / "site"))
    assert found.find("whisper-cpp") is None and found.all() == ({}, {})
    installed.begin(tmp_path / "mine" / "whisper-cpp" / "half-built")
    assert found.find("whisper-cpp") is None
    of_site = fake(tmp_path / "site")
    assert found.find("whisper-cpp") == of_site
    mine = fake(tmp_path / "mine")
    assert found.find("whisper-cpp") == found.all()[0]["whisper-cpp"] == mine, "the nearest wins"
    assert not (mine.folder / installed.BUILDING).exists()


@pytest.mark.parametrize("state", ["", "{}", '{"schema": 99, "build": "abc"}', '{"schema": 1}', "[1]", "\0"])
def test_a_broken_state_is_an_error_that_says_what_to_do(state: str, tmp_path: Path) -> None:
    made = fake(tmp_path)
    (made.folder.parent / installed.STATE).write_text(state)
    with pytest.raises(CannotRun) as caught:
        Environments((tmp_path,)).find("whisper-cpp")
    assert "kuulo engines remove whisper-cpp" in str(caught.value)


def test_a_broken_state_is_in_the_way_of_its_own_engine_alone(
    kuulo: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    made = fake(tmp_path / "environments")
    (made.folder.parent / installed.STATE).write_text("[]")
    env = {installed.VARIABLE: str(tmp_path / "environments")}
    listed = kuulo("engines", env=env)
    assert "the state of the environment of whisper-cpp cannot be read" in listed.stderr
    assert re.search(r"^whisper-cpp +not installed", listed.stdout, re.MULTILINE)
    transcribe = ("transcribe", ROOT / "examples" / "jfk.flac", "-m", "miniature", "--dry-run")
    other = kuulo(*transcribe, "--engine", "faster-whisper", env=env)
    assert (other.returncode, "whisper-cpp" in other.stderr) == (0, False)
    unnamed = kuulo(*transcribe, env=env)
    assert unnamed.returncode == 0
    assert "environment of whisper-cpp cannot be read" in unnamed.stdout + unnamed.stderr, "it was passed over"
    own = kuulo(*transcribe, "--engine", "whisper-cpp", env=env)
    assert own.returncode == CannotRun.exit_code
    assert "kuulo engines remove whisper-cpp" in own.stderr


def test_an_environment_whose_python_is_gone_is_told_of(tmp_path: Path) -> None:
    made = fake(tmp_path)
    made.interpreter.unlink()
    made.interpreter.symlink_to("/nowhere/python3")
    with pytest.raises(CannotRun, match="no working Python"):
        Environments((tmp_path,)).find("whisper-cpp")


def test_what_is_half_built_is_swept_and_what_is_in_use_or_in_work_is_not(tmp_path: Path) -> None:
    used = fake(tmp_path, "used")
    home = used.folder.parent
    for name, who in {
        "in-work": {"host": os.uname().nodename, "pid": os.getpid(), "began": 0},
        "elsewhere": {"host": "another", "pid": 1, "began": time.time()},
        "dead": {"host": os.uname().nodename, "pid": 2**22 + 1, "began": time.time()},
        "long-ago": {"host": "another", "pid": 1, "began": time.time() - 2 * installed.ABANDONED_SECONDS},
    }.items():
        (home / name).mkdir()
        (home / name / installed.BUILDING).write_text(json.dumps(who))
    (home / "old").mkdir()
    assert {path.name for path in installed.sweep(home)} == {"dead", "long-ago", "old"}
    assert {path.name for path in home.iterdir()} == {"used", "in-work", "elsewhere", installed.STATE}


def test_a_program_is_one_of_the_environment_s(tmp_path: Path) -> None:
    made = fake(tmp_path)
    assert made.program("python") == made.interpreter
    for name in ("nothing", "../bin/python", "/bin/sh"):
        with pytest.raises(CannotRun, match="no program"):
            made.program(name)


def test_a_plan_takes_the_environment_before_what_is_beside_kuulo(
    kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    if not engines.installed(engines.spec("whisper-cpp")):
        pytest.skip("whisper-cpp is not installed")
    asked = ("transcribe", EXAMPLE, "-e", "whisper-cpp", "-m", "miniature", "--dry-run", "--json")
    beside = json.loads(kuulo(*asked).stdout)
    assert beside["environment"] is None and Path(beside["worker"][0]).parent == Path(sys.executable).parent
    made = fake(tmp_path / "made")
    inside = json.loads(kuulo(*asked, env={"KUULO_ENVIRONMENTS": str(tmp_path / "made")}).stdout)
    assert inside["environment"]["folder"] == str(made.folder)
    assert inside["worker"] == [str(made.interpreter), "-m", "kuulo.worker"]


def test_a_site_s_environments_are_found_by_its_file(kuulo: Kuulo, tmp_path: Path) -> None:
    made = fake(tmp_path / "of the site")
    (tmp_path / "site.toml").write_text(f"environments = ['{tmp_path / 'of the site'}']\n")
    done = kuulo("engines", "path", "whisper-cpp", env={"KUULO_SITE": str(tmp_path / "site.toml")})
    assert done.stdout.strip() == str(made.folder), done.stderr
    rows = json.loads(kuulo("engines", "--json", env={"KUULO_SITE": str(tmp_path / "site.toml")}).stdout)["engines"]
    (row,) = [row for row in rows if row["name"] == "whisper-cpp"]
    assert row["version"] == "1.5.1" and row["environment"]["variant"] == "any"


# ---------------------------------------------------------------------- installed for real


@pytest.fixture(scope="module")
def bundle() -> Path:
    if not (BUNDLE / "whisper-cpp" / "bundle.json").is_file():
        pytest.skip("needs the wheels that `make dev` puts into the virtual environment")
    return BUNDLE


@pytest.fixture(scope="module")
def index(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A package index on loopback with the bundle's wheels (PEP 503: a page for each project)."""
    root = tmp_path_factory.mktemp("index")
    for wheel in (bundle / "wheels").glob("*.whl"):
        project = root / "simple" / re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        project.mkdir(parents=True, exist_ok=True)
        (project / wheel.name).symlink_to(wheel)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(root)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def handler(root: Path) -> type[http.server.SimpleHTTPRequestHandler]:
    """Serves files, and writes no log."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(root))

        def log_message(self, format: str, *arguments: Any) -> None: ...

    return Handler


@pytest.fixture(scope="module")
def made(
    bundle: Path, index: str, kuulo_command: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Variables with which two engines are installed: one from a bundle, one from an index on this machine."""
    home = tmp_path_factory.mktemp("environments")
    variables = {"KUULO_ENVIRONMENTS": str(home / "Umgebungen für alle"), "UV_CACHE_DIR": str(home / "uv")}
    environ = {**os.environ, **variables, "PYTHONPATH": str(ROOT / "src")}
    for arguments in (
        ("whisper-cpp", "--from", str(bundle)),
        ("sherpa-onnx", "--index", index, "--lock", str(OTHER_LOCK)),
    ):
        done = subprocess.run(
            [*kuulo_command, "engines", "install", *arguments], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "it heard 6 of 6 words" in done.stdout
    return variables


def test_two_engines_that_contradict_each_other_transcribe_side_by_side(
    made: dict[str, str], kuulo: Kuulo, tmp_path: Path
) -> None:
    texts = {}
    for name in ("whisper-cpp", "sherpa-onnx"):
        done = kuulo("transcribe", EXAMPLE, "-e", name, "-m", "miniature", "-o", name, "--print", env=made)
        assert done.returncode == 0, done.stderr
        texts[name] = done.stdout
    assert texts["whisper-cpp"] == texts["sherpa-onnx"] == "Good morning mother.\nAlways good coffee.\n"
    found = Environments((Path(made["KUULO_ENVIRONMENTS"]),)).all()[0]
    versions = {name: environment.packages["numpy"] for name, environment in found.items()}
    assert versions["sherpa-onnx"] == "1.26.4" and versions["whisper-cpp"].startswith("2.")
    steps = [
        Transcript.from_json(json.loads((tmp_path / name / "synthetic.json").read_text())).provenance.steps[0]
        for name in texts
    ]
    assert steps[0].environment.startswith("environment (any), Python 3.")
    assert steps[1].environment.startswith("environment (own), Python 3.")
    assert steps[0].environment != steps[1].environment, "a digest of what is in it"


def test_check_path_list_and_run(made: dict[str, str], kuulo: Kuulo) -> None:
    refused = kuulo("engines", "check", "whisper-cpp", "--engine-option", "no_such=1", env=made)
    assert refused.returncode == 3 and "no_such" in refused.stderr, refused.stderr
    checked = kuulo("engines", "check", "whisper-cpp", "--engine-option", "max_len=0", env=made)
    assert checked.returncode == 0 and "it heard 6 of 6 words" in checked.stdout, checked.stderr
    folder = Path(kuulo("engines", "path", "whisper-cpp", env=made).stdout.strip())
    assert folder.parent.parent == Path(made["KUULO_ENVIRONMENTS"])
    rows = {row["name"]: row for row in json.loads(kuulo("engines", "list", "--json", env=made).stdout)["engines"]}
    assert rows["sherpa-onnx"]["environment"]["variant"] == "own"
    ran = kuulo("run", "pwcpp", "--", "--help", env=made)
    assert ran.returncode == 0 and "usage: pwcpp" in ran.stdout


SAYS = "import json, os, sys; print(json.dumps([sys.argv[1:], sys.prefix, dict(os.environ)])); sys.exit(7)"


def test_run_gives_arguments_environment_and_exit_code_unchanged(
    made: dict[str, str], kuulo: Kuulo, weird_name: str
) -> None:
    given = ["-c", SAYS, weird_name, "--", "--program", "-e", ""]
    done = kuulo("run", "whisper-cpp", "--program", "python", "--", *given, env={**made, "MINE": "kept"})
    assert done.returncode == 7, done.stderr
    arguments, prefix, environ = json.loads(done.stdout)
    assert arguments == given[2:] and environ["MINE"] == "kept" and environ["HF_HUB_OFFLINE"] == "1"
    assert prefix.startswith(made["KUULO_ENVIRONMENTS"]) and "PYTHONPATH" not in environ
    assert not Path(environ["XDG_CACHE_HOME"]).exists(), "caches are gone afterwards"


def test_a_signal_reaches_the_program_and_is_its_end(
    made: dict[str, str], kuulo_command: list[str], kuulo_environment: dict[str, str]
) -> None:
    waits = "print('ready', flush=True); import time; time.sleep(60)"
    process = subprocess.Popen(
        [*kuulo_command, "run", "whisper-cpp", "--program", "python", "--", "-c", waits],
        env={**kuulo_environment, **made}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    process.stdout.close()


def test_run_without_an_environment_takes_the_program_beside_kuulo(kuulo: Kuulo) -> None:
    if not Path(sys.executable).with_name("whisper-ctranslate2").exists():
        pytest.skip("whisper-ctranslate2 is not installed")
    done = kuulo("run", "whisper-ctranslate2", "--", "--version")
    assert done.returncode == 0 and re.search(r"\d+\.\d+", done.stdout), done.stderr
    assert kuulo("run", "faster-whisper", "--", "--nonsense").returncode == 2, "its own exit code"
    assert kuulo("run", "nonsense").returncode == 2
    assert "--program" in kuulo("run", "transformers").stderr


def test_an_installation_that_does_not_transcribe_changes_nothing(
    made: dict[str, str], kuulo: Kuulo, bundle: Path, tmp_path: Path
) -> None:
    before = kuulo("engines", "path", "whisper-cpp", env=made).stdout
    (tmp_path / "mine.txt").write_text("tqdm\n")
    done = kuulo(
        "engines", "install", "whisper-cpp", "--lock", tmp_path / "mine.txt", "--find-links", bundle / "wheels", "-q",
        env={**made, "UV_OFFLINE": "1", "UV_NO_INDEX": "1"},
    )  # fmt: skip
    assert done.returncode == 3 and "whisper-cpp" in done.stderr, done.stderr
    assert kuulo("engines", "path", "whisper-cpp", env=made).stdout == before
    elsewhere = {**made, "UV_OFFLINE": "1", "UV_NO_INDEX": "1", "KUULO_ENVIRONMENTS": str(tmp_path / "elsewhere")}
    unchecked = kuulo(
        "engines", "install", "whisper-cpp", "--lock", tmp_path / "mine.txt", "--find-links", bundle / "wheels", "-q",
        "--unchecked", env=elsewhere,
    )  # fmt: skip
    assert unchecked.returncode == 0 and "not checked" in unchecked.stdout, unchecked.stderr
    assert "unchecked" in kuulo("engines", env=elsewhere).stdout
    assert kuulo("engines", "check", "whisper-cpp", env=elsewhere).returncode == 3
    assert kuulo("engines", "check", "whisper-cpp", env=made).returncode == 0


def test_a_wheel_that_was_changed_is_not_installed(
    bundle: Path, kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    (wheel,) = (tmp_path / "bundle" / "wheels").glob("tqdm-*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    variables = {"KUULO_ENVIRONMENTS": str(tmp_path / "made"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    done = kuulo("engines", "install", "whisper-cpp", "--from", tmp_path / "bundle", "-q", env=variables)
    assert done.returncode == 3 and "hash" in done.stderr.lower(), done.stderr
    assert not list((tmp_path / "made").iterdir()), "nothing is left of it"
    assert kuulo("engines", "check", "whisper-cpp", env=variables).returncode == 3


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_an_installation_that_is_killed_is_swept_by_the_next(
    bundle: Path, kuulo: Kuulo, kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    variables = {"KUULO_ENVIRONMENTS": str(tmp_path / "made"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    command = [*kuulo_command, "engines", "install", "whisper-cpp", "--from", str(bundle), "-q"]

    def begun() -> set[Path]:
        return set((tmp_path / "made").glob("whisper-cpp/*/bin/python"))

    def works_on() -> bool:
        """Whether what was started and lost its parent still works there."""
        return any(str(tmp_path).encode() in _command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline"))

    for how in (signal.SIGKILL, signal.SIGTERM):
        while works_on():
            time.sleep(0.05)
        before = begun()
        process = subprocess.Popen(command, env={**kuulo_environment, **variables}, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not begun() - before and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(how)
        code = process.wait(30)
        assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        left = list((tmp_path / "made").glob("whisper-cpp/*"))
        assert len(left) == (1 if how == signal.SIGKILL else 0), left
        assert kuulo("engines", "path", "whisper-cpp", env=variables).returncode == 3, "half built is not installed"


def test_remove(kuulo: Kuulo, tmp_path: Path) -> None:
    fake(tmp_path / "made")
    variables = {"KUULO_ENVIRONMENTS": str(tmp_path / "made")}
    assert kuulo("engines", "remove", "whisper-cpp", input="n\n", env=variables).returncode == 130
    assert (tmp_path / "made" / "whisper-cpp").is_dir()
    assert kuulo("engines", "remove", "whisper-cpp", "--yes", env=variables).returncode == 0
    assert not (tmp_path / "made" / "whisper-cpp").exists()
    assert kuulo("engines", "remove", "whisper-cpp", "--yes", env=variables).returncode == 2


def test_what_cannot_be_asked_together_is_refused(kuulo: Kuulo, tmp_path: Path) -> None:
    for arguments, words in (
        (("install", "whisper-cpp", "--from", tmp_path, "--index", "http://x"), "--from brings its own"),
        (("install", "whisper-cpp", "--from", tmp_path), "no bundle with whisper-cpp"),
        (("install", "whisper-cpq"), "did you mean whisper-cpp"),
        (("check", "whisper-cpp"), "kuulo engines install whisper-cpp"),
        (("install", "whisper-ctranslate2"), "the program of the engine faster-whisper"),
    ):
        done = kuulo("engines", *arguments)
        assert done.returncode in (2, 3) and words in done.stderr, done.stderr


def test_uv_s_own_words_are_told(tmp_path: Path) -> None:
    with pytest.raises(CannotRun) as caught:
        uv.make(tmp_path / "x", "3.99")
    assert "3.99" in str(caught.value)
    assert isinstance(recipe.read("whisper-cpp").variants["any"], Variant)
