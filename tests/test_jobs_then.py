"""`kuulo submit --then`: a language model works on a job's transcripts when these are there, in its own submission."""

from __future__ import annotations

import json
import os
import signal
import types
from pathlib import Path
from typing import Any

import pytest

import recordings
from conftest import Kuulo
from kuulo import schedulers
from kuulo.cli import usage
from kuulo.jobs import overview, plan_file
from kuulo.jobs.batch import Batch
from kuulo.jobs.folder import Folder
from kuulo.schedulers.base import CANCELLED, RUNNING, WAITING, State, Usage
from test_jobs_slurm import Home, ended, home, until
from test_llm_batch_jobs import HERE, port_of, questions, standin

assert home  # the fixture

NULL = ["-e", "null", "--engine-option", "wait_ms=0", "-o", "out"]


@pytest.fixture
def answers(tmp_path: Path) -> tuple[str, str]:
    """Flags for a stand-in that sums up."""
    (tmp_path / "answers.json").write_text(json.dumps({"Summarise": "Something is said [00:00:00]."}))
    return ("--answers", str(tmp_path / "answers.json"))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a b.wav", "$(c).wav"):
        recordings.wav(tmp_path / "in" / name, recordings.tone(45, rate=8000) * 0, 8000)
    return tmp_path / "in"


def submitted(kuulo: Kuulo, *words: str | Path, **more: Any) -> Folder:
    done = kuulo("submit", *words, *NULL, "--scheduler", "local", "--json", **more)
    assert done.returncode == 0, done.stderr
    return Folder(Path(json.loads(done.stdout)["folder"]))


def test_transcripts_are_summed_up_when_all_are_there(kuulo: Kuulo, tmp_path: Path, two: Path, answers: Any) -> None:
    (two / "bad.wav").write_bytes(b"no sound")
    with standin(tmp_path / "s", *answers) as (url, _):
        given = ["--then", "summary", "--then-option", f"endpoint={url}", "--then-option", "length=20"]
        given += ["--then-option", "concurrency=2"]
        dry = kuulo("submit", two, *NULL, "--scheduler", "local", *given, "--dry-run")
        assert "then summary: template summary (built in), openai" in dry.stdout, dry.stderr
        assert "in a job after all others: 4:00:00, 2048 MB" in dry.stdout
        assert questions(tmp_path / "s") == 0
        job = submitted(kuulo, two, *given)
        waited = kuulo("jobs", "wait", job.name)
        assert waited.returncode == 1, "one is no recording"
    batch = plan_file.read(job.path)
    assert isinstance(batch, Batch) and batch.then is not None
    assert (batch.then.tasks, batch.then.parameters) == (("summary",), {"length": "20"})
    assert batch.then.concurrency == 2
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["state"] for one in report["then"]] == ["done", "done"]
    for name in ("a b", "$(c)"):
        record = json.loads((tmp_path / "out" / f"{name}.summary.json").read_text())
        assert record["task"] == "summary" and record["provenance"]["model"] == "standin"
    shown = kuulo("jobs", "show", job.name)
    assert "a b.json: summary done" in shown.stdout and "(1 failed)" in shown.stdout
    written = "".join(path.read_text(errors="replace") for path in job.path.rglob("*") if path.is_file())
    assert "Window 0" not in written, "no word of a transcript is in a job's folder"


def test_what_has_its_transcript_already_is_summed_up_too(
    kuulo: Kuulo, tmp_path: Path, two: Path, answers: Any
) -> None:
    assert kuulo("jobs", "wait", "-q", submitted(kuulo, two).name).returncode == 0
    recordings.wav(two / "new.wav", recordings.tone(45, rate=8000) * 0, 8000)
    with standin(tmp_path / "s", *answers) as (url, _):
        given = ["--then", "summary", "--then-option", f"endpoint={url}"]
        more = submitted(kuulo, two, *given)
        assert kuulo("jobs", "wait", "-q", more.name).returncode == 0
        assert len(list((tmp_path / "out").glob("*.summary.md"))) == questions(tmp_path / "s") == 3
        again = kuulo("submit", two, *NULL, "--scheduler", "local", *given, "--then-option", "length=9")
        assert "summary of 3 transcripts" in again.stdout, again.stderr
        assert kuulo("jobs", "wait", "-q", "k3").returncode == 0, kuulo("jobs", "show", "k3").stdout
        assert questions(tmp_path / "s") == 6
        dry = kuulo("submit", two, *NULL, "--scheduler", "local", *given, "--dry-run")
        assert "jobs then JOB_FOLDER 1" in dry.stdout
    shown = kuulo("jobs", "show", "k3").stdout
    assert "new.json: summary done" in shown and "job k3: done" in shown
    assert kuulo("jobs").returncode == 0


def test_what_follows_may_fail_and_be_done_again(kuulo: Kuulo, tmp_path: Path, two: Path, answers: Any) -> None:
    with standin(tmp_path / "s", *answers) as (url, process):
        job = submitted(kuulo, two, "--then", "summary", "--then-option", f"endpoint={url}")
        process.kill()
        process.wait()
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
    assert (tmp_path / "out" / "a b.txt").exists(), "transcripts are there all the same"
    said = json.loads(kuulo("jobs", "show", job.name, "--json").stdout)
    assert (said["state"], said["reason"]) == ("failed", "then: 1 failed")
    assert "nothing answers" in said["then"][0]["why"]
    with standin(tmp_path / "again", *answers, "--port", port_of(url)):
        assert kuulo("jobs", "retry", job.name, "--mem", "9G", "--time", "30").returncode == 0
        (asked,) = [one.then_resources for one in job.rounds() if one.number == 2]
        assert asked is not None and (asked.memory_mb, asked.minutes) == (9 << 10, 30), (
            "all is heard: it is the model's"
        )
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 0, kuulo("jobs", "show", job.name).stdout
        assert questions(tmp_path / "again") == 2
    assert "nothing of job" in kuulo("jobs", "retry", job.name).stderr
    assert (tmp_path / "out" / "a b.summary.json").exists()


def test_what_cannot_follow_is_refused_before_anything_is_queued(kuulo: Kuulo, tmp_path: Path, two: Path) -> None:
    url = "endpoint=http://127.0.0.1:9/v1"
    for words, told in (
        (["--then", "nothing"], "nothing"),
        (["--then", "coding", "--then-option", url], "needs -p codebook"),
        (["--then", "summary", "--then-option", url, "--then-option", "x=1"], "nothing is called 'x'"),
        (["--then", "summary", "--then-option", url, "--then-option", "concurrency=0"], "a number from 1 to 1024"),
        (["--then", "summary"], "no store has a language model"),
        (["--then-time", "10"], "are for what --then does"),
    ):
        done = kuulo("submit", two, *NULL, "--scheduler", "local", *words, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode in (2, 3) and told in done.stderr, (words, done.stderr)
    assert not (tmp_path / "out").exists() and not list((tmp_path / "home").rglob("k1"))


def test_a_template_that_is_another_one_by_then_is_not_used(
    kuulo: Kuulo, tmp_path: Path, two: Path, answers: Any
) -> None:
    templates = tmp_path / "home" / ".config" / "kuulo" / "templates"
    templates.mkdir(parents=True)
    mine = templates / "summary.toml"
    mine.write_text('prompt = "Sum up: $input"\n')
    with standin(tmp_path / "s", *answers) as (url, _):
        words = ["--then", "summary", "--then-option", f"endpoint={url}", "--engine-option", "wait_ms=3000"]
        job = submitted(kuulo, two, *words)
        mine.write_text('prompt = "Make fun of: $input"\n')
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
        assert questions(tmp_path / "s") == 0
    (why,) = [one["why"] for one in json.loads(kuulo("jobs", "show", job.name, "--json").stdout)["then"]]
    assert "the template summary has changed since the job was submitted" in why


def test_what_follows_and_goes_on_does_not_overwrite_what_it_has_made(
    kuulo: Kuulo, tmp_path: Path, two: Path, answers: Any
) -> None:
    for number in range(4):
        recordings.wav(two / f"{number}.wav", recordings.tone(45, rate=8000) * 0, 8000)
    with standin(tmp_path / "s", *answers, "--holds-after", "2") as (url, process):
        words = ["--then", "summary", "--then-option", f"endpoint={url}", "--existing", "overwrite"]
        job = submitted(kuulo, two, *words)
        until(lambda: len(job.results("then")) == 2)
        assert "a language model works on them: 2 results" in kuulo("jobs", "show", job.name).stdout
        process.kill()
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
    assert len(list((tmp_path / "out").glob("*.summary.json"))) == 2
    with standin(tmp_path / "again", *answers, "--port", port_of(url)):
        assert kuulo("jobs", "retry", job.name).returncode == 0
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 0, kuulo("jobs", "show", job.name).stdout
    assert questions(tmp_path / "again") == 4


def test_accounts_of_what_follows_are_counted(
    kuulo: Kuulo, tmp_path: Path, two: Path, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standin(tmp_path / "s", *answers) as (url, _):
        job = submitted(kuulo, two, "--then", "summary", "--then-option", f"endpoint={url}")
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 0
    (round_,) = job.rounds()
    hours = {round_.array: 1, round_.then: 2}
    kept = {one: Usage(one, None, "done", 3600.0 * number, cpus=1, gpus=1) for one, number in hours.items()}
    accounts = types.SimpleNamespace(usage=lambda ids: [kept[one] for one in ids])
    monkeypatch.setattr(schedulers, "of", lambda name: accounts)
    taken = usage._taken(job, None)
    assert (taken.gpu_h, taken.cpu_h, taken.recordings, taken.results) == (3.0, 3.0, 2, 2)


def test_states_of_what_follows() -> None:
    def state(said: State | None, silent: str) -> tuple[str, str]:
        return overview._following(said, silent, 3)

    assert state(State(RUNNING), "") == (
        overview.FINISHING,
        "the transcripts are there; a language model works on them: 3 results",
    )
    assert state(State(WAITING, "the partition is full"), "")[1].endswith("what follows waits: the partition is full")
    assert state(State(CANCELLED), "")[0] == CANCELLED
    assert state(None, "slurm does not answer") == (overview.FINISHING, "slurm does not answer")
    assert state(None, "")[0] == "failed" and "kuulo jobs retry" in state(None, "")[1]


# ------------------------------------------------------------------ on Slurm


def test_the_third_submission_waits_and_goes_on_after_a_warning(home: Home, tmp_path: Path, answers: Any) -> None:
    home.silence("a.wav", "b.wav", "new\nline.wav")
    with standin(tmp_path / "s", *answers, "--host", HERE, "--slow", "2") as (url, _):
        job = home.submit(
            "--then", "summary", "--then-option", f"endpoint={url}", "--then-option", "model=standin",
            "--then-time", "10", "--then-mem", "300M", "--mail", "me@uni.example",
        )  # fmt: skip
        (round_,) = job.rounds()
        script = (job.path / "then-1.sh").read_text()
        assert f"--dependency=afterany:{round_.finish}" in script and "--mem=300M" in script
        assert "mail-user=me@uni.example" in script
        assert "mail-user" not in (job.path / "finish-1.sh").read_text(), "one mail, when all is over"
        report = ended(job, 200)
        assert "then" not in report or report["then"]
        until(lambda: questions(tmp_path / "s") > 1, 150)
        said = json.loads(home.kuulo("jobs", "show", job.name, "--json").stdout)
        assert said["state"] == overview.FINISHING
        home.cluster.run(["scancel", "--signal=USR1", "--batch", round_.then], cwd=home.folder)
        report = until(lambda: (found := job.report()) and "then" in found and found, 150)
        asked = questions(tmp_path / "s")
    assert [one["state"] for one in report["then"]].count("done") + [one["state"] for one in report["then"]].count(
        "skipped"
    ) == 3, report
    assert 3 <= asked <= 5, "results that were there were not made again"
    restarted = (job.path / "logs" / "then1.txt").read_text()
    assert "going on in the next run" in restarted
    assert home.kuulo("jobs", "wait", job.name).returncode == 0
    for name in ("a", "b", "new\nline"):
        record = home.output / f"{name}.summary.json"
        assert record.stat().st_uid == home.folder.stat().st_uid
    until(lambda: not home.slurm("squeue", "-h"), 150)


def test_cancelled_while_it_follows_and_retried(home: Home, tmp_path: Path, answers: Any) -> None:
    home.silence("a.wav")
    with standin(tmp_path / "s", *answers, "--host", HERE, "--slow", "30") as (url, process):
        words = ["--then", "summary", "--then-option", f"endpoint={url}", "--then-option", "model=standin"]
        job = home.submit(*words, "--then-mem", "300M", "--then-time", "10")
        log = job.path / "logs" / "then1.txt"
        until(lambda: log.exists() and "model standin" in log.read_text(), 150)
        assert home.kuulo("jobs", "cancel", job.name).returncode == 0
        until(lambda: not home.slurm("squeue", "-h"), 150)
        os.kill(process.pid, signal.SIGKILL)
    said = json.loads(home.kuulo("jobs", "show", job.name, "--json").stdout)
    assert said["state"] == "cancelled" and "kuulo jobs retry" in said["reason"], (said, log.read_text())
    with standin(tmp_path / "again", *answers, "--host", HERE, "--port", port_of(url)):
        assert home.kuulo("jobs", "retry", job.name).returncode == 0
        assert home.kuulo("jobs", "wait", job.name).returncode == 0
    assert (home.output / "a.summary.json").exists()
