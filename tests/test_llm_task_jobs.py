"""`kuulo llm task --on`: transcripts for the tasks of a job, in the queue of this machine and on a real Slurm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Kuulo
from kuulo.jobs import claims, plan_file
from kuulo.jobs.batch import Transcripts
from kuulo.jobs.folder import Folder
from test_jobs_slurm import Home, ended, home, logs, until
from test_llm_batch_jobs import HERE, SMALL, TINY, disturbed, llama_of, port_of, questions, standin

assert home  # the fixture

LINES = "[00:00:01] Anna: Hello, my name is Anna.\n[00:00:04] S2: Where do you live?\n"


@pytest.fixture
def answers(tmp_path: Path) -> tuple[str, str]:
    """Flags for a stand-in that sums up, and finds no names."""
    scripted = {"Summarise": "Something is said [00:00:01].", "names": json.dumps({"names": []})}
    (tmp_path / "answers.json").write_text(json.dumps(scripted))
    return ("--answers", str(tmp_path / "answers.json"))


def texts(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_text(f"{LINES}[00:00:09] Anna: This is recording {number}.\n")


def submitted(kuulo: Kuulo, *words: str | Path) -> Folder:
    done = kuulo("llm", "task", *words, "--json")
    assert done.returncode == 0, done.stderr
    return Folder(Path(json.loads(done.stdout)["folder"]))


# ------------------------------------------------------------------ in the queue of this machine


def test_a_job_makes_what_a_run_makes_and_both_know_of_each_other(kuulo: Kuulo, tmp_path: Path, answers: Any) -> None:
    texts(tmp_path / "d", "a b.txt", "$(c).txt", "new\nline.txt")
    texts(tmp_path / "e", "d.txt")
    (tmp_path / "d" / "empty.txt").touch()
    found = ["d/a b.txt", "d/$(c).txt", "d/new\nline.txt", "d/empty.txt", "e/d.txt"]
    with standin(tmp_path / "s", *answers) as (url, _):
        words = ["summary", *found, "-p", "length", "20", "--endpoint", url, "--concurrency", "2"]
        job = submitted(kuulo, *words, "--on", "local", "--cpus", "1", "--task-time", "1")
        waited = kuulo("jobs", "wait", job.name)
        assert waited.returncode == 1, "one says nothing"
        assert questions(tmp_path / "s") == 4
        same = kuulo("llm", "task", *[w for w in words if w != "d/empty.txt"], "--json")
        assert [one["state"] for one in json.loads(same.stdout)["tasks"]] == ["skipped"] * 4
        assert questions(tmp_path / "s") == 4
    made = plan_file.read(job.path)
    assert isinstance(made, Transcripts) and made == plan_file.from_json(
        json.loads(json.dumps(plan_file.to_json(made)))
    )
    assert (made.number, made.what.parameters, made.what.place) == (4, {"length": "20"}, str(tmp_path))
    assert made.what.concurrency == 2
    assert {str(f.relative_to(tmp_path)): len(names) for f, names in made.makes.items()} == {"d": 3, "e": 1}
    assert made.output == tmp_path
    for source in [*found[:3], found[4]]:
        record = json.loads((tmp_path / source).with_suffix(".summary.json").read_text())
        assert record["task"] == "summary" and record["provenance"]["model"] == "standin"
    report = json.loads((job.path / "report.json").read_text())
    assert report["counts"] == {"done": 4, "failed": 1}
    assert report["results"][-1]["why"] == "nothing is said in the transcript"
    said = json.loads(kuulo("jobs", "show", job.name, "--json").stdout)
    assert (said["kind"], said["counts"], said["state"]) == ("results", {"done": 4, "failed": 1}, "failed")
    shown = kuulo("jobs", "show", job.name).stdout
    assert "a b.txt: summary done" in shown and "empty.txt failed: nothing is said" in shown
    assert "5 results" in kuulo("jobs").stdout
    usage = json.loads(kuulo("usage", "--json").stdout)["total"]
    assert (usage["results"], usage["failed"]) == (4, 1)
    written = "".join(path.read_text(errors="replace") for path in job.path.rglob("*") if path.is_file())
    assert "This is recording" not in written, "no word of a transcript is in a job's folder"
    assert claims.alive(tmp_path / "d") == claims.alive(tmp_path / "e") == []
    assert not (tmp_path / "d" / "report.json").exists(), "that is for recordings"


def test_transcripts_are_shared_out_among_tasks_but_one_that_wants_all_has_all(
    kuulo: Kuulo, tmp_path: Path, answers: Any
) -> None:
    texts(tmp_path / "d", *(f"{n}.txt" for n in range(6)))
    with standin(tmp_path / "s", *answers) as (url, _):
        words = [*sorted((tmp_path / "d").iterdir()), "--endpoint", url, "--on", "local", "--task-time", "1"]

        def plan(tasks: str) -> Any:
            done = kuulo("llm", "task", tasks, *words, "--dry-run", "--json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        long = "[00:00:01] A: " + "word " * 3000
        for path in (tmp_path / "d").iterdir():
            path.write_text(long)
        one, more = plan("summary"), plan("summary,topics")
        shares = [share for (share,) in one["tasks"]]
        assert 1 < len(shares) <= 6 and shares[0]["begin"] == 0 and shares[-1]["end"] == 6
        assert len(more["tasks"]) >= len(shares)
        together = plan("pseudonymise")
        assert together["tasks"] == [[{"begin": 0, "end": 6}]], "one key, one pseudonym for a name"
        shown = kuulo("llm", "task", "summary,topics", *words, "--dry-run").stdout
        assert "results     12: summary, topics of 6 transcripts" in shown and "jobs task JOB_FOLDER 1" in shown
        assert questions(tmp_path / "s") == 0
    assert not list((tmp_path / "home").rglob("k1")) and not (tmp_path / "d" / ".kuulo").exists()


def test_a_server_that_dies_is_survived_and_nothing_is_made_twice(kuulo: Kuulo, tmp_path: Path, answers: Any) -> None:
    texts(tmp_path / "d", *(f"{n}.txt" for n in range(6)))
    words = ["summary", *(f"d/{n}.txt" for n in range(6))]
    with standin(tmp_path / "s", *answers, "--holds-after", "2") as (url, process):
        job = submitted(kuulo, *words, "--on", "local", "--endpoint", url)
        until(lambda: len(job.results(0)) == 2)
        for place in ([], ["--on", "local"]):
            running = kuulo("llm", "task", *words, "--endpoint", url, *place)
            assert running.returncode == 2 and f"kuulo jobs wait {job.name}" in running.stderr
        process.kill()
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
    assert len(list((tmp_path / "d").glob("*.summary.json"))) == 2
    said = json.loads(kuulo("jobs", "show", job.name, "--json").stdout)
    assert said["counts"] == {"done": 2, "failed": 4}
    assert all(one["do"] for one in said["then"] if one["state"] == "failed")
    with standin(tmp_path / "again", *answers, "--port", port_of(url)):
        assert kuulo("jobs", "retry", job.name).returncode == 0
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 0, kuulo("jobs", "show", job.name).stdout
    assert questions(tmp_path / "again") == 4
    assert "nothing of job" in kuulo("jobs", "retry", job.name).stderr
    assert kuulo("jobs", "remove", job.name).returncode == 0
    assert len(list((tmp_path / "d").glob("*.summary.json"))) == 6


def test_a_template_that_is_another_one_by_then_is_not_used(kuulo: Kuulo, tmp_path: Path, answers: Any) -> None:
    texts(tmp_path / "d", "a.txt", "b.txt")
    (tmp_path / "mine.toml").write_text('prompt = "Summarise: $input"\n')
    with standin(tmp_path / "s", *answers) as (url, _):
        first = submitted(kuulo, "summary", "d/a.txt", "-t", "mine.toml", "--endpoint", url, "--on", "local")
        assert kuulo("jobs", "wait", "-q", first.name).returncode == 0
        record = json.loads((tmp_path / "d" / "a.summary.json").read_text())
        assert record["provenance"]["template"]["name"] == "mine"
    with standin(tmp_path / "t", *answers, "--port", port_of(url), "--starts-in", "600"):
        job = submitted(kuulo, "summary", "d/b.txt", "-t", "mine.toml", "--endpoint", url, "--on", "local")
        assert kuulo("jobs", "cancel", job.name).returncode == 0
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
    (tmp_path / "mine.toml").write_text('prompt = "Make fun of: $input"\n')
    with standin(tmp_path / "u", *answers, "--port", port_of(url)):
        assert kuulo("jobs", "retry", job.name).returncode == 0
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
        assert questions(tmp_path / "u") == 0
    (told,) = json.loads(kuulo("jobs", "show", job.name, "--json").stdout)["then"]
    assert "the template mine has changed since the job was submitted" in told["why"]


def test_a_code_book_that_is_another_one_by_then_is_not_used(kuulo: Kuulo, tmp_path: Path, answers: Any) -> None:
    texts(tmp_path / "d", "a.txt")
    (tmp_path / "book.csv").write_text("code,description\nhome,where somebody lives\n")
    with standin(tmp_path / "s", *answers, "--starts-in", "600") as (url, _):
        words = ["coding", "d/a.txt", "-p", "codebook", "book.csv", "--endpoint", url, "--model", "standin"]
        job = submitted(kuulo, *words, "--on", "local")
        assert kuulo("jobs", "cancel", job.name).returncode == 0
    (tmp_path / "book.csv").write_text("code,description\nhome,where nobody lives\n")
    assert kuulo("jobs", "retry", job.name).returncode == 0
    assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
    (told,) = json.loads(kuulo("jobs", "show", job.name, "--json").stdout)["then"]
    assert "the codebook of coding has changed since the job was submitted" in told["why"]


def test_what_goes_on_does_not_overwrite_what_it_has_made(kuulo: Kuulo, tmp_path: Path, answers: Any) -> None:
    texts(tmp_path / "d", *(f"{n}.txt" for n in range(5)))
    words = ["summary", *(f"d/{n}.txt" for n in range(5)), "--overwrite"]
    for n in range(5):
        (tmp_path / "d" / f"{n}.summary.md").write_text("somebody's")
    with standin(tmp_path / "s", *answers, "--holds-after", "2") as (url, process):
        job = submitted(kuulo, *words, "--on", "local", "--endpoint", url)
        until(lambda: len(job.results(0)) == 2)
        process.kill()
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
    assert json.loads((job.path / "report.json").read_text())["counts"] == {"done": 2, "failed": 3}
    with standin(tmp_path / "again", *answers, "--port", port_of(url)):
        assert kuulo("jobs", "retry", job.name).returncode == 0
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 0, kuulo("jobs", "show", job.name).stdout
    assert questions(tmp_path / "again") == 3
    assert all("Something" in path.read_text() for path in (tmp_path / "d").glob("*.summary.md"))


def test_what_cannot_be_is_refused_before_anything_is_queued(kuulo: Kuulo, tmp_path: Path) -> None:
    texts(tmp_path / "d", "a.txt")
    (tmp_path / "d" / "empty.txt").touch()
    url = ["--endpoint", "http://127.0.0.1:9/v1"]
    for words, told in (
        (["summary", "d/a.txt", *url, "--mem", "1G"], "--mem is for a job"),
        (["coding", "d/a.txt", *url, "--on", "local"], "needs -p codebook"),
        (["summary", "d/empty.txt", *url, "--on", "local"], "nothing is said in the transcript"),
        (["summary", "d/none.txt", *url, "--on", "local"], "none.txt"),
        (["summary", "d/a.txt", "--on", "local"], "no store has a language model"),
    ):
        done = kuulo("llm", "task", *words, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode in (1, 2, 3) and told in done.stderr, (words, done.stderr)
    assert not list((tmp_path / "home").rglob("k1")) and not (tmp_path / "d" / ".kuulo").exists()


# ------------------------------------------------------------------ on Slurm


def give(home: Home, number: int) -> list[str]:
    texts(home.input, *(f"{n}.txt" for n in range(number)))
    home.own()
    return [f"in/{n}.txt" for n in range(number)]


def test_an_array_goes_on_after_a_warning_and_a_kill(home: Home, tmp_path: Path, answers: Any) -> None:
    found = give(home, 8)
    with standin(tmp_path / "s", *answers, "--host", HERE, "--slow", "3") as (url, _):
        words = ["llm", "task", "summary", *found, "--on", "slurm", "--endpoint", url, "--model", "standin", "--json"]
        done = home.kuulo(*words, "--task-time", "1", "--array-limit", "2", *SMALL)
        assert done.returncode == 0, done.stderr
        job = Folder(Path(json.loads(done.stdout)["folder"]))
        assert json.loads(done.stdout)["tasks"] > 1
        report = disturbed(home, job, lambda: questions(tmp_path / "s") >= 2)
        asked = questions(tmp_path / "s")
    assert report["counts"] == {"done": 8, "failed": 0}, (report, logs(job))
    assert 8 <= asked <= 11, "at most what was under way was asked again"
    records = sorted(home.input.glob("*.summary.json"))
    assert len(records) == 8 and {path.stat().st_uid for path in records} == {home.folder.stat().st_uid}
    assert home.kuulo("jobs", "wait", job.name).returncode == 0


def test_a_model_of_the_store_is_started_on_the_node(home: Home) -> None:
    environ = llama_of(home)
    (found,) = give(home, 1)
    (home.folder / "mine.toml").write_text('prompt = "$input"\n')
    done = home.kuulo(
        "llm", "task", "summary", found, "-t", "mine.toml", "-m", str(TINY), "-e", "llama-cpp", "--max-tokens", "8",
        "--on", "slurm", "--context", "512", "--cpus", "1", "--time", "10", "--json", **environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = Folder(Path(json.loads(done.stdout)["folder"]))
    report = ended(job, 150)
    assert report["counts"] == {"done": 1, "failed": 0}, (report, logs(job))
    provenance = json.loads((home.input / "0.summary.json").read_text())["provenance"]
    assert provenance["engine"] == "llama-cpp" and provenance["model_sha256"]
