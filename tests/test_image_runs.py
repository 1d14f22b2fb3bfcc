"""A real image of whisper.cpp: built without a network by whoever runs the tests, and started by charliecloud, and by
Apptainer where it is found.

It takes a Debian that `tools/rootfs.sh` fetched ($KUULO_TEST_ROOTFS, else `sys.prefix/rootfs.tar`) and the wheels that
`kuulo image bundle` fetched ($KUULO_TEST_BUNDLE, else `sys.prefix/bundle`): `make dev` puts both there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, WEIRD_NAMES
from kuulo import miniature as built_in
from kuulo.deploy import building
from kuulo.miniature import weights
from kuulo.miniature.writers import WRITERS
from kuulo.transcript import Transcript

Kuulo = Callable[..., subprocess.CompletedProcess[str]]

ROOTFS = Path(os.environ.get("KUULO_TEST_ROOTFS") or Path(sys.prefix, "rootfs.tar"))
BUNDLE = Path(os.environ.get("KUULO_TEST_BUNDLE") or Path(sys.prefix, "bundle"))
NEEDED = {"charliecloud": ("ch-run", "mksquashfs", "fusermount3"), "apptainer": ("apptainer",)}
ENGINE = "whisper-cpp"
WORDS = "Good morning mother.\nAlways good coffee.\n"

HARMLESS = "usr bin sbin lib lib64 etc opt var tmp dev proc sys run root home mnt media srv boot .singularity.d"


def skip_without(starter: str) -> None:
    missing = [program for program in NEEDED[starter] if shutil.which(program) is None]
    if missing or not ROOTFS.is_file() or not (BUNDLE / "kuulo" / "bundle.json").is_file():
        pytest.skip(f"needs {', '.join(missing) or 'what `make dev` fetches: ' + str(ROOTFS) + ', ' + str(BUNDLE)}")
    if starter == "charliecloud" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")


def call(arguments: list[Any], environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kuulo.cli", *map(os.fspath, arguments)]
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, errors="surrogateescape",
                          stdin=subprocess.DEVNULL, check=False, timeout=1200)  # fmt: skip


@pytest.fixture(scope="module", params=["charliecloud", "apptainer"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with a site's file, in whose folder of images the engine is."""
    starter: str = request.param
    skip_without(starter)
    top = tmp_path_factory.mktemp(starter)
    (top / "tmp").mkdir()
    site = top / "site.toml"
    site.write_text(f'images = "{top}/images"\ncontainer = "{starter}"\n')
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KUULO_", "XDG_"))}
    variables = {"KUULO_SITE": str(site)}
    environ = {**kept, **variables, "HOME": str(top), "TMPDIR": str(top / "tmp"), "PYTHONPATH": str(ROOT / "src")}
    done = call(["image", "build", ENGINE, "--from", BUNDLE, "--base", ROOTFS], environ, top)
    assert done.returncode == 0, done.stderr
    assert "it heard 6 of 6 words" in done.stdout
    assert list((top / "tmp").iterdir()) == [], "nothing is left of the building"
    (build,) = (path for path in (top / "images" / ENGINE).iterdir() if path.is_dir())
    image = ".sif" if starter == "apptainer" else ".squashfs"
    assert {path.suffix for path in build.iterdir()} == {".def", ".json", image}
    return variables


def image_of(made: dict[str, str]) -> Path:
    (path,) = (p for p in Path(made["KUULO_SITE"]).parent.glob("images/*/*/image.s*"))
    return path


def test_it_hears_the_words_that_the_engine_hears_outside(
    made: dict[str, str], kuulo: Kuulo, kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("pywhispercpp")
    texts = {}
    for where, variables in (("inside", made), ("outside", {})):
        done = kuulo(
            "transcribe", built_in.CLIP, "-e", ENGINE, "-m", "miniature", "-o", where, "--print", env=variables
        )
        assert done.returncode == 0, done.stderr
        texts[where] = done.stdout
    assert texts["inside"] == texts["outside"] == WORDS
    inside, outside = (
        Transcript.from_json(json.loads((tmp_path / where / "clip.json").read_text())) for where in texts
    )
    assert [(s.start_ms, s.end_ms, s.text) for s in inside.segments] == [
        (s.start_ms, s.end_ms, s.text) for s in outside.segments
    ]
    assert inside.provenance.steps[0].environment.startswith("image (any), Python 3.")
    assert list(Path(kuulo_environment["TMPDIR"]).iterdir()) == [], "scratch is gone"
    home = Path(kuulo_environment["HOME"])
    files = {str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()}
    assert files and all(name.startswith("models/") for name in files), "the model, and nothing else"


def test_any_name(made: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    """Of the recording, the output, the model and the scratch folder."""
    models = tmp_path / "a,b:c"
    for key, name in WEIRD_NAMES.items():
        models /= name if key != "not-utf8" else "a"
    folder = models / WEIRD_NAMES["not-utf8"]  # whisper.cpp's Python opens no such models
    (folder / "scratch").mkdir(parents=True)
    recording, model = folder / "it's.flac", models / 'mo,del:"x".bin'
    shutil.copyfile(built_in.CLIP, recording)
    WRITERS["ggml"][1](model, weights.trained())
    given = ["-e", ENGINE, "-m", model, "-o", folder / "out", "--scratch", folder / "scratch", "--print"]
    done = kuulo("transcribe", recording, *given, env=made)
    assert done.returncode == 0, done.stderr
    assert done.stdout == WORDS
    assert list((folder / "scratch").iterdir()) == []


def test_a_model_of_links_through_a_link(made: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    WRITERS["ggml"][1](blobs / "digest", weights.trained())
    (snapshot / "ggml.bin").symlink_to("../../blobs/digest")
    (tmp_path / "link").symlink_to(snapshot)
    done = kuulo("transcribe", built_in.CLIP, "-e", ENGINE, "-m", tmp_path / "link" / "ggml.bin", "-o", "x", "--print",
                 env=made)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == WORDS


def test_several_workers_at_once(made: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    for number in range(4):
        shutil.copyfile(built_in.CLIP, tmp_path / f"{number}.flac")
    recordings = [tmp_path / f"{number}.flac" for number in range(4)]
    done = kuulo("transcribe", *recordings, "-e", ENGINE, "-m", "miniature", "--workers", "2", "-o", "out", env=made)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.txt"))) == 4


LOOKS = """
import json, os, sys
seen = sorted(os.listdir("/")), dict(os.environ), os.listdir(os.environ["HOME"])
print(json.dumps([sys.argv[1:], os.getcwd(), *seen]))
open("written", "w").close()
sys.exit(7)
"""


def test_the_native_program_s_arguments_place_and_exit_code(
    made: dict[str, str], kuulo: Kuulo, tmp_path: Path, weird_tmp_path: Path
) -> None:
    given = ["-c", LOOKS, str(weird_tmp_path / "a.wav"), "--", "--program", "$(touch owned)", ""]
    environ = {**made, "HF_TOKEN": "secret", "SLURM_JOB_ID": "7"}
    done = kuulo("run", ENGINE, "--program", "python", "--", *given, cwd=weird_tmp_path, env=environ)
    assert done.returncode == 7, done.stderr
    arguments, folder, top, environ, home = json.loads(done.stdout)
    assert arguments == given[2:] and folder == str(weird_tmp_path)
    assert [p.name for p in weird_tmp_path.iterdir()] == ["written"]
    assert home == [] and environ["SLURM_JOB_ID"] == "7" and "HF_TOKEN" not in environ
    assert not Path(environ["HOME"]).exists(), "gone afterwards"
    of_the_host = set(os.listdir("/")) - set(HARMLESS.split())  # noqa: PTH208
    assert not (set(top) & of_the_host) - {tmp_path.parts[1]}


def test_what_a_native_program_must_not_write_to(made: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    """The store is read-only, and so is the image."""
    store = tmp_path / "home" / "models"
    store.mkdir()
    for place in (store, Path("/usr"), Path("/opt/kuulo/environments")):
        program = f"open({str(place / 'x')!r}, 'w')"
        done = kuulo("run", ENGINE, "--program", "python", "--", "-c", program, cwd=tmp_path / "tmp", env=made)
        assert done.returncode == 1 and "Read-only file system" in done.stderr, place


def test_a_signal_reaches_the_program_and_is_its_end(
    made: dict[str, str], kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    waits = "print('ready', flush=True); import time; time.sleep(60)"
    process = subprocess.Popen(
        [*kuulo_command, "run", ENGINE, "--program", "python", "--", "-c", waits],
        env={**kuulo_environment, **made}, stdout=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    process.stdout.close()


def test_a_shell(made: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    done = kuulo("shell", ENGINE, input="pwd; command -v kuulo pwcpp; exit 5\n", env=made)
    assert done.returncode == 5, done.stderr
    assert done.stdout.splitlines() == [
        str(tmp_path), "/opt/kuulo/bin/kuulo", f"/opt/kuulo/environments/{ENGINE}/venv/bin/pwcpp"
    ]  # fmt: skip
    dry = kuulo("shell", ENGINE, "--dry-run", env=made)
    words = shlex.split(dry.stdout)
    assert Path(words[0]).name in ("ch-run", "apptainer") and str(image_of(made)) in words


def test_what_is_shown_before_a_run(made: dict[str, str], kuulo: Kuulo) -> None:
    done = kuulo("transcribe", built_in.CLIP, "-e", ENGINE, "-m", "miniature", "--dry-run", "--json", env=made)
    assert done.returncode == 0, done.stderr
    worker = json.loads(done.stdout)["worker"]
    assert str(image_of(made)) in worker and worker[-2:] == ["-m", "kuulo.worker"]
    plain = kuulo("transcribe", built_in.CLIP, "-e", ENGINE, "-m", "miniature", "--dry-run", env=made)
    assert f"where:  {image_of(made)}" in plain.stdout


def test_inspect_list_and_test(made: dict[str, str], kuulo: Kuulo) -> None:
    said = json.loads(kuulo("image", "inspect", ENGINE, "--json", env=made).stdout)
    assert said["labels"]["kuulo.engine.version"] == said["packages"]["pywhispercpp"]
    assert said["labels"]["kuulo.lock.sha256"] == said["lock_sha256"]
    assert said["image"] == str(image_of(made)) and len(said["sha256"]) == 64
    (row,) = json.loads(kuulo("image", "list", "--json", env=made).stdout)["images"]
    assert row["engine"] == ENGINE and row["heard"].startswith("it heard 6 of 6")
    tested = kuulo("image", "test", ENGINE, env=made)
    assert tested.returncode == 0 and tested.stdout.count("it heard 6 of 6 words") == 2, tested.stderr
    rows = {row["name"]: row for row in json.loads(kuulo("engines", "list", "--json", env=made).stdout)["engines"]}
    assert rows[ENGINE]["environment"]["image"].startswith("image.")
    gpu = kuulo("image", "test", ENGINE, "--gpu", env=made)
    if not Path("/dev/nvidiactl").exists() and not Path("/dev/kfd").exists():
        assert gpu.returncode == 3 and "no GPU can be used" in gpu.stderr and "what to do: ask for a GPU" in gpu.stderr


@pytest.fixture
def plain(made: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs the image's runscript without Kuulo; `work` is the host's folder that it sees."""
    (tmp_path / "mount").mkdir()
    (tmp_path / "work").mkdir()
    environ = {"PATH": os.environ["PATH"], "USER": "anna", "HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        if image_of(made).suffix == ".sif":
            command = ["apptainer", "run", "--bind", f"{tmp_path}/work:/mnt", "--pwd", "/mnt", str(image_of(made))]
        else:
            mounts = [f"--bind={tmp_path}/work:/mnt", f"--mount={tmp_path}/mount", "--private-tmp"]
            image = ["--cd=/mnt", "--set-env=HOME=/tmp", str(image_of(made)), "--", "/.singularity.d/runscript"]
            command = ["ch-run", *mounts, *image]
        return subprocess.run([*command, *words], env=environ, capture_output=True, text=True, check=False)

    yield run


def test_an_ordinary_image_without_kuulo_outside(
    plain: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Both grammars, as `apptainer run IMAGE ...` and a site's wrapper start it."""
    shutil.copyfile(built_in.CLIP, tmp_path / "work" / "a b.flac")
    own = plain("transcribe", "a b.flac", "-e", ENGINE, "-m", "miniature", "-o", "out", "--print")
    assert own.returncode == 0 and own.stdout == WORDS, own.stderr
    assert (tmp_path / "work" / "out" / "a b.txt").exists()
    for words in (["--help"], ["pwcpp", "--help"], ["--", "--help"]):
        native = plain(*words)
        assert native.returncode == 0 and "usage: pwcpp" in native.stdout, native.stderr
    assert plain("--nonsense").returncode == 2, "the program's own exit code"
    assert plain("kuulo", "--version").stdout.startswith("kuulo ")
    outside = plain("transcribe", "a b.flac", "-e", "openai-whisper", "-m", "miniature", "-o", "/mnt/x")
    assert outside.returncode == 3 and "what to do: " in outside.stderr


def test_a_cut_image_is_said_to_be_cut(made: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    image = image_of(made)
    copy = tmp_path / "images" / ENGINE / image.parent.name
    copy.mkdir(parents=True)
    shutil.copyfile(image.parent.parent / "state.json", copy.parent / "state.json")
    with image.open("rb") as whole:
        (copy / image.name).write_bytes(whole.read(1_000_000))
    (tmp_path / "site.toml").write_text(f'images = "{tmp_path}/images"\n')
    for words in (["transcribe", built_in.CLIP, "-m", "miniature", "-e", ENGINE], ["run", ENGINE, "--", "--help"]):
        done = kuulo(*words, env={"KUULO_SITE": str(tmp_path / "site.toml")})
        assert done.returncode == 3, done.stderr
        for fact in ("cut off: 1000000 of", "looked at: ", "what to do: "):
            assert fact in done.stderr
    (copy / image.name).unlink()
    gone = kuulo(
        "transcribe", built_in.CLIP, "-m", "miniature", "-e", ENGINE, env={"KUULO_SITE": str(tmp_path / "site.toml")}
    )
    assert gone.returncode == 3 and f"kuulo image build {ENGINE}" in gone.stderr


# ---------------------------------------------------------------------- builds that fail


@pytest.fixture
def unbuilt(kuulo_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Variables for a site whose folder of images is empty."""
    skip_without("charliecloud")
    (tmp_path / "site.toml").write_text(f'images = "{tmp_path}/images"\ncontainer = "charliecloud"\n')
    return {"KUULO_SITE": str(tmp_path / "site.toml")}


def left(tmp_path: Path) -> list[Path]:
    return [*tmp_path.glob("images/*/*"), *(tmp_path / "tmp").iterdir()]


def test_a_base_that_cannot_be(unbuilt: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for base, why in (("empty", "no /bin/sh"), ("nowhere", "no such base")):
        done = kuulo(
            "image", "build", ENGINE, "--from", BUNDLE, "--bootstrap", "localimage", "--base", base, env=unbuilt
        )
        assert done.returncode == 2 and why in done.stderr and "looked at: " in done.stderr, done.stderr
        assert left(tmp_path) == []
    if shutil.which("apptainer") is None:
        done = kuulo("image", "build", ENGINE, "--from", BUNDLE, "--base", "debian:12-slim", env=unbuilt)
        assert done.returncode == 3 and "by Apptainer alone" in done.stderr and "--bootstrap" in done.stderr


def test_packages_that_are_not_those_of_the_lock(unbuilt: dict[str, str], kuulo: Kuulo, tmp_path: Path) -> None:
    if shutil.which("apptainer"):
        pytest.skip("Apptainer builds here")
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    (wheel,) = (tmp_path / "bundle" / "wheels").glob("mdurl-*")
    with wheel.open("ab") as file:
        file.write(b"x")
    done = kuulo("image", "build", ENGINE, "--from", tmp_path / "bundle", "--base", ROOTFS, "-q", env=unbuilt)
    assert done.returncode == 3, done.stderr
    assert "the packages cannot be put into the image" in done.stderr and "HASHES" in done.stderr
    assert left(tmp_path) == []


def test_a_build_that_is_killed_leaves_nothing(
    unbuilt: dict[str, str], kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [*kuulo_command, "image", "build", ENGINE, "--from", BUNDLE, "--base", ROOTFS],
        env={**kuulo_environment, **unbuilt}, stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:
        if line in (b"packages\n", b"squashfs\n"):
            break
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 130
    assert left(tmp_path) == []


def test_an_older_image_stays_when_the_new_one_cannot_be_made(
    made: dict[str, str], kuulo: Kuulo, tmp_path: Path
) -> None:
    before = image_of(made)
    (tmp_path / "empty").mkdir()
    done = kuulo("image", "build", ENGINE, "--from", BUNDLE, "--bootstrap", "localimage", "--base", "empty", env=made)
    assert done.returncode in (2, 3)
    assert image_of(made) == before and json.loads((before.parent.parent / "state.json").read_text())["heard"]


def test_a_sif_of_it_is_started_by_charliecloud_too(made: dict[str, str], tmp_path: Path) -> None:
    """Unpacked for the run, since charliecloud mounts no SIF."""
    if image_of(made).suffix != ".squashfs" or not shutil.which("siftool"):
        pytest.skip("needs a squashfs file, and siftool")
    building.write_sif(tmp_path / "x.sif", image_of(made).with_name("image.def"), image_of(made))
    found = building.of_file(ENGINE, tmp_path / "x.sif", "charliecloud")
    assert found.packages["pywhispercpp"] and found.python.startswith("3.")
