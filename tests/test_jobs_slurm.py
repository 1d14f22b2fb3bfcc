"""Jobs on a real Slurm of several nodes, as an ordinary user: submitted, disturbed in every way, and true in the end.

The engine `null` says a sentence for each 30 s of sound and waits as long as it is told to.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import recordings
from kuulo.jobs.folder import Folder

KUULO = [sys.executable, "-P", "-m", "kuulo"]
ODD = ["a b'c\"d.wav", "$(touch x)%a.wav", "new\nline\\.wav", "-o.wav", "ä\udcff.wav", "*.wav"]
SMALL = ["--cpus", "1", "--mem", "300M", "--time", "10", "--no-cut"]


class Home:
    """A folder of the cluster's user, with recordings, and `kuulo` in it."""

    def __init__(self, cluster: Any) -> None:
        self.cluster, self.folder = cluster, cluster.folder()
        self.environ = {"KUULO_JOBS": str(self.folder / "jobs"), "HOME": str(self.folder)}
        self.input, self.output = self.folder / "in", self.folder / "out"
        self.input.mkdir()

    def own(self) -> None:
        """What pytest made as root is the user's."""
        owner = self.folder.stat()
        for path in (self.input, *self.input.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)

    def silence(self, *names: str, seconds: float = 45) -> None:
        for name in names:
            recordings.wav(self.input / name, recordings.tone(seconds, rate=8000) * 0, 8000)
        self.own()

    def kuulo(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = self.cluster.run(
            [*KUULO, *words], cwd=self.folder, env={**self.environ, **environ}
        )
        return done

    def submit(self, *words: str, engine: Sequence[str] = (), wait_ms: int = 0) -> Folder:
        raw = [w for option in (f"wait_ms={wait_ms}", *engine) for w in ("--engine-option", option)]
        done = self.kuulo("submit", "in", "-e", "null", "-o", "out", *raw, *SMALL, "--json", *words)
        assert done.returncode == 0, done.stderr
        return Folder(Path(json.loads(done.stdout)["folder"]))

    def slurm(self, *words: str) -> str:
        done = self.cluster.run(list(words), cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def segments(self, stem: str) -> Any:
        return json.loads((self.output / f"{stem}.json").read_text())["segments"]


@pytest.fixture
def home(user_cluster: Any) -> Iterator[Home]:
    yield Home(user_cluster)
    user_cluster.run(["scancel", "--full", "--me"])
    user_cluster.wait_until_empty()


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)
    return found


def ended(job: Folder, seconds: float = 90.0) -> dict[str, Any]:
    """The report of a job, once it is over."""
    found: dict[str, Any] = until(job.report, seconds)
    return found


def events(job: Folder, task: int, kind: str) -> list[dict[str, Any]]:
    return [event for event in job.events(task) if event["type"] == kind]


def kept_ms(home: Home) -> int:
    """How far the furthest journal is."""
    last = 0
    for path in (home.output / ".kuulo" / "partial").glob("*.jsonl"):
        last = max([last, *(json.loads(x)["at_ms"] for x in path.read_bytes().splitlines() if b'"checkpoint"' in x)])
    return last


def logs(job: Folder) -> str:
    return "\n".join(path.read_text(errors="replace") for path in sorted((job.path / "logs").iterdir()))


def test_a_folder_of_recordings_with_odd_names(home: Home) -> None:
    home.silence(*ODD)
    (home.input / "bad.wav").write_bytes(b"no sound")
    home.own()
    job = home.submit()
    report = ended(job)
    assert report["counts"] == {"done": len(ODD), "skipped": 0, "failed": 1, "stopped": 0}, logs(job)
    assert {path.name for path in home.output.glob("*.txt")} == {Path(name).stem + ".txt" for name in ODD}
    assert not list(home.folder.rglob("x")), "a file's name is no command"
    (round_,) = job.rounds()
    # The report is written a moment before the job ends: FAILED, since one of what was named is no recording.
    until(lambda: "JobState=FAILED " in home.slurm("scontrol", "-o", "show", "job", round_.finish))
    assert "ExitCode=1:0" in home.slurm("scontrol", "-o", "show", "job", round_.finish)
    assert "JobState=COMPLETED" in home.slurm("scontrol", "-o", "show", "job", round_.array)
    assert "Window" not in logs(job)


def test_the_script_can_be_submitted_by_hand(home: Home) -> None:
    home.silence("one.wav")
    job = home.submit("--array-limit", "1")
    ended(job)
    (home.output / "one.txt").unlink()
    (home.output / "one.json").unlink()
    shutil.rmtree(job.path / "tasks")
    (job.path / "tasks").mkdir(mode=0o700)
    os.chown(job.path / "tasks", job.path.stat().st_uid, job.path.stat().st_gid)
    done = home.cluster.run(["sbatch", "--wait", "job-1.sh"], cwd=job.path)
    assert done.returncode == 0, done.stderr
    assert (home.output / "one.txt").exists()


def test_told_that_time_is_over_it_goes_on_inside_the_recording(home: Home) -> None:
    home.silence("long.wav", seconds=1200)
    job = home.submit(wait_ms=150)
    until(lambda: kept_ms(home) > 60_000)
    (round_,) = job.rounds()
    home.slurm("scancel", "--batch", "--signal=USR1", f"{round_.array}_0")
    report = ended(job)
    assert report["counts"]["done"] == 1, logs(job)
    lives = events(job, 0, "starts")
    assert [life["restart"] for life in lives] == [0, 1], "in the same job, by requeue"
    assert events(job, 0, "begins")[1]["done"] > 60_000
    assert len(job.rounds()) == 1
    disturbed = home.segments("long")
    (home.output / "long.json").unlink()
    ended(home.submit("--overwrite"))
    assert disturbed == home.segments("long")


def test_killed_it_goes_on_in_the_next_round(home: Home) -> None:
    """SIGKILL to the task itself, at any moment."""
    home.silence("long.wav", "other.wav", seconds=900)
    job = home.submit("--mail", "me@uni.example", wait_ms=150)
    until(lambda: kept_ms(home) > 60_000)
    first = until(lambda: events(job, 0, "begins"))
    home.slurm("kill", "-9", str(events(job, 0, "starts")[0]["pid"]))
    report = ended(job)
    assert report["counts"]["done"] == 2, logs(job)
    second = job.rounds()[1]
    assert (second.tasks, second.asked_by, second.why) == ((0,), "finish", "1 task was killed")
    assert events(job, 0, "begins")[1]["done"] >= first[0]["done"]
    assert len(home.segments("long")) == len(home.segments("other")) == 30
    mails = [home.slurm("scontrol", "-o", "show", "job", round_.finish) for round_ in job.rounds()]
    assert "MailType" not in mails[0], "of two rounds, one mail"
    assert "MailUser=me@uni.example MailType=END,FAIL" in mails[1]


def test_cancelled_and_retried(home: Home) -> None:
    home.silence("long.wav", seconds=1500)
    job = home.submit(wait_ms=200)
    until(lambda: kept_ms(home) > 60_000)
    assert "was cancelled" in home.kuulo("jobs", "cancel", job.name).stdout
    until(lambda: json.loads(home.kuulo("jobs", "show", job.name, "--json").stdout)["state"] == "cancelled")
    assert job.report() is None
    retried = home.kuulo("jobs", "retry", job.name, "--mem", "400M")
    assert retried.returncode == 0, retried.stderr
    assert home.kuulo("jobs", "wait", job.name, "-q").returncode == 0
    assert job.rounds()[1].resources.memory_mb == 400
    assert events(job, 0, "begins")[1]["done"] > 60_000
    assert len(home.segments("long")) == 50


def test_kills_of_an_engine_and_of_a_nodes_daemon(home: Home) -> None:
    """The engine's process is killed: another goes on. Slurm's daemon on the node is killed: the job runs on."""
    home.silence("long.wav", seconds=1500)
    job = home.submit(wait_ms=200)
    until(lambda: kept_ms(home) > 60_000)
    (life,) = events(job, 0, "starts")
    engine = Path(f"/proc/{life['pid']}/task/{life['pid']}/children").read_text().split()
    home.slurm("kill", "-9", *engine)
    home.cluster.kill_slurmd(life["node"])
    try:
        before = kept_ms(home)
        until(lambda: kept_ms(home) > before + 60_000)
    finally:
        home.cluster.start_slurmd(life["node"])
    assert ended(job)["counts"]["done"] == 1, logs(job)
    assert "the engine was killed (SIGKILL" in logs(job)
    assert len(home.segments("long")) == 50


def test_a_node_that_fails_takes_nothing_with_it(home: Home) -> None:
    home.silence("long.wav", seconds=1500)
    job = home.submit(wait_ms=200)
    until(lambda: kept_ms(home) > 60_000)
    node = events(job, 0, "starts")[0]["node"]
    home.cluster.fail_node(node)
    try:
        report = ended(job, 150)
    finally:
        home.cluster.start_slurmd(node)
    assert report["counts"]["done"] == 1, logs(job)
    lives = events(job, 0, "starts")
    assert len(lives) == 2 and lives[1]["node"] != node
    assert events(job, 0, "begins")[1]["done"] > 60_000
    assert len(home.segments("long")) == 50


def test_who_needs_the_node_more_gets_it_and_the_work_goes_on(home: Home) -> None:
    """Preemption: warned by the signal, queued again, and it goes on where it was."""
    home.silence("long.wav", seconds=1500)
    job = home.submit("--slurm", "exclusive=", wait_ms=200)
    until(lambda: kept_ms(home) > 60_000)
    node = events(job, 0, "starts")[0]["node"]
    words = ["sbatch", "--parsable", "-p", "urgent", "-w", node, "--exclusive", "--wrap", "sleep 2"]
    home.slurm(*words, "-o", "/dev/null")
    report = ended(job, 150)
    assert report["counts"]["done"] == 1, logs(job)
    assert len(events(job, 0, "starts")) == 2
    assert len(home.segments("long")) == 50


def test_killed_for_lack_of_memory_it_gets_more_once(root_cluster: Any) -> None:
    home = Home(root_cluster)
    home.silence("big.wav", "bigger.wav")
    job = home.submit(engine=["memory_mb=400"])
    report = ended(job)
    assert report["counts"]["done"] == 2, logs(job)
    first, second = job.rounds()
    assert second.resources.memory_mb == 2 * first.resources.memory_mb
    assert "lack of memory" in second.why


def test_lack_of_memory_has_an_end(root_cluster: Any) -> None:
    home = Home(root_cluster)
    home.silence("big.wav")
    job = home.submit(engine=["memory_mb=2000"])
    report = ended(job)
    assert report["counts"]["failed"] == 1, logs(job)
    assert len(job.rounds()) == 2
    (found,) = report["files"]
    assert "memory" in found["why"] and f"kuulo jobs retry {job.name} --mem" in found["do"]


def test_two_submits_of_one_folder_do_not_do_the_work_twice(home: Home) -> None:
    home.silence("a.wav", "b.wav", seconds=600)
    job = home.submit(wait_ms=200)
    home.silence("c.wav")
    again = home.kuulo("submit", "in", "-e", "null", "-o", "out", "--engine-option", "wait_ms=200", *SMALL, "--json")
    said = json.loads(again.stdout)
    assert (said["busy"], said["recordings"]) == ({job.name: 2}, 1), again.stderr
    other = home.kuulo("submit", "in", "-e", "null", "-o", "out", *SMALL)
    assert other.returncode == 2 and "making other transcripts" in other.stderr
    ended(job)
    ended(Folder(Path(said["folder"])))
    third = home.kuulo("submit", "in", "-e", "null", "-o", "out", "--engine-option", "wait_ms=200", *SMALL, "--json")
    assert json.loads(third.stdout)["job"] is None and json.loads(third.stdout)["done"] == 3


def test_what_changes_between_submit_and_run(home: Home) -> None:
    """One goes, one is changed, one comes: the job does what it was given, and says what is not as it was."""
    home.silence("gone.wav", "changed.wav")
    job = home.submit("--slurm", "begin=now+4")
    home.silence("came.wav")
    home.silence("changed.wav", seconds=61)
    (home.input / "gone.wav").unlink()
    report = ended(job)
    files = {Path(f["source"]).name: f for f in report["files"]}
    assert {name: f["state"] for name, f in files.items()} == {"gone.wav": "failed", "changed.wav": "done"}
    assert files["gone.wav"]["why"] == "there is no such file"
    assert "changed after the job was submitted" in files["changed.wav"]["warning"]
    assert len(home.segments("changed")) == 3


def test_two_thousand_recordings_in_one_array(home: Home) -> None:
    home.silence("r0.wav", seconds=1)
    for number in range(1, 2000):
        shutil.copyfile(home.input / "r0.wav", home.input / f"r{number}.wav")
    job = home.submit()
    (round_,) = job.rounds()
    assert round_.array.isdigit()
    report = ended(job, 240)
    assert report["counts"]["done"] == 2000, logs(job)
    assert len(list(home.output.glob("*.txt"))) == 2000


def test_a_folder_of_a_job_that_is_deleted_takes_no_transcript_with_it(home: Home) -> None:
    home.silence("long.wav", seconds=600)
    job = home.submit(wait_ms=200)
    until(lambda: kept_ms(home) > 60_000)
    shutil.rmtree(job.path)
    until((home.output / "long.txt").exists)
    assert len(home.segments("long")) == 20
    again = home.kuulo("submit", "in", "-e", "null", "-o", "out", "--engine-option", "wait_ms=200", *SMALL, "--json")
    assert json.loads(again.stdout)["job"] is None, again.stderr


def test_a_disk_that_is_full(home: Home) -> None:
    """The output's: what could not be written is said, and is done by a retry when there is room."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    home.silence("one.wav", seconds=3000)
    home.output.mkdir()
    uid = home.folder.stat().st_uid
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=16k,uid={uid}", "tmpfs", str(home.output)], check=True)
    try:
        report = ended(home.submit("--word-times"))
        assert report["counts"]["failed"] == 1
        assert "No space left" in report["files"][0]["why"] and "free some space" in report["files"][0]["do"]
    finally:
        subprocess.run(["umount", "-l", str(home.output)], check=True)


def test_a_long_recording_is_heard_by_several_tasks_and_joined(home: Home) -> None:
    home.silence("long.wav", "short.wav", seconds=60)
    home.silence("long.wav", seconds=7200)
    job = home.submit("--task-time", "1", "--cut", wait_ms=1)
    report = ended(job, 120)
    assert report["counts"]["done"] == 2, logs(job)
    segments = home.segments("long")
    assert segments[0]["start_ms"] == 0 and segments[-1]["end_ms"] == 7_200_000
    assert all(a["end_ms"] == b["start_ms"] for a, b in itertools.pairwise(segments))
    until(lambda: not list((home.output / ".kuulo" / "partial").iterdir()))


def test_dry_run_shows_the_plan_and_queues_nothing(home: Home) -> None:
    home.silence("one.wav", seconds=600)
    done = home.kuulo("submit", "in", "-e", "null", "-o", "out", *SMALL, "--test-only", "--slurm", "nice=10")
    assert done.returncode == 0, done.stderr
    for text in ("#SBATCH --nice=10", "sbatch --parsable", "when it would start", "300 MB", "0:10:00", "10.0 min"):
        assert text in done.stdout, (text, done.stdout)
    long = home.kuulo("submit", "in", "-e", "null", "-o", "out", "--time", "2-00:00:00")
    assert long.returncode == 2 and "more than the partition allows, 1:00:00" in long.stderr
    assert not list((home.folder / "jobs").glob("*"))
    assert home.slurm("squeue", "-h") == ""


def test_commands_of_slurm_that_fail(home: Home) -> None:
    """Nothing is queued, nothing is left behind, and who submits is told which command it was."""
    home.silence("one.wav")
    fake = home.folder / "bin"
    fake.mkdir()
    (fake / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: no' >&2\nexit 1\n")
    (fake / "sbatch").chmod(0o755)
    path = f"{fake}:{home.cluster.environ['PATH']}"
    done = home.kuulo("submit", "in", "-e", "null", "-o", "out", *SMALL, PATH=path)
    assert done.returncode == 3 and "sbatch" in done.stderr, done.stderr
    assert not list((home.folder / "jobs").iterdir())
    assert ended(home.submit())["counts"]["done"] == 1


def test_srun_gives_what_it_gives(home: Home) -> None:
    """`srun kuulo transcribe` takes the cores that it was given and stops in good order when it is told to."""
    home.silence("one.wav", seconds=600)
    words = ["srun", "-n1", "-c1", *KUULO, "transcribe", "in", "-e", "null", "-o", "out", "--json"]
    done = home.cluster.run(words, cwd=home.folder, env=home.environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["workers"] == 1
    assert len(home.segments("one")) == 20
    process = subprocess.Popen([*KUULO, "transcribe", "--help"], stdout=subprocess.DEVNULL)
    process.send_signal(signal.SIGUSR1)
    process.wait()
