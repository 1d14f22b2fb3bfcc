"""`kuulo submit`, `jobs`, `usage` and `calibrate`, with the queue of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import recordings

Kuulo = Callable[..., subprocess.CompletedProcess[str]]
SUBMIT = ("submit", "in", "-e", "null", "-o", "out", "--scheduler", "local")


@pytest.fixture
def kuulo_environment(kuulo_environment: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """With a queue of this test's own, of which nothing runs afterwards."""
    (tmp_path / "run").mkdir()
    yield {**kuulo_environment, "XDG_RUNTIME_DIR": str(tmp_path / "run"), "KUULO_JOBS": str(tmp_path / "jobs")}
    for path in (tmp_path / "jobs").glob("*/logs/*.queue.json"):
        said = json.loads(path.read_bytes())
        for pid, _ in [said["server"], *(t["process"] for t in said["tasks"].values() if "process" in t)]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def silence(tmp_path: Path, *names: str, seconds: float = 45) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    for name in names:
        recordings.wav(tmp_path / "in" / name, recordings.tone(seconds, rate=8000) * 0, 8000)


def until(what: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


def state(kuulo: Kuulo, job: str = "k1") -> str:
    return str(json.loads(kuulo("jobs", "show", job, "--json").stdout)["state"])


def test_a_folder_is_done_and_told_of(kuulo: Kuulo, tmp_path: Path) -> None:
    silence(tmp_path, "a.wav", "b $(x) ä\n.wav")
    (tmp_path / "in" / "bad.wav").write_bytes(b"no sound")
    submitted = kuulo(*SUBMIT)
    assert submitted.returncode == 0, submitted.stderr
    assert "job k1: 2 recordings in 1 task" in submitted.stdout
    assert "left out: in/bad.wav" in submitted.stderr or "bad.wav: it is not audio" in submitted.stderr
    waited = kuulo("jobs", "wait", "k1")
    assert waited.returncode == 1, "one of what was named is no recording"
    assert "job k1: failed (1 failed); 2 of 3 done, 1 failed, 100% heard" in waited.stderr
    listed = kuulo("jobs")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["job", "k1"]
    shown = kuulo("jobs", "show", "1").stdout
    assert "\\n.wav" in shown and "FFmpeg's libraries" in shown
    said = json.loads(kuulo("jobs", "show", "k1", "--json").stdout)
    assert [file["state"] for file in said["files"]] == ["done", "done", "failed"]
    assert "2 done, 1 failed" in kuulo("jobs", "logs", "k1").stdout
    of_one = kuulo("jobs", "logs", "k1", "b $(x) ä\\n.wav", "--engine", "--follow").stdout
    assert [line for line in of_one.splitlines() if line.startswith("== ")] == ["== round1-0.txt", "== 0.log"]
    none = kuulo("jobs", "logs", "k1", "c.wav")
    assert none.returncode == 2 and "has no recording 'c.wav'" in none.stderr
    assert len(list((tmp_path / "out").glob("*.srt"))) == 2


def test_nothing_twice(kuulo: Kuulo, tmp_path: Path) -> None:
    silence(tmp_path, "a.wav", seconds=600)
    assert kuulo(*SUBMIT, "--engine-option", "wait_ms=200", "--no-cut").returncode == 0
    again = kuulo(*SUBMIT, "--engine-option", "wait_ms=200", "--no-cut")
    assert "1 are in the hands of job k1 already" in again.stderr and "nothing is left" in again.stderr
    assert kuulo("jobs", "wait", "k1").returncode == 0
    last = kuulo(*SUBMIT, "--engine-option", "wait_ms=200")
    assert last.returncode == 0 and "1 have their results already" in last.stderr
    assert len(list((tmp_path / "jobs").iterdir())) == 1


def test_cancelled_retried_and_done(kuulo: Kuulo, tmp_path: Path) -> None:
    silence(tmp_path, "a.wav", seconds=900)
    assert kuulo(*SUBMIT, "--engine-option", "wait_ms=400", "--no-cut").returncode == 0
    until(lambda: list((tmp_path / "out" / ".kuulo" / "partial").glob("*")))
    refused = kuulo("jobs", "retry", "k1")
    assert refused.returncode == 2 and "is not over" in refused.stderr
    assert kuulo("jobs", "remove", "k1").returncode == 2
    until(lambda: json.loads(kuulo("jobs", "show", "k1", "--json").stdout)["done_ms"] > 0)
    assert "was cancelled: 0 of 1 are done" in kuulo("jobs", "cancel", "k1").stdout
    assert state(kuulo) == "cancelled"
    assert "is over already" in kuulo("jobs", "cancel", "k1").stdout
    assert kuulo("jobs", "wait", "k1").returncode == 1
    retried = kuulo("jobs", "retry", "k1", "--time", "1:00:00", "--mem", "2G", "--json")
    assert json.loads(retried.stdout)["tasks"] == 1
    assert kuulo("jobs", "wait", "k1", "-q").returncode == 0
    read = json.loads((tmp_path / "out" / "a.json").read_text())
    assert len(read["segments"]) == 30 and read["provenance"]["resumed"] > 0
    round_ = json.loads((tmp_path / "jobs" / "k1" / "round-2.json").read_text())
    assert (round_["resources"]["minutes"], round_["resources"]["memory_mb"]) == (60, 2048)
    assert kuulo("jobs", "retry", "k1").returncode == 2, "nothing is left to do"
    assert kuulo("jobs", "remove", "k1").returncode == 0
    assert not list((tmp_path / "jobs").iterdir()) and (tmp_path / "out" / "a.json").exists()


def test_the_queue_that_is_killed_is_told_of_and_the_job_goes_on(kuulo: Kuulo, tmp_path: Path) -> None:
    silence(tmp_path, "a.wav", seconds=1800)
    assert kuulo(*SUBMIT, "--engine-option", "wait_ms=150", "--no-cut").returncode == 0
    until(lambda: list((tmp_path / "out" / ".kuulo" / "partial").glob("*")))
    for path in (tmp_path / "jobs" / "k1" / "logs").glob("*.queue.json"):
        os.kill(json.loads(path.read_bytes())["server"][0], signal.SIGKILL)
    assert state(kuulo) == "running", "its task goes on"
    task = json.loads((tmp_path / "jobs" / "k1" / "logs" / "job-1.queue.json").read_bytes())["tasks"]["0"]
    os.killpg(task["process"][0], signal.SIGKILL)
    until(lambda: state(kuulo) == "stopped")
    assert kuulo("jobs", "retry", "k1").returncode == 0
    assert kuulo("jobs", "wait", "k1", "-q").returncode == 0
    assert len(json.loads((tmp_path / "out" / "a.json").read_text())["segments"]) == 60


def test_waiting_following_and_what_can_be_cancelled(
    kuulo: Kuulo, kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path
) -> None:
    silence(tmp_path, "a.wav", seconds=1800)
    assert kuulo(*SUBMIT, "--engine-option", "wait_ms=2000", "--no-cut").returncode == 0
    until(lambda: state(kuulo) == "running")
    late = kuulo("jobs", "wait", "k1", "--timeout", "2")
    assert late.returncode == 3 and "is not over after 2 s: running" in late.stderr
    assert len([line for line in late.stderr.splitlines() if line.startswith("job k1: running")]) == 1, "no terminal"
    both = [
        subprocess.Popen(
            [*kuulo_command, "jobs", *words], cwd=tmp_path, env=kuulo_environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
        )
        for words in (("wait", "k1"), ("logs", "k1", "--follow"))
    ]  # fmt: skip
    assert both[0].stderr is not None and both[0].stderr.readline().startswith("job k1: running")
    both[0].send_signal(signal.SIGINT)
    both[0].communicate(timeout=30)
    assert both[0].returncode == 130 and state(kuulo) == "running", "only the waiting was ended"
    plan = json.loads((tmp_path / "jobs" / "k1" / "plan.json").read_text())
    (tmp_path / "jobs" / "k1" / "plan.json").write_text(json.dumps({**plan, "schema": 0}))  # of another version
    assert state(kuulo) == "damaged"
    cancelled = kuulo("jobs", "cancel", "k1", "--json")
    assert json.loads(cancelled.stdout) == [{"job": "k1", "cancelled": True, "state": "cancelled"}]
    (tmp_path / "jobs" / "k1" / "plan.json").write_text(json.dumps(plan))
    assert state(kuulo) == "cancelled"
    followed, _ = both[1].communicate(timeout=60)
    assert both[1].returncode == 0 and followed.startswith("== ")
    assert json.loads(kuulo("jobs", "remove", "k1", "--json").stdout)[0]["job"] == "k1"


def test_two_jobs_take_turns(kuulo: Kuulo, tmp_path: Path) -> None:
    """One task at a time on this machine, whatever the jobs."""
    silence(tmp_path, "a.wav", seconds=150)
    wait = ("--engine-option", "wait_ms=1500")
    assert kuulo(*SUBMIT, *wait).returncode == 0
    assert kuulo("submit", "in", "-e", "null", "-o", "other", "--scheduler", "local", *wait).returncode == 0
    until(lambda: state(kuulo) == "running")
    assert state(kuulo, "k2") == "waiting"
    assert "other tasks of yours" in kuulo("jobs", "show", "k2").stdout
    assert kuulo("jobs", "wait", "k1", "k2", "-q").returncode == 0


def test_a_job_that_is_damaged_is_shown_as_that(kuulo: Kuulo, tmp_path: Path) -> None:
    silence(tmp_path, "a.wav")
    assert kuulo(*SUBMIT).returncode == 0
    assert kuulo("jobs", "wait", "k1", "-q").returncode == 0
    (tmp_path / "jobs" / "k1" / "plan.json").write_text("{")
    assert "damaged" in kuulo("jobs").stdout
    refused = kuulo("jobs", "cancel", "k1")
    assert refused.returncode == 3 and "does not say who runs it" in refused.stderr
    unknown = kuulo("jobs", "show", "k9")
    assert unknown.returncode == 2 and "there is no job k9" in unknown.stderr


def test_without_jobs(kuulo: Kuulo) -> None:
    assert "no job is in" in kuulo("jobs").stdout
    assert json.loads(kuulo("jobs", "--json").stdout) == []
    assert "total" in kuulo("usage").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("submit",), "no recording was named"),
        (("submit", "-", "--scheduler", "local"), "standard input cannot be submitted"),
        ((*SUBMIT, "--slurm", "a b=c"), "is not KEY=VALUE"),
        ((*SUBMIT, "--time", "soon"), "is not a time"),
        ((*SUBMIT, "--mem", "much"), "is not a size"),
        ((*SUBMIT, "--skip", "--overwrite"), "one at most"),
        (("submit", "in", "--scheduler", "pbs", "-e", "null"), "there is no scheduler 'pbs'"),
    ],
)
def test_what_cannot_be_submitted(kuulo: Kuulo, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    silence(tmp_path, "a.wav")
    done = kuulo(*words)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (tmp_path / "jobs").exists() or not list((tmp_path / "jobs").iterdir())


def test_dry_run_says_all_and_does_nothing(kuulo: Kuulo, tmp_path: Path) -> None:
    silence(tmp_path, "a.wav", seconds=90)
    done = kuulo(*SUBMIT, "--dry-run", "--time", "30", "--mem", "5G")
    assert done.returncode == 0, done.stderr
    for text in (
        "1, 1.5 min of sound",
        "a guess",
        "0:30:00 each: as asked for",
        "5120 MB",
        "#!/bin/bash",
        "bash job-1.sh",
    ):
        assert text in done.stdout, (text, done.stdout)
    said = json.loads(kuulo(*SUBMIT, "--dry-run", "--json").stdout)
    assert said["pace"]["source"] == "guess" and said["tasks"] == [[said["tasks"][0][0]]]
    assert not (tmp_path / "out").exists() and not (tmp_path / "jobs").exists()


def test_what_was_measured_is_planned_with(kuulo: Kuulo, tmp_path: Path) -> None:
    measured = kuulo("calibrate", "-m", "miniature", "--minutes", "0.6", "--scheduler", "local", "--table", "site.json")
    assert measured.returncode == 0, measured.stderr
    assert "faster-whisper" in measured.stdout and "written to site.json" in measured.stdout
    (one,) = json.loads((tmp_path / "site.json").read_text())["observations"]
    assert (one["by"], one["work"]["model"], one["place"]) == ("calibrate", "miniature", "local")
    assert one["speed"] > 1 and one["memory_bytes"] > 10**8
    silence(tmp_path, "a.wav")
    planned = kuulo("submit", "in", "-m", "miniature", "--scheduler", "local", "--dry-run").stdout
    assert "measured once there" in planned
    assert kuulo("submit", "in", "-m", "miniature", "--scheduler", "local").returncode == 0
    assert kuulo("jobs", "wait", "2", "-q").returncode == 0
    used = json.loads(kuulo("usage", "--json").stdout)
    assert used["total"]["jobs"] == 2 and used["jobs"]["k2"]["audio_h"] == pytest.approx(45 / 3600, abs=0.001)
    assert used["jobs"]["k2"]["time_used_of_asked"] > 0
    assert json.loads(kuulo("usage", "--since", "2999-01-01", "--json").stdout)["jobs"] == {}
    assert kuulo("usage", "--since", "soon").returncode == 2


def test_the_sites_table_is_read(kuulo: Kuulo, tmp_path: Path) -> None:
    work = {"engine": "null", "model": "", "device": "cpu", "cpus": 2, "diarizer": "", "batch_size": 1}
    one = {"work": work, "speed": 33.0, "load_s": 1.0, "memory_bytes": 10**9, "audio_s": 600.0, "place": "local"}
    one |= {"node": "x", "at": "2026-11-23", "by": "calibrate"}
    (tmp_path / "speeds.json").write_text(json.dumps({"schema": 1, "observations": [one]}))
    (tmp_path / "site.toml").write_text(
        f"speeds = '{tmp_path / 'speeds.json'}'\n[jobs]\nscheduler = 'local'\ntask_minutes = 20\n[jobs.cpu]\ncpus = 2\n"
    )
    site = {"KUULO_SITE": str(tmp_path / "site.toml")}
    silence(tmp_path, "a.wav")
    shown = kuulo("submit", "in", "-e", "null", "--dry-run", env=site).stdout
    assert "33 times real time: measured once there" in shown
    (tmp_path / "site.toml").write_text("[jobs]\nschedular = 'local'\n")
    wrong = kuulo("submit", "in", "-e", "null", "--dry-run", env=site)
    assert wrong.returncode == 2 and "[jobs] has no key 'schedular'" in wrong.stderr
