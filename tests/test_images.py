"""Container images without one: definitions, the commands that start an image, what is seen inside, broken files."""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import WEIRD_NAMES
from kuulo import engines, runtimes
from kuulo.cli import COMMANDS
from kuulo.deploy import building, definition
from kuulo.deploy.definition import COMMAND_LINE, Base
from kuulo.environments import recipe
from kuulo.environments.installed import Environment
from kuulo.environments.sources import Sources
from kuulo.errors import CannotRun, EngineMissing, UsageError
from kuulo.runtimes import container, image_file, inside
from kuulo.runtimes.container import Bind, Container
from kuulo.wire import Task
from kuulo.workers import Worker

Kuulo = Callable[..., subprocess.CompletedProcess[str]]


def define(engine: str, base: Base, variant: str | None = None) -> definition.Definition:
    chosen = recipe.read(engine)
    picked = chosen.variant(variant, gpu=True)
    locks = {"engine": picked.lock.read_text(), "kuulo": COMMAND_LINE.variants["any"].lock.read_text()}
    return definition.define(engines.spec(engine), chosen, picked, base, Sources(), locks, sorted(COMMANDS))


# ---------------------------------------------------------------------- definitions


@pytest.mark.parametrize("engine", recipe.names())
def test_every_engine_has_a_definition_whose_scripts_are_shell(engine: str) -> None:
    made = define(engine, Base("docker", "debian:12-slim"))
    text = made.text()
    assert text.startswith("Bootstrap: docker\nFrom: debian:12-slim\n")
    sections = [line for line in text.splitlines() if line.startswith("%")]
    assert sections == ["%files", "%post", "%environment", "%labels", "%runscript", "%test", "%help"]
    for script in ("\n".join(made.post), made.runscript, made.test, *definition.shims(engine, "p").values()):
        assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0, script
    lock = recipe.read(engine).variant(None, gpu=True).lock.read_bytes()
    assert made.labels["kuulo.lock.sha256"] == hashlib.sha256(lock).hexdigest()
    assert made.labels["kuulo.engine.version"] != "unknown"
    assert "--require-hashes" in text and "model" not in " ".join(source for source, _ in made.files)


def test_the_three_bases() -> None:
    local = define("whisper-cpp", Base("localimage", "/images/base.sif")).text()
    assert local.startswith("Bootstrap: localimage\nFrom: /images/base.sif\n")
    debian = define("whisper-cpp", Base("debootstrap", "bookworm")).text()
    assert debian.startswith("Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: http")
    assert "\nInclude: ca-certificates" in debian.partition("%")[0]


def test_a_base_that_nobody_named(tmp_path: Path) -> None:
    assert definition.base(None, None, apptainer=True) == Base("docker", "debian:12-slim")
    assert definition.base(None, None, apptainer=False) == Base("debootstrap", "bookworm")
    assert definition.base(None, "python:3.12-slim", apptainer=False).bootstrap == "docker"
    assert definition.base(None, str(tmp_path), apptainer=True) == Base("localimage", str(tmp_path))
    with pytest.raises(UsageError, match="needs a --base"):
        definition.base("localimage", None, apptainer=True)
    with pytest.raises(UsageError, match="no base"):
        Base("docker", "debian\n%post\n    touch /owned")


def test_a_cuda_image_has_the_packages_of_cuda() -> None:
    cpu, cuda = (define("openai-whisper", Base("docker", "x"), variant) for variant in ("cpu", "cuda"))
    assert cpu.labels["kuulo.lock.sha256"] != cuda.labels["kuulo.lock.sha256"]
    assert "--extra-index-url" in "\n".join(cpu.post)


@pytest.mark.parametrize(
    ("given", "who", "words"),
    [
        (["transcribe", "a b.wav", "-o", "$(x)"], "kuulo", ["transcribe", "a b.wav", "-o", "$(x)"]),
        (["kuulo", "--version"], "kuulo", ["--version"]),
        (["whisper-ctranslate2", "a.wav", "--help"], "own", ["a.wav", "--help"]),
        (["--", "transcribe"], "own", ["transcribe"]),
        (
            ['it\'s "a".wav', "--model_directory", "/m", "--local_files_only", "True", "--language", "en"],
            "own",
            ['it\'s "a".wav', "--model_directory", "/m", "--local_files_only", "True", "--language", "en"],
        ),
        (["--help"], "own", ["--help"]),
        ([], "own", []),
    ],
)
def test_the_first_word_says_whose_command_line_it_is(
    given: list[str], who: str, words: list[str], tmp_path: Path
) -> None:
    said = tmp_path / "said"
    said.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    said.chmod(0o755)
    script = definition.runscript("faster-whisper", "whisper-ctranslate2", sorted(COMMANDS))
    script = script.replace(definition.KUULO, str(said))
    done = subprocess.run(["sh", "-s", "--", *given], input=script, capture_output=True, text=True, check=True)
    expected = words if who == "kuulo" else ["run", "faster-whisper", "--", *words]
    assert json.loads(done.stdout) == expected


def test_the_lock_of_the_command_line_is_of_its_requirements() -> None:
    variant = COMMAND_LINE.variants["any"]
    first = variant.lock.read_text(encoding="utf-8").splitlines()[0]
    assert first.endswith(recipe.wanted_digest(variant)), "out of date: python tools/locks.py kuulo"


def test_the_definition_with_its_files(kuulo: Kuulo, tmp_path: Path) -> None:
    shown = kuulo("image", "definition", "whisper-cpp", "--base", "debian:12-slim")
    assert shown.returncode == 0, shown.stderr
    folder = tmp_path / 'a "b"'
    written = kuulo("image", "definition", "whisper-cpp", "--base", "debian:12-slim", "-o", folder)
    assert written.returncode == 0, written.stderr
    assert (folder / "image.def").read_text() == shown.stdout
    top = folder / "files" / "kuulo"
    assert {p.name for p in top.iterdir()} == {"bin", "src", "engine.lock", "kuulo.lock", "image.json", "wheels"}
    assert json.loads((top / "image.json").read_text())["kuulo.engine"] == "whisper-cpp"
    again = kuulo("image", "definition", "whisper-cpp", "-o", folder)
    assert again.returncode == 3 and "what to do: name a new folder" in again.stderr


# ---------------------------------------------------------------------- the exact command


STAND_IN = """#!{python}
import json, os, sys
with open({record!r}, "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
sys.exit(9)
"""


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Apptainer that records how it was called; gives the record's path."""
    record = tmp_path / "called.json"
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "apptainer").write_text(STAND_IN.format(python=sys.executable, record=str(record)))
    (programs / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return record


def fields_of(mount: str) -> list[str]:
    """What a reader of CSV makes of a value of --mount."""
    (fields,) = csv.reader(io.StringIO(mount, newline=""))
    return fields


def an_image(folder: Path) -> Environment:
    """An environment that is an image: a squashfs file by its header alone."""
    folder.mkdir(parents=True, exist_ok=True)
    data = image_file.SQUASHFS_MAGIC + bytes(36) + struct.pack("<Q", 4096)
    (folder / "image.squashfs").write_bytes(data.ljust(4096, b"\0"))
    return Environment("whisper-cpp", folder, "any", "3.11.2", "0" * 64, image="image.squashfs")


def test_what_apptainer_is_told(apptainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "gpu_kind", lambda: "nv")
    runtime = Container(an_image(tmp_path / "images"))
    scratch, model = tmp_path / "scratch", tmp_path / 'mo,del "x".bin'
    model.touch()
    python = "/opt/kuulo/environments/whisper-cpp/venv/bin/python"
    assert runtime.command(scratch, [model]) == [
        str(tmp_path / "programs" / "apptainer"),
        "exec",
        "--containall",
        "--nv",
        "--mount",
        f"type=bind,src={scratch},dst={scratch}",
        "--mount",
        f"type=bind,src={scratch}/worker,dst=/opt/kuulo/worker,ro",
        "--mount",
        f'type=bind,"src={tmp_path}/mo,del ""x"".bin","dst={tmp_path}/mo,del ""x"".bin",ro',
        "--pwd",
        str(scratch),
        str(tmp_path / "images" / "image.squashfs"),
        python,
        "-I",
        f"{scratch}/worker/inside.py",
        "--environment",
        f"{scratch}/worker/worker.json",
        "--",
        python,
        "-m",
        "kuulo.worker",
    ]


def test_a_worker_sees_its_model_and_the_files_that_its_engine_is_told_of(apptainer: Path, tmp_path: Path) -> None:
    scratch, model, aligner, other = (tmp_path / name for name in ("scratch", "model", "aligner fi", "other"))
    for folder in (scratch, model, aligner, other):
        folder.mkdir()
    runtime = Container(an_image(tmp_path / "images"))
    runtimes.make_room(runtime, scratch)
    raw = {"align_model": str(aligner), "interpolate_method": str(other), "chunk_size": 20}
    gone = threading.Event()
    run = SimpleNamespace(scratch=scratch, post=lambda what, *arguments: gone.set(), heard_from=None, gone=None)
    with (tmp_path / "log").open("wb") as run.log:
        worker = Worker(run, Task("transcribe", "whisperx", "m", str(model), {}, raw), runtime)  # type: ignore[arg-type]
        assert gone.wait(30), "the stand-in ends at once"
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.close()  # type: ignore[union-attr]
    arguments, _ = json.loads(apptainer.read_text())
    mounts = [fields_of(arguments[n + 1]) for n, word in enumerate(arguments) if word == "--mount"]
    read = {source.removeprefix("src=") for _, source, _, *how in mounts if how == ["ro"]}
    assert read == {str(model), str(aligner), str(scratch / "worker")}


def test_run_through_apptainer_gives_its_exit_code_and_no_secrets(
    apptainer: Path, kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path, weird_name: str
) -> None:
    image = an_image(tmp_path / "images" / "whisper-cpp" / "build")
    building.installed.put_in_use(image)
    site = tmp_path / "site.toml"
    site.write_text(f'images = "{tmp_path}/images"\n')
    given = {
        "KUULO_SITE": str(site),
        "PATH": os.environ["PATH"],
        "HF_TOKEN": "secret",
        "SLURM_JOB_ID": "7",
        "APPTAINER_BIND": "/etc",
    }
    folder = tmp_path / weird_name
    folder.mkdir()
    done = kuulo("run", "whisper-cpp", "--", weird_name, "--x", "", cwd=folder, env=given)
    assert done.returncode == 9, done.stderr
    arguments, environ = json.loads(apptainer.read_text())
    assert arguments[-3:] == [weird_name, "--x", ""]
    mounts = [fields_of(arguments[n + 1]) for n, word in enumerate(arguments) if word == "--mount"]
    binds = {fields[1].removeprefix("src="): fields[3:] for fields in mounts}
    assert binds[str(folder)] == [], "the current folder, to be written to"
    assert arguments[arguments.index("--pwd") + 1] == str(folder)
    assert "APPTAINER_BIND" not in environ
    dry = kuulo("run", "whisper-cpp", "--dry-run", "--", "a.wav", cwd=folder, env=given)
    assert dry.returncode == 0 and " exec --containall " in dry.stdout and dry.stdout.endswith("pwcpp a.wav\n")


def test_what_a_program_in_an_image_gets_of_the_environment(tmp_path: Path) -> None:
    runtime = Container(an_image(tmp_path / "images"), "apptainer")
    environ = {
        "HF_TOKEN": "secret",
        "SLURM_JOB_ID": "7",
        "CUDA_VISIBLE_DEVICES": "1",
        "HOME": "/home/anna",
        "LANG": "fi",
    }
    for which in (container.WORKERS, container.PROGRAMS_OWN):
        inner = runtime.inner_environment(tmp_path, environ, which)
        assert inner["HOME"] == str(tmp_path / "home") and inner["TMPDIR"] == str(tmp_path / "tmp")
        assert (inner["SLURM_JOB_ID"], inner["CUDA_VISIBLE_DEVICES"], inner["LANG"]) == ("7", "1", "fi")
        assert inner["HF_HUB_OFFLINE"] == "1" and "HF_TOKEN" not in inner
        assert ("PYTHONPATH" in inner) == (which == container.WORKERS)


@pytest.mark.parametrize(
    "name",
    [
        *WEIRD_NAMES.values(),
        "a,b:c=d",
        'x"',
    ],
)
def test_apptainer_s_mounts_hold_any_name(name: str) -> None:
    text = container.mount(Bind(Path("/a", name), Path("/a", name)))
    assert fields_of(text) == ["type=bind", f"src=/a/{name}", f"dst=/a/{name}", "ro"]


def test_a_carriage_return_is_refused() -> None:
    with pytest.raises(UsageError, match="carriage return"):
        container.mount(Bind(Path("/a\r\nb"), Path("/b")))


def test_nothing_that_starts_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRun, match="no apptainer and no singularity and no ch-run"):
        container.found(None)
    with pytest.raises(CannotRun, match="no singularity"):
        container.found("singularity")


# ---------------------------------------------------------------------- what is seen inside


def test_links_out_of_a_model_are_seen_too(tmp_path: Path) -> None:
    """As in Hugging Face's caches: snapshots/REVISION/model.bin -> ../../blobs/DIGEST."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name in ("aa", "bb"):
        (blobs / name).write_text(name)
    (snapshot / "model.bin").symlink_to("../../blobs/aa")
    (snapshot / "config.json").symlink_to(blobs / "bb")
    (snapshot / "inner.json").symlink_to("config.json")
    seen = container.readable([snapshot])
    assert {b.target: b.source for b in seen} == {
        snapshot: snapshot,
        blobs / "aa": blobs / "aa",
        blobs / "bb": blobs / "bb",
    }
    assert not any(bind.writable for bind in seen)


def test_a_path_through_a_link_is_the_same_inside(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    assert container.readable([link]) == [Bind(real, link)]
    with pytest.raises(UsageError, match="has a folder of that name"):
        container.readable([Path("/usr")])


def test_the_folders_of_arguments_that_are_paths(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here / "in", there):
        folder.mkdir(parents=True)
    (there / "a.wav").touch()
    words = ["in", f"{there}/a.wav", f"--output={there}/new/x.srt", "--language", "en", "/usr", "", "-v"]
    assert container.tidy(container.named(here, words)) == [Bind(here, here, True), Bind(there, there, True)]
    assert container.named(Path("/"), ["--language", "en"]) == [], "the image has a root of its own"


def test_outer_folders_are_mounted_first_and_what_they_show_is_not_mounted_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    binds = [Bind(store, store), Bind(tmp_path, tmp_path, True)]
    assert container.tidy(binds) == [Bind(tmp_path, tmp_path, True)]
    assert container.tidy([Bind(tmp_path, tmp_path), Bind(store, store, True)]) == [
        Bind(tmp_path, tmp_path),
        Bind(store, store, True),
    ]


# ---------------------------------------------------------------------- a GPU


def test_the_gpu_of_a_node(tmp_path: Path) -> None:
    assert container.gpu_kind(tmp_path) is None
    (tmp_path / "kfd").touch()
    assert container.gpu_kind(tmp_path) == "rocm"
    (tmp_path / "nvidia0").touch()
    assert container.gpu_kind(tmp_path) == "nv"


LDCONFIG = """3 libs found in cache `/etc/ld.so.cache'
\tlibnvidia-ml.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1
\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1
\tlibcuda.so.1 (libc6) => /usr/lib/i386-linux-gnu/libcuda.so.1
\tlibcurl.so.4 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcurl.so.4
"""


def test_nvidia_s_driver_for_charliecloud() -> None:
    at = Path("/usr/lib/x86_64-linux-gnu")
    assert {b.source: b.target for b in container.driver(lambda: LDCONFIG)} == {
        at / "libnvidia-ml.so.1": Path("/opt/kuulo/driver/libnvidia-ml.so.1"),
        at / "libcuda.so.1": Path("/opt/kuulo/driver/libcuda.so.1"),
    }


CUDA = """
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
"""


@pytest.mark.parametrize(
    ("init", "count", "works", "said"),
    [(0, 2, True, "2 GPUs"), (0, 0, False, "0 GPUs"), (100, 1, False, "cuInit gives error 100")],
)
def test_whether_a_gpu_can_be_used_is_asked_of_its_driver(
    init: int, count: int, works: bool, said: str, tmp_path: Path, needs_program: Callable[[str], str]
) -> None:
    compiler = needs_program("cc")
    source = tmp_path / "cuda.c"
    source.write_text(CUDA)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}", "-o", library, source], check=True
    )
    asked = [sys.executable, inside.__file__, "--gpu"]
    environ = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(asked, capture_output=True, text=True, check=True, env=environ)
    assert json.loads(done.stdout) == {"works": works, "said": f"libcuda.so.1: {said}"}


def test_what_runs_inside_is_standard_library_and_python_3_9() -> None:
    tree = ast.parse(Path(inside.__file__).read_text(), feature_version=(3, 9))
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


# ---------------------------------------------------------------------- broken files


def test_an_image_that_was_cut_off(tmp_path: Path) -> None:
    path = an_image(tmp_path).image_path
    assert path is not None and image_file.kind(path) == image_file.SQUASHFS
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(EngineMissing, match="cut off: 4000 of 4096") as caught:
        image_file.kind(path)
    assert caught.value.looked_at and caught.value.do


@pytest.mark.parametrize("data", [b"", b"hsqs", b"#!/bin/sh\n", bytes(32) + b"SIF_MAGIC"])
def test_a_file_that_is_no_image(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(data)
    with pytest.raises(EngineMissing, match="no container image") as caught:
        image_file.kind(path)
    assert caught.value.looked_at and caught.value.do


def test_a_sif_by_siftool(tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    needs_program("siftool"), needs_program("mksquashfs")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "hello").write_text("there")
    (tmp_path / "image.def").write_text("Bootstrap: docker\n")
    squashfs, sif = tmp_path / "x.squashfs", tmp_path / "x.sif"
    subprocess.run(["mksquashfs", tmp_path / "root", squashfs, "-quiet", "-no-progress"], check=True)
    building.write_sif(sif, tmp_path / "image.def", squashfs)
    assert image_file.kind(sif) == image_file.SIF
    with sif.open("rb") as file:
        file.seek(image_file.offset(sif))
        assert file.read(4) == image_file.SQUASHFS_MAGIC
    if shutil.which("unsquashfs"):
        container.unpack(sif, tmp_path / "unpacked")
        assert (tmp_path / "unpacked" / "hello").read_text() == "there"
    sif.write_bytes(sif.read_bytes()[:-100])
    with pytest.raises(EngineMissing, match="cut off"):
        image_file.kind(sif)


def test_an_engine_without_an_image(kuulo: Kuulo) -> None:
    done = kuulo("image", "test", "whisper-cpp")
    assert done.returncode == 3 and "has no image" in done.stderr and "kuulo image build" in done.stderr
    assert kuulo("image", "build", "nonsense").returncode == 2
    assert "no images" in kuulo("image", "list").stdout
