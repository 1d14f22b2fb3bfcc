"""`kuulo doctor`: what is broken here is really broken, and Slurm and Lmod are real."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kuulo import site as sites
from kuulo.doctor import containers, examination, folders, gpu, leftovers, mail, modules, page, portal, slurm, space
from kuulo.doctor import deployed as versions
from kuulo.doctor.asking import ask
from kuulo.doctor.finding import OK, PROBLEM, STATES, UNKNOWN, WARNING, Finding, Looking

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parent.parent


def findings(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """What `--json` has, which is as it is documented."""
    said = json.loads(done.stdout)
    assert said["schema"] == 1 and set(said["counts"]) == set(STATES)
    found: list[dict[str, str]] = said["findings"]
    assert said["ok"] == all(f["state"] != PROBLEM for f in found) == (done.returncode == 0)
    assert done.returncode in (0, 3)
    for one in found:
        assert set(one) == {"area", "name", "state", "found", "looked_at", "do"}
        assert one["area"] and one["name"] and one["found"]
        assert one["do"] or one["state"] not in (PROBLEM, WARNING), one
    return found


def of(found: list[dict[str, str]], name: str, state: str = "") -> dict[str, str]:
    """The one line of this name (and state)."""
    (one,) = [f for f in found if f["name"] == name and state in ("", f["state"])]
    return one


def looking(text: str, folder: Path, **environ: str) -> Looking:
    """Under this site's file."""
    path = folder / "site.toml"
    path.write_text(text)
    environ = {"HOME": str(folder), "KUULO_SITE": str(path), **environ}
    return Looking(sites.load(environ), environ, for_site=True)


def as_an_ordinary_user(*command: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs it as one who may read everything here (the interpreter), and write no more than any user."""
    words = list(map(os.fspath, command))
    if os.getuid() == 0:
        user = pwd.getpwnam("games")
        who = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        words = ["setpriv", *who, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", *words]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, **options)


# ------------------------------------------------------------------ can I run?


def test_without_a_model_it_can_be_used_with_a_warning(kuulo: Kuulo) -> None:
    found = findings(kuulo("doctor", "--json"))
    assert of(found, "faster-whisper")["state"] == OK
    one = of(found, "transcribe")
    assert one["state"] == WARNING and one["found"].startswith("pocketsphinx with its own model: no Whisper model")
    assert one["do"] == "kuulo models pull small"
    assert of(found, "network")["found"] == "not needed, and not looked for"


def test_a_model_and_what_is_wrong_with_it(kuulo: Kuulo, kuulo_environment: dict[str, str]) -> None:
    assert kuulo("models", "pull", "miniature", "--format", "ct2").returncode == 0
    found = findings(kuulo("doctor", "--json"))
    assert of(found, "miniature (ct2)")["state"] == OK
    model = Path(kuulo_environment["KUULO_STORE"]) / "ct2" / "miniature"
    with (model / "model.bin").open("ab") as file:
        file.truncate(1000)
    done = kuulo("doctor", "--json")
    one = of(findings(done), "miniature (ct2)")
    assert one["state"] == PROBLEM and one["found"].startswith("model.bin has 1000 bytes, and ")
    assert one["looked_at"] == str(model) and "--replace" in one["do"]
    assert done.returncode == 3
    (model / "kuulo-model.json").unlink()
    assert "has no kuulo-model.json" in of(findings(kuulo("doctor", "--json")), "miniature (ct2)")["found"]


def test_broken_environments(kuulo: Kuulo, kuulo_environment: dict[str, str]) -> None:
    home = Path(kuulo_environment["HOME"]) / "environments"
    for name, python, module in (
        ("whisper-cpp", "/nowhere/python", ""),
        ("openai-whisper", "/bin/false", ""),
        ("transformers", sys.executable, "transformers"),
    ):
        build = home / name / "1"
        (build / "bin").mkdir(parents=True)
        (build / "bin" / "python").symlink_to(python)
        state = {"schema": 1, "build": "1", "engine": name, "variant": "cpu", "python": "3", "lock_sha256": ""}
        (home / name / "state.json").write_text(
            json.dumps(state | {"packages": {"transformers": "9.9"} if module else {}})
        )
    found = findings(kuulo("doctor", "--json", env={"KUULO_ENVIRONMENTS": str(home)}))
    one = of(found, "whisper-cpp")
    assert one["state"] == PROBLEM and one["found"] == "the environment of whisper-cpp has no working Python"
    assert one["do"] == "kuulo engines install whisper-cpp"
    assert "its Python: exit code 1" in of(found, "openai-whisper")["found"]
    one = of(found, "transformers")
    assert "9.9 (cpu)" in one["found"]


def test_a_settings_file_that_is_not_understood_does_not_stop_it(kuulo: Kuulo, tmp_path: Path) -> None:
    site = tmp_path / "it's $(site).toml"
    site.write_text("[jobs]\npartition_ = 1\nscheduler = ")
    found = findings(kuulo("doctor", "--json", env={"KUULO_SITE": str(site)}))
    assert of(found, "settings")["state"] == PROBLEM and str(site) in of(found, "settings")["looked_at"]
    assert of(found, "faster-whisper")["state"] == OK
    found = findings(kuulo("doctor", "--site", "--json", env={"KUULO_SITE": str(site)}))
    assert of(found, "settings")["state"] == PROBLEM


def test_scratch_that_cannot_be_written(
    kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    """As an ordinary user, whose home and results cannot be written either."""
    closed = tmp_path / "scratch"
    closed.mkdir(mode=0o555)
    environ = {**kuulo_environment, "KUULO_SCRATCH": str(closed), "KUULO_OUTPUT": str(tmp_path / "new" / "out")}
    done = as_an_ordinary_user(*kuulo_command, "doctor", "--json", env=environ, cwd=tmp_path)
    found = findings(done)
    one = of(found, "scratch")
    assert one["state"] == PROBLEM and one["found"] == "nothing can be written there: Permission denied"
    assert one["do"] == "name another: --scratch" and one["looked_at"] == str(closed)
    if os.getuid() == 0:
        assert of(found, "results")["state"] == of(found, "home")["state"] == PROBLEM
    assert of(found, "temporary files")["looked_at"] == kuulo_environment["TMPDIR"]
    assert not list(closed.iterdir())


def test_a_folder_that_is_made_when_it_is_needed(tmp_path: Path) -> None:
    one = space.place("results", tmp_path / "a" / "b", "--output")
    assert one.state == OK and one.found.endswith("free; it is made when it is needed")
    (tmp_path / "file").touch()
    one = space.place("scratch", tmp_path / "file", "--scratch")
    assert one.state == PROBLEM and one.found.endswith("it is no folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_what_other_tools_left(kuulo: Kuulo, kuulo_environment: dict[str, str]) -> None:
    cache = Path(kuulo_environment["HOME"]) / ".cache" / "whisper"
    cache.mkdir()
    (cache / "tiny.pt").write_bytes(bytes(3_000_000))
    one = of(findings(kuulo("doctor", "--json")), "caches")
    assert one["state"] == OK and "whisper" in one["found"] and one["found"].endswith("3.0 MB; Kuulo does not use it")


# ------------------------------------------------------------------ GPUs


def test_a_gpu_that_is_there(kuulo: Kuulo, nvml_library: Path) -> None:
    environ = {"KUULO_NVML": str(nvml_library), "CUDA_VISIBLE_DEVICES": "0"}
    found = findings(kuulo("doctor", "--json", env=environ))
    assert of(found, "NVIDIA driver")["found"] == "550.54.15, up to CUDA 12.4"
    assert of(found, "GPU 0")["found"] == "Imagined GPU, 84.8 GB of 85.9 GB free"
    assert of(found, "visible to Kuulo")["state"] == OK
    found = findings(kuulo("doctor", "--json", env={**environ, "CUDA_VISIBLE_DEVICES": ""}))
    one = of(found, "visible to Kuulo")
    assert one["state"] == WARNING and "CUDA_VISIBLE_DEVICES=''" in one["looked_at"]
    found = findings(kuulo("doctor", "--json", env={**environ, "FAKE_NVML": "none"}))
    assert of(found, "NVIDIA GPUs")["state"] == WARNING


def test_a_job_with_a_gpu_and_no_driver(kuulo: Kuulo) -> None:
    environ = {"KUULO_NVML": "/nowhere.so", "SLURM_JOB_GPUS": "0"}
    one = of(findings(kuulo("doctor", "--json", env=environ)), "NVIDIA driver")
    assert one["state"] == PROBLEM and one["found"].startswith("Slurm gave this job a GPU, and no NVIDIA driver")


@pytest.mark.parametrize(
    ("packages", "state"),
    [({"nvidia-cublas-cu12": "12.9"}, OK), ({"nvidia-cublas": "13.1.1.3"}, PROBLEM), ({"nvidia-cublas-cu11": "1"}, OK)],
)
def test_packages_are_compared_with_the_driver(
    kuulo: Kuulo, kuulo_environment: dict[str, str], nvml_library: Path, packages: dict[str, str], state: str
) -> None:
    home = Path(kuulo_environment["HOME"]) / "environments" / "openai-whisper"
    (home / "1" / "bin").mkdir(parents=True)
    (home / "1" / "bin" / "python").symlink_to(sys.executable)
    said = {"schema": 1, "build": "1", "engine": home.name, "variant": "cuda", "python": "3", "lock_sha256": ""}
    (home / "state.json").write_text(json.dumps({**said, "packages": packages}))
    environ = {"KUULO_NVML": str(nvml_library), "KUULO_ENVIRONMENTS": str(home.parent)}
    found = findings(kuulo("doctor", "--json", env=environ))
    (one,) = [f for f in found if f["name"] == "openai-whisper" and f["area"] == "GPU"]
    assert one["state"] == state and f"made for CUDA {gpu.made_for(packages)}" in one["found"]
    assert "up to 12.4" in one["found"]


# ------------------------------------------------------------------ nothing hangs, nothing is hidden


def test_a_program_that_hangs_is_ended_with_all_that_it_started() -> None:
    mark = f"{300 + os.getpid()}.25"
    answer = ask(["sh", "-c", f"sleep {mark} & sleep {mark}"], seconds=0.5)
    assert answer.why == "no answer within 0.5 seconds" and answer.here and not answer.ok
    deadline = time.monotonic() + 10
    while _runs(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(mark)
    assert ask(["no-such-program-here"]).here is False
    assert ask(["sh", "-c", "echo why >&2; exit 3"]).why == "exit code 3: why"


def _runs(mark: str) -> bool:
    """Whether a process has this word on its command line; one that has ended has none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                return True
    return False


def test_a_file_system_that_hangs_stops_nothing_else(kuulo_environment: dict[str, str]) -> None:
    """A pipe that nobody writes to, as a manifest: who opens it waits for ever."""
    model = Path(kuulo_environment["KUULO_STORE"]) / "ct2" / "slow"
    model.mkdir(parents=True)
    os.mkfifo(model / "kuulo-model.json")
    code = "from kuulo.doctor import examination as e; e.SECONDS = 2.0; from kuulo.cli import main; main()"
    command = [sys.executable, "-c", code, "doctor", "--json"]
    done = subprocess.run(command, env=kuulo_environment, capture_output=True, text=True, timeout=60, check=False)
    found = findings(done)
    (one,) = [f for f in found if f["area"] == "Models"]
    assert one["state"] == UNKNOWN and one["found"] == "no answer within 2 seconds"
    assert of(found, "scratch")["state"] == OK, "what comes after it is looked at"


def test_a_check_that_fails_says_that_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Kuulo's own code is wrong: here it is given settings that are none."""
    monkeypatch.setattr(examination, "USER", (examination.USER[1], examination.USER[0]))
    broken, *rest = examination.examine(Looking(None, {}))  # type: ignore[arg-type]
    assert broken.state == UNKNOWN and "the check itself failed: AttributeError" in broken.found
    assert any(f.name == "python" and f.state == OK for f in rest)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_and_cannot_move_the_cursor(width: int) -> None:
    plain = lambda text, **style: text  # noqa: E731
    for state in STATES:
        one = Finding(
            "a name\x1b[2J that is long, and longer", state, "found " * 40, "/a/b " * 30, "do this\nnow " * 20
        )
        lines = page.lines(one, width, plain)
        assert all(len(line) <= width for line in lines)
        assert "\x1b" not in "".join(lines) and lines[0].strip().lower().startswith(page.SHOWN[state].lower())
    path = "/" + "x" * 200
    assert path in "".join(page.lines(Finding("n", PROBLEM, "f", path, "d"), width, plain)), "never cut"


def test_quiet_shows_what_is_not_ok_alone(kuulo: Kuulo) -> None:
    done = kuulo("doctor", "--quiet")
    assert "  ok " not in done.stdout and "  warning  transcribe" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("no problem, ")


def test_quotas_as_they_are_printed() -> None:
    text = (
        "Disk quotas for user anna (uid 1000):\n"
        "     Filesystem   space   quota   limit   grace   files   quota   limit   grace\n"
        "server:/home/anna 9000000* 8000000 10000000   6days   84200       0       0        \n"
        "/dev/sdb1 12 0 0 3 0 0\n"
    )
    rows = space.quota_rows(text)
    assert rows == [("server:/home/anna", 9_216_000_000, 10_240_000_000), ("/dev/sdb1", 12_288, 0)]
    lustre = "  /scratch/a/very/long/path\n  504884*  500000  600000 6d23h  12 0 0 -\n"
    assert space.lustre_rows(lustre) == [("/scratch/a/very/long/path", 517_001_216, 614_400_000)]
    kind, mount, _ = space.mounted(Path("/proc/self"))
    assert (kind, mount) == ("proc", "/proc")


# ------------------------------------------------------------------ a centre: folders and stores


def test_an_ordinary_user_must_get_there(tmp_path: Path, weird_name: str) -> None:
    store = tmp_path / weird_name / "models"
    store.mkdir(parents=True)
    for part in [*reversed(tmp_path.relative_to("/tmp").parents), tmp_path.relative_to("/tmp")]:
        (Path("/tmp") / part).chmod(0o755) if part.name else None
    (one,) = folders.readable("stores", store)
    assert one.state == OK
    store.parent.chmod(0o750)
    (one,) = folders.readable("stores", store)
    assert one.state == PROBLEM and "(750)" in one.found and one.do == f"chmod o+x {store.parent}"
    group = folders._group(store.parent.stat().st_gid)
    assert f"for the group {group} alone" in one.found
    (one,) = folders.readable("stores", store, groups=[group])
    assert one.state == OK and one.found == f"open to the group {group} of the site's file"
    store.parent.chmod(0o755)
    store.chmod(0o711)
    (one,) = folders.readable("stores", store)
    assert one.state == PROBLEM and one.do == f"chmod o+rx {store}"


def test_an_access_list_is_told_and_not_guessed(tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    tmp_path.chmod(0o755), tmp_path.parent.chmod(0o755), tmp_path.parent.parent.chmod(0o755)
    done = subprocess.run([needs_program("setfacl"), "-m", "u:games:rx", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this file system has no access lists")
    folder.chmod(0o750)
    (one,) = folders.readable("stores", folder)
    assert one.state == UNKNOWN and "access list" in one.found and one.do == f"getfacl {folder}"


def test_stores_of_a_site(kuulo: Kuulo, tmp_path: Path) -> None:
    for part in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        part.chmod(0o755)
    store = tmp_path / "store"
    assert kuulo("models", "pull", "miniature", "--format", "ct2", env={"KUULO_STORE": str(store)}).returncode == 0
    site = tmp_path / "site.toml"
    site.write_text(
        f'stores = ["{store}", "{tmp_path}/gone"]\nmodels = ["miniature", "large-v3"]\nscratch = ["/x/$USER"]\n'
    )
    environ = {"KUULO_SITE": str(site)}
    store.chmod(0o777)
    secret = store / "ct2" / "miniature" / "model.bin"
    secret.chmod(0o600)
    found = findings(kuulo("doctor", "--site", "--json", env=environ))
    assert of(found, "miniature (ct2)")["state"] == OK
    one = of(found, "store")
    assert one["state"] == PROBLEM and one["found"] == "ordinary users cannot read ct2/miniature/model.bin"
    assert [f["found"] for f in found if f["name"] == "stores" and f["state"] == WARNING] == [
        "anybody may change it (777)"
    ]
    assert [f["looked_at"] for f in found if f["name"] == "stores" and f["state"] == PROBLEM] == [f"{tmp_path}/gone"]
    assert of(found, "models")["found"] == "no store of the site has 'large-v3'"
    assert of(found, "scratch", WARNING)["found"] == "none of /x/$USER is here: TMPDIR serves"
    data = bytearray(secret.read_bytes())
    data[len(data) // 2] ^= 1
    secret.write_bytes(data)
    assert of(findings(kuulo("doctor", "--site", "--json", env=environ)), "miniature (ct2)")["state"] == OK
    found = findings(kuulo("doctor", "--site", "--deep", "--json", env=environ))
    assert of(found, "miniature (ct2)")["found"] == "damaged: model.bin: changed"


def test_names_in_the_site_s_file_that_nobody_has(kuulo: Kuulo, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('engines = ["faster-wisper"]\n[groups.no-such-group]\nengines = ["pyannote"]\n')
    found = findings(kuulo("doctor", "--site", "--json", env={"KUULO_SITE": str(site)}))
    assert of(found, "engines")["found"] == "there is no engine 'faster-wisper'"
    assert of(found, "[groups.no-such-group]")["state"] == WARNING
    assert of(found, "contact")["state"] == WARNING
    assert of(found, "stores")["state"] == PROBLEM


def test_without_a_site_s_file(kuulo: Kuulo) -> None:
    if sites.SITE_FILE.exists():
        pytest.skip("this machine has one")
    done = kuulo("doctor", "--site", "--json")
    one = of(findings(done), "site file")
    assert one["state"] == PROBLEM and one["looked_at"] == str(sites.SITE_FILE) and done.returncode == 3


# ------------------------------------------------------------------ a centre: Slurm

JOBS = """
[jobs]
scheduler = "slurm"
[jobs.cpu]
partition = "cpu"
cpus = 2
[jobs.gpu]
partition = "gpu"
gres = "gpu:fake"
cpus = 1
"""


@pytest.fixture
def on_slurm(user_cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[Finding]]:
    """What is found of Slurm under a site's file."""
    user_cluster.use(monkeypatch)
    tmp_path.chmod(0o755)

    def found(text: str) -> list[Finding]:
        return list(slurm.check(looking(text, tmp_path)))

    return found


def test_slurm_as_it_should_be(on_slurm: Callable[[str], list[Finding]]) -> None:
    found = on_slurm(JOBS)
    assert {f.state for f in found} == {OK}, found
    said = [f.found for f in found]
    assert any(re.match(r"slurm\S* 2", text) and text.endswith("it answers") for text in said)
    assert "partition cpu: 3 of 3 nodes can be used" in said
    assert "gpu:fake on n1" in said and "1 on 1 nodes: n1" in said
    assert sum(text.startswith("Slurm would take a job of ") for text in said) == 2


WRONG = {
    # what is changed, what it becomes: what is found, what to do
    ('partition = "gpu"', 'partition = "gpuu"'): ("there is no partition 'gpuu'", "did you mean gpu?"),
    ('"gpu:fake"', '"gpu:h100"'): ("no node of gpu has 'gpu:h100'", "gres = one of gpu, gpu:fake"),
    ("cpus = 2", "cpus = 64"): ("cpus = 64, and no node of cpu has more than 2", "cpus = 2, or another partition"),
    ("cpus = 2", 'cpus = 1\nconstraint = "milan"'): ("no node of cpu has the feature 'milan'", "leave constraint out"),
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change[1].partition(" ")[2].strip('="'))
def test_slurm_as_it_should_not_be(on_slurm: Callable[[str], list[Finding]], change: tuple[str, str]) -> None:
    found = on_slurm(JOBS.replace(*change))
    (one,) = [f for f in found if f.state == PROBLEM]
    assert (one.found, one.do) == WRONG[change]


def test_slurm_refuses_a_job(on_slurm: Callable[[str], list[Finding]]) -> None:
    found = on_slurm(JOBS + 'extra = { reservation = "none-such" }\n')
    (one,) = [f for f in found if f.state != OK]
    assert one.state == WARNING and "Slurm would take no job of " in one.found and "eservation" in one.found


def test_a_partition_that_is_down(on_slurm: Callable[[str], list[Finding]], user_cluster: Any) -> None:
    user_cluster.run(["scontrol", "update", "Partition=gpu", "State=DOWN"], check=True)
    try:
        bad = [f for f in on_slurm(JOBS) if f.state == PROBLEM]
    finally:
        user_cluster.run(["scontrol", "update", "Partition=gpu", "State=UP"], check=True)
    assert [f.found for f in bad] == ["partition gpu is DOWN"]


def test_slurm_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that is silent: its commands would wait for minutes."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sbatch", "scontrol"):
        (tools / name).write_text("#!/bin/sh\nsleep 600\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "ask", lambda argv: ask(argv, seconds=0.3))
    (one,) = slurm.check(looking(JOBS, tmp_path))
    assert one.state == PROBLEM and one.found == "it does not answer: no answer within 0.3 seconds"


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (one,) = slurm.check(looking(JOBS, tmp_path))
    assert one.state == PROBLEM and "its commands are not here" in one.found
    (one,) = slurm.check(looking('name = "Here"', tmp_path))
    assert one.state == OK


def test_what_scontrol_says_of_nodes() -> None:
    line = (
        "NodeName=g1 Arch=x86_64 CoresPerSocket=8 CPUAlloc=0 CPUEfctv=16 CPUTot=16 CPULoad=0.01 "
        "AvailableFeatures=a100,milan ActiveFeatures=a100,milan Gres=gpu:a100:4(S:0-1),gpu:v100:2,tmpdisk:900G "
        "NodeAddr=g1 OS=Linux 5.14.0-1.el9 #1 SMP Fri Jan 1 RealMemory=512000 State=IDLE+DRAIN ThreadsPerCore=1 "
        "Partitions=gpu,gpu-short Reason=memory errors [root@2026-01-01T00:00:00]"
    )
    (node,) = slurm.read_nodes(line)
    assert (node.name, node.cpus, node.memory_mb, node.usable) == ("g1", 16, 512000, False)
    assert node.features == ("a100", "milan") and node.partitions == ("gpu", "gpu-short")
    assert node.gres == {"gpu": 6, "gpu:a100": 4, "gpu:v100": 2, "tmpdisk": 900}
    assert slurm.gres("(null)") == {} and slurm.gres("gpu:2") == {"gpu": 2} and slurm.gres("gpu") == {"gpu": 1}
    assert slurm.gres("gpu:1g.10gb:7") == {"gpu": 7, "gpu:1g.10gb": 7}
    assert slurm.records(line)[0]["Reason"].startswith("memory errors")


# ------------------------------------------------------------------ a centre: modules, portal, what is left behind


def deployed(folder: Path) -> str:
    """A site's file, and what `kuulo deploy` would have made of it."""
    for part in (folder, folder.parent, folder.parent.parent):
        part.chmod(0o755)
    version = folder / "kuulo" / "versions" / "1.0"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text('{"files": {}}')
    (folder / "kuulo" / "current").symlink_to("versions/1.0")
    module = folder / "modules" / "kuulo"
    module.mkdir(parents=True)
    (module / "1.0.lua").write_text('whatis("Name: kuulo")\n')
    return f'[deploy]\nfolder = "{folder}/kuulo"\nmodules = "{folder}/modules"\n'


def test_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/etc/profile.d/lmod.sh").exists():
        pytest.skip("needs Lmod")
    text = deployed(tmp_path)
    monkeypatch.setenv("MODULEPATH", f"/etc/lmod/modules:{tmp_path}/modules/")
    found = {f.name: f for f in modules.check(looking(text, tmp_path))}
    assert {f.state for f in found.values()} == {OK}, found
    assert found["module avail kuulo"].found == "kuulo/1.0"
    monkeypatch.setenv("MODULEPATH", "/etc/lmod/modules")
    found = {f.name: f for f in modules.check(looking(text, tmp_path))}
    assert found["MODULEPATH"].state == PROBLEM and found["MODULEPATH"].do.startswith(f"module use {tmp_path}/modules")
    (tmp_path / "modules" / "kuulo" / "1.0.lua").rename(tmp_path / "modules" / "kuulo" / "0.9.lua")
    found = {f.name: f for f in modules.check(looking(text, tmp_path))}
    assert found["module kuulo"].found == "1.0 is in use, and has no file; there are 0.9"


APP = {
    "manifest.yml": "name: Transcribe\ndescription: with Kuulo\nrole: batch_connect\n",
    "form.yml": "cluster: big\nform: [files]\nattributes: {}\n",
    "template/script.sh": "#!/bin/bash\nkuulo transcribe\n",
}


def test_the_portal_s_app(tmp_path: Path) -> None:
    text = f'[portal]\nfolder = "{tmp_path}/apps"\ncluster = "big"\n'
    app = tmp_path / "apps" / "transcribe it"
    (one,) = portal.check(looking(text, tmp_path))
    assert one.state == UNKNOWN and one.do
    for name, content in APP.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(content)
    (app / "template" / "script.sh").chmod(0o755)
    (one,) = portal.check(looking(text, tmp_path))
    assert (one.name, one.state) == ("transcribe it", OK)
    (app / "form.yml").write_text("cluster: small\n")
    (app / "template" / "script.sh").chmod(0o644)
    (one,) = portal.check(looking(text, tmp_path))
    assert one.found == "its form is for the cluster small; script.sh is not executable"
    (app / "form.yml").write_text("a: [\n")
    (one,) = portal.check(looking(text, tmp_path))
    assert one.state == PROBLEM and "not YAML" in one.found


def test_what_is_left_behind(tmp_path: Path) -> None:
    text = deployed(tmp_path)
    store, environments = tmp_path / "store", tmp_path / "environments"
    text = f'stores = ["{store}"]\nenvironments = ["{environments}"]\nscratch = ["{tmp_path}"]\n{text}'
    (one,) = leftovers.check(looking(text, tmp_path))
    assert one.state == OK and one.found.startswith("nothing is left")
    long_ago = time.time() - 3 * 86400
    for path in (
        store / ".staging" / "pull-1",
        environments / "whisperx" / "build-1",
        tmp_path / "kuulo" / "versions" / ".2.0.half",
        tmp_path / "kuulo-abc",
    ):
        path.mkdir(parents=True)
        os.utime(path, (long_ago, long_ago))
    (store / ".staging" / "of-today").mkdir()
    found = [f for f in leftovers.check(looking(text, tmp_path)) if f.state == WARNING]
    assert [f.found for f in found] == [
        "a build that is not in use: build-1",
        "pull-1, 3 days old",
        ".2.0.half, 3 days old",
        "1 folders of runs that were killed",
    ]


def test_the_version_in_use(tmp_path: Path) -> None:
    text = deployed(tmp_path)
    version = tmp_path / "kuulo" / "versions" / "1.0"
    (one,) = versions.check(looking(text, tmp_path))
    assert one.state == OK and one.found == "1.0, every file as it was written"
    (version / "by hand").touch()
    (one,) = versions.check(looking(text, tmp_path))
    assert one.state == WARNING and one.found == "1.0 was changed by hand: by hand"
    version.rename(tmp_path / "gone")
    (one,) = versions.check(looking(text, tmp_path))
    assert one.state == PROBLEM and one.found == "`current` leads to versions/1.0, which is gone"
    (tmp_path / "kuulo" / "current").unlink()
    (one,) = versions.check(looking(text, tmp_path))
    assert one.state == WARNING and one.do == "kuulo deploy apply"


def test_who_sends_mail(tmp_path: Path, user_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (one,) = mail.check(looking('[jobs]\nscheduler = "local"\n', tmp_path))
    assert one.name == "sendmail", "on this machine alone jobs have no scheduler that sends any"
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (tools / "sendmail").write_text("#!/bin/sh\n")
    (tools / "sendmail").chmod(0o755)
    (one,) = mail.check(looking('[jobs]\nmail = "sendmail"\n', tmp_path))
    assert one.state == OK and one.looked_at == str(tools / "sendmail")
    user_cluster.use(monkeypatch)
    (one,) = mail.check(looking('[jobs]\nscheduler = "slurm"\n', tmp_path))
    there = os.access("/bin/mail", os.X_OK)
    assert one.state == (OK if there else UNKNOWN) and one.found.startswith("Slurm sends it with /bin/mail")


def test_charliecloud_in_an_environment_without_a_user(
    tmp_path: Path, needs_program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_program("ch-run")
    monkeypatch.delenv("USER", raising=False)
    text = f'images = "{tmp_path}"\ncontainer = "charliecloud"\n'
    found = {f.name: f for f in containers.check(looking(text, tmp_path))}
    assert found["charliecloud"].state == OK, found
    assert found["user namespaces"].state in (OK, PROBLEM) and found["user namespaces"].looked_at
    (one,) = containers.check(looking('name = "Without images"\n', tmp_path))
    assert one.state == OK and "no container is needed" in one.found
