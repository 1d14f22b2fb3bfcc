"""`kuulo selftest`: real engines and workers, an imagined GPU, a real Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kuulo import engines, nvml, survey
from kuulo import site as sites
from kuulo.selftest import nodes, trial, watching
from kuulo.selftest.pipelines import Pipeline
from kuulo.selftest.watching import Seen, Watch

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parent.parent


def path(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT / 'src'}:{folder}"}


def told(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The outcomes of the one machine."""
    said = json.loads(done.stdout)
    assert said["schema"] == 1 and len(said["nodes"]) == 1
    outcomes: list[dict[str, Any]] = said["nodes"][0]["outcomes"]
    return outcomes


def stage(outcome: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [s for s in outcome["stages"] if s["name"] == name]
    return dict(found)


def files(*folders: str | Path) -> set[str]:
    return {str(path) for folder in folders for path in Path(folder).rglob("*")}


# ------------------------------------------------------------------ engines


def test_an_engine_goes_through_all_stages_and_leaves_nothing(kuulo: Kuulo, kuulo_environment: dict[str, str]) -> None:
    places = [kuulo_environment["HOME"], kuulo_environment["TMPDIR"]]
    before = files(*places)
    done = kuulo("selftest", "-e", "faster-whisper", "-e", "resemblyzer", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    alone, beside = told(done)
    assert (alone["engine"], alone["model"], alone["state"]) == ("faster-whisper", "miniature", "passed")
    assert [s["name"] for s in alone["stages"]] == ["engine", "speech detection", "words", "formats"]
    assert stage(alone, "words")["found"] == "6 of 6"
    assert beside["speaker_engine"] == "resemblyzer"
    assert stage(beside, "speakers")["ok"]
    assert files(*places) == before


def test_users_settings_change_nothing(kuulo: Kuulo, kuulo_environment: dict[str, str], imagined: Path) -> None:
    """What is tried is what is installed, not what somebody likes; forced values do not get into its way."""
    site = Path(kuulo_environment["HOME"]) / "site.toml"
    site.write_text('[forced]\nlanguage = "fi"\noutput = "/nowhere"\n[defaults]\nthreads = 1\nformat = ["txt"]\n')
    environ = {"KUULO_SITE": str(site), "KUULO_ENGINE": "pocketsphinx", "KUULO_TASK": "translate"}
    done = kuulo("selftest", "-e", "imagined", "--json", env={**path(imagined), **environ})
    assert done.returncode == 0, done.stdout + done.stderr
    assert stage(told(done)[0], "words")["found"] == "6 of 6"


def test_a_broken_environment_fails_and_the_others_go_on(
    kuulo: Kuulo, kuulo_environment: dict[str, str], imagined: Path
) -> None:
    folder = Path(kuulo_environment["HOME"]) / "environments" / "whisper-cpp"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{")
    environ = {"KUULO_ENVIRONMENTS": str(folder.parent), **path(imagined)}
    done = kuulo("selftest", "-e", "whisper-cpp", "-e", "imagined", env=environ)
    assert done.returncode == 1
    assert "failed   whisper-cpp" in done.stdout and "passed   imagined" in done.stdout
    assert f"looked at: {folder / 'state.json'}" in done.stdout
    assert "do: kuulo engines remove whisper-cpp" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 passed, 1 failed"


def test_without_its_model_it_fails(kuulo: Kuulo) -> None:
    done = kuulo("selftest", "-e", "faster-whisper", "-m", "large-v3", "--json")
    assert done.returncode == 3
    (one,) = told(done)
    assert one["state"] == "failed"
    assert "no store has the model large-v3" in stage(one, "engine")["found"]
    assert stage(one, "engine")["do"].startswith("kuulo models pull large-v3")


def test_other_words_are_a_failure(kuulo: Kuulo, imagined: Path) -> None:
    done = kuulo("selftest", "-e", "imagined", env={**path(imagined), "FAKE_ENGINE_SAYS": "Thank you for \x1b[2J it"})
    assert done.returncode == 3
    assert "words: 0 of 6: too few" in done.stdout
    assert "said: good morning mother always good coffee; heard: thank you for j it" in done.stdout
    assert "\x1b[2J" not in done.stdout


def test_what_does_not_end_is_ended(kuulo: Kuulo, kuulo_environment: dict[str, str], imagined: Path) -> None:
    code = "from kuulo.selftest import trial; trial.LIMIT_S = 1.5; from kuulo.cli import main; main()"
    environ = {**kuulo_environment, **path(imagined), "FAKE_ENGINE_SECONDS": "600"}
    command = [sys.executable, "-c", code, "selftest", "-e", "imagined"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "it was not done within 0 minutes, and was stopped" in done.stdout


def test_told_to_stop_it_leaves_nothing(
    kuulo_command: list[str], kuulo_environment: dict[str, str], imagined: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "hears"
    environ = {**kuulo_environment, **path(imagined), "FAKE_ENGINE_SECONDS": "600", "FAKE_ENGINE_MARK": str(mark)}
    command = [*kuulo_command, "selftest", "-e", "imagined"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        scratch = Path(environ["TMPDIR"])
        deadline = time.monotonic() + 60
        while not mark.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        workers = children(process.pid)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in said
    assert not list(scratch.iterdir())
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_names_that_nobody_has(kuulo: Kuulo) -> None:
    done = kuulo("selftest", "-e", "faster-wisper")
    assert done.returncode == 2 and "did you mean faster-whisper?" in done.stderr
    done = kuulo("selftest", "-e", "pyannote")
    assert done.returncode == 3 and "nothing to try" in done.stderr


def test_a_report_that_cannot_be_written_is_told(kuulo: Kuulo, imagined: Path, tmp_path: Path) -> None:
    done = kuulo("selftest", "-e", "imagined", "--report", tmp_path / "no" / "r.json", env=path(imagined))
    assert done.returncode == 3 and "the report cannot be written" in done.stderr


def test_who_tells_speakers_apart_alone(tmp_path: Path) -> None:
    """As it is tried where a GPU has to do it."""
    site = sites.Site()
    pipeline = Pipeline(survey.facts(site), engines.spec("resemblyzer"), speaker_engine="resemblyzer")
    outcome = trial.carry_out(pipeline, site, tmp_path)
    assert outcome.state == "passed", outcome
    assert [stage.name for stage in outcome.stages] == ["engine", "speakers", "formats"]
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ a GPU

GPU_CASES = {
    # FAKE_NVML: (good, what is said of it)
    "ours": (True, "GPU 0 Imagined GPU: our process had 2.1 GB, busy with it up to 61%"),
    "mig": (True, "GPU 0.0 Imagined GPU: our process had 2.1 GB, how busy it was the driver does not tell"),
    "idle": (False, "the CPU did the work: our process had 2.1 GB on GPU 0, and it was idle (busy up to 0%)"),
    "others": (False, "the CPU did the work: no process of this run had memory on a GPU"),
    "none": (False, "the CPU did the work: the driver shows no GPU"),
    "unloaded": (
        False,
        "the CPU did the work: the NVIDIA driver does not answer: nvmlInit_v2: the driver is not loaded",
    ),
}


def until(true: Callable[[], bool]) -> None:
    """Wait for it, and for the look at the GPU that goes on meanwhile."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(4 * watching.EVERY_S)


@pytest.mark.parametrize("case", GPU_CASES)
def test_the_gpu_has_to_do_the_work(nvml_library: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """As it is seen of a child of ours, while it runs."""
    monkeypatch.setenv("KUULO_NVML", str(nvml_library))
    monkeypatch.setenv("FAKE_NVML", case)
    watch = Watch()
    with subprocess.Popen(["sleep", "600"]) as child:
        watch.start()
        until(lambda: not watch.seen or any(seen.had and seen.used for seen in watch.seen.values()))
        watch.stop()
        child.kill()
    good, said = GPU_CASES[case]
    judged = watching.judge(watch, "cuda:0", hidden=False)
    assert (judged.ok, judged.found) == (good, said)
    assert judged.ok or judged.do


def test_a_whole_run_on_a_gpu(kuulo: Kuulo, imagined: Path, nvml_library: Path) -> None:
    environ = {**path(imagined), "KUULO_NVML": str(nvml_library), "FAKE_NVML": "ours"}
    done = kuulo("selftest", "-e", "imagined", "--gpu", "--json", env=environ)
    (one,) = told(done)
    assert stage(one, "GPU")["found"] == GPU_CASES["ours"][1]
    assert stage(one, "words")["found"] == "6 of 6 in the worst of 16 clips"
    assert done.returncode == 0


def test_a_driver_of_an_earlier_time(kuulo: Kuulo, imagined: Path, old_nvml_library: Path) -> None:
    """It has older forms of the functions, and does not tell how busy each process is."""
    environ = {**path(imagined), "KUULO_NVML": str(old_nvml_library), "FAKE_NVML": "ours"}
    done = kuulo("selftest", "-e", "imagined", "--gpu", "--json", env=environ)
    assert stage(told(done)[0], "GPU")["found"] == "GPU 0 Imagined GPU: our process had 2.1 GB, busy up to 73%"
    with nvml.Nvml(str(old_nvml_library)) as library:
        assert library.cuda() == (9, 1) and library.driver() == "550.54.15"


def test_an_engine_on_the_cpu_beside_a_busy_gpu(kuulo: Kuulo, nvml_library: Path) -> None:
    """A real engine, which says itself where it computed."""
    environ = {"KUULO_NVML": str(nvml_library), "FAKE_NVML": "ours"}
    done = kuulo("selftest", "-e", "faster-whisper", "--gpu", env=environ)
    assert done.returncode == 3
    assert "GPU: the CPU did the work: the engine says that its device was the CPU" in done.stdout


def test_without_a_driver(kuulo: Kuulo, imagined: Path) -> None:
    environ = {**path(imagined), "KUULO_NVML": "/nowhere/libnvidia-ml.so.1"}
    done = kuulo("selftest", "-e", "imagined", "-e", "pocketsphinx", "--gpu", "--json", env=environ)
    assert done.returncode == 3
    left_out, one = sorted(told(done), key=lambda o: str(o["engine"]), reverse=True)
    assert "no NVIDIA driver" in stage(one, "GPU")["found"]
    assert (left_out["engine"], left_out["state"]) == ("pocketsphinx", "left out")
    assert stage(left_out, "engine")["found"] == "it uses no GPU"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("stranger", "a process that came with this run had 2.1 GB"),
        ("hidden", "while it ran (processes are not shown here) there was taken 2.1 GB"),
    ],
)
def test_in_a_container_numbers_of_processes_are_others(
    nvml_library: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    words: str,
) -> None:
    monkeypatch.setenv("KUULO_NVML", str(nvml_library))
    monkeypatch.setenv("FAKE_NVML", case)
    watch = Watch()
    watch.start()
    until(lambda: any(seen.taken for seen in watch.seen.values()))
    watch.stop()
    inside = watching.judge(watch, "cuda:0", hidden=True)
    assert inside.ok and words in inside.found
    outside = watching.judge(watch, "cuda:0", hidden=False)
    assert not outside.ok and "the CPU did the work" in outside.found


def test_a_gpu_that_others_keep_busy_is_no_proof() -> None:
    gpu = nvml.Gpu(0, "G", "GPU-1", 80, 1)
    shared = Watch()
    shared.seen = {"GPU-1": Seen(gpu, had={7: 5, 8: 9}, ours={7}, busy=99, busy_by={8: 99})}
    said = watching.judge(shared, "cuda", hidden=False)
    assert not said.ok and "with others' processes" in said.found
    shared.seen["GPU-1"].busy_by = {}
    assert watching.judge(shared, "cuda", hidden=False).ok, "the driver does not tell whose work it is"


def test_children_of_children_are_ours() -> None:
    code = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('x', flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        (below,) = [int(p) for p in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
        assert watching.is_descendant(child.pid, os.getpid())
        assert watching.is_descendant(below, os.getpid())
        assert not watching.is_descendant(os.getppid(), os.getpid())
        assert not watching.is_descendant(os.getpid(), os.getpid())
        assert not watching.is_descendant(1, os.getpid())
        assert not watching.is_descendant(2**22 + 5, os.getpid())
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


# ------------------------------------------------------------------ on a cluster

SITE = """
[jobs]
folder = "{folder}/jobs"
scheduler = "slurm"
[jobs.cpu]
partition = "cpu"
cpus = 1
[jobs.gpu]
partition = "gpu"
gres = "{gres}"
cpus = 1
"""


class Home:
    """A folder of the cluster's user, with a site's file; `kuulo` on the cluster."""

    def __init__(self, cluster: Any, engine: Path, library: Path, gres: str = "gpu:fake") -> None:
        self.cluster, self.folder = cluster, cluster.folder()
        site = self.folder / "site.toml"
        site.write_text(SITE.format(folder=self.folder, gres=gres))
        self.environ = {
            "PYTHONPATH": f"{ROOT / 'src'}:{engine}",
            "KUULO_SITE": str(site),
            "KUULO_NVML": str(library),
            "FAKE_NVML": "ours",
            "COLUMNS": "100",
        }

    def kuulo(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = self.cluster.run(
            [sys.executable, "-m", "kuulo", *words], cwd=self.folder, env={**self.environ, **environ}
        )
        return done

    def left(self) -> Sequence[Path]:
        return sorted((self.folder / "jobs").glob("*"))


def test_on_slurm_each_kind_of_node_is_tried(user_cluster: Any, imagined: Path, nvml_library: Path) -> None:
    home = Home(user_cluster, imagined, nvml_library)
    done = home.kuulo("selftest", "--on", "slurm", "-e", "imagined", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    places = [(n["place"], n["kind"], n["host"]) for n in json.loads(done.stdout)["nodes"]]
    assert [place[:2] for place in places] == [("cpu", "1 gpu:fake"), ("cpu", "without GPU"), ("gpu", "1 gpu:fake")]
    said = json.loads(done.stdout)["nodes"]
    assert [len(n["outcomes"]) for n in said] == [1, 1, 1]
    assert [any(s["name"] == "GPU" for s in n["outcomes"][0]["stages"]) for n in said] == [False, False, True]
    assert home.left() == [], "jobs that went well leave nothing"


def test_on_slurm_a_gpu_that_does_nothing_is_told_with_its_node(
    user_cluster: Any,
    imagined: Path,
    nvml_library: Path,
) -> None:
    home = Home(user_cluster, imagined, nvml_library)
    done = home.kuulo("selftest", "--on", "slurm", "--gpu", "-e", "imagined", FAKE_NVML="idle")
    assert done.returncode == 3
    assert "[jobs.gpu] 1 gpu:fake: " in done.stdout and "[jobs.cpu]" not in done.stdout
    assert "GPU: the CPU did the work: our process had 2.1 GB on GPU 0, and it was idle" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed"
    (folder,) = home.left()
    assert (folder / "1-gpu" / "log.txt").exists(), "what failed is kept, to look at"


def test_on_slurm_a_job_without_a_report_says_why(user_cluster: Any, imagined: Path, nvml_library: Path) -> None:
    home = Home(user_cluster, imagined, nvml_library)
    done = home.cluster.run([sys.executable, "-c", WITH_A_PROGRAM_THAT_FAILS], cwd=home.folder, env=home.environ)
    assert "is over (FAILED" in done.stdout and "no such luck" in done.stdout, done.stdout + done.stderr


WITH_A_PROGRAM_THAT_FAILS = """
from kuulo import site
from kuulo.selftest import nodes
(node,) = nodes.run(site.load(), gpu=True, program=["sh", "-c", "echo no such luck; exit 7"])
print(node.why, node.looked_at)
"""


def test_on_slurm_what_waits_too_long_is_cancelled(
    user_cluster: Any,
    imagined: Path,
    nvml_library: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = Home(user_cluster, imagined, nvml_library)
    user_cluster.use(monkeypatch)
    for name, value in home.environ.items():
        monkeypatch.setenv(name, value)
    (node,) = nodes.run(sites.load(), engines=["imagined"], gpu=True, minutes=0, program=["sleep", "600"])
    assert not node.ok
    assert "after 0 minutes, and cancelled" in node.why and "--within" in node.do
    user_cluster.wait_until_empty()


def test_on_slurm_places_that_are_not_there(user_cluster: Any, imagined: Path, nvml_library: Path) -> None:
    home = Home(user_cluster, imagined, nvml_library, gres="gpu:h100")
    done = home.kuulo("selftest", "--on", "slurm", "--gpu")
    assert done.returncode == 2 and "no place in [jobs] has nodes to try with GPUs" in done.stderr
    site = Path(home.environ["KUULO_SITE"])
    site.write_text(site.read_text().replace('partition = "gpu"', 'partition = "gpuu"'))
    done = home.kuulo("selftest", "--on", "slurm")
    assert done.returncode == 2 and "[jobs.gpu]: there is no partition 'gpuu'" in done.stderr
