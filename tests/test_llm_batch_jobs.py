"""`kuulo llm batch --on`: prompts for the tasks of a job, in the queue of this machine and on a real Slurm."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_standin
from conftest import Kuulo
from kuulo import speeds
from kuulo.errors import CannotRun, UsageError
from kuulo.jobs import claims, plan_file, prompts, prompts_planning, submission
from kuulo.jobs.batch import Prompts, Share
from kuulo.jobs.folder import Folder, Round
from kuulo.llm import batch, pace, tiny
from kuulo.llm.batch import Request
from kuulo.schedulers.base import Queue, Resources
from test_jobs_slurm import Home, ended, events, home, logs, until
from test_llm_batch import asked, read, said, write

assert home  # the fixture

SHORT = ["--task-time", "1", "--concurrency", "1"]
"""Makes many small tasks: nothing is known of how fast the stand-in is."""

LLAMA = Path(sys.executable).parents[1] / "environments"
TINY = tiny.FILES["gguf"]


@contextlib.contextmanager
def standin(folder: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A stand-in that can be killed: its address, and its process. `folder` gets its log."""
    folder.mkdir(exist_ok=True)
    with (folder / "standin.log").open("ab") as log:
        command = [sys.executable, llm_standin.__file__, *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["base_url"], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def questions(folder: Path) -> int:
    return (folder / "standin.log").read_text().count("POST /v1/chat/completions")


def kept(folder: Path) -> int:
    """How many answers to p.jsonl are in its journals."""
    return sum(path.read_text().count('"asked"') for path in (folder / "p.answers.jsonl.parts").glob("*"))


def port_of(url: str) -> str:
    return url.rpartition(":")[2].partition("/")[0]


def submitted(kuulo: Kuulo, *words: str | Path) -> Folder:
    done = kuulo("llm", "batch", *words, "--json")
    assert done.returncode == 0, done.stderr
    return Folder(Path(json.loads(done.stdout)["folder"]))


# ------------------------------------------------------------------ in the queue of this machine


def test_a_job_answers_as_a_run_does_and_both_know_of_each_other(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [*[asked(n) for n in range(20)], "no JSON"])
    with standin(tmp_path / "s") as (url, _):
        job = submitted(kuulo, "p.jsonl", "-s", "Be brief.", "--on", "local", "--endpoint", url, *SHORT)
        waited = kuulo("jobs", "wait", job.name)
        assert waited.returncode == 1, "a line was not understood"
        asked_by_job = questions(tmp_path / "s")
        same = kuulo("llm", "batch", "p.jsonl", "-s", "Be brief.", "--endpoint", url)
        assert "all is done already" in same.stderr and questions(tmp_path / "s") == asked_by_job == 20
        other = kuulo("llm", "batch", "p.jsonl", "-s", "Be brief.", "--endpoint", url, "-o", "q.jsonl")
        assert other.returncode == 1
    made = plan_file.read(job.path)
    assert isinstance(made, Prompts) and len(made.tasks) == 5
    lines = read(tmp_path / "p.answers.jsonl")
    assert [line["custom_id"] for line in lines] == [*(f"q{n}" for n in range(20)), None]
    assert [said(line) for line in lines[:-1]] == [f"Answer: question {n}" for n in range(20)]
    by_run = read(tmp_path / "q.jsonl")
    assert [line["response"] for line in lines] == [line["response"] for line in by_run]
    report = json.loads((tmp_path / "p.answers.report.json").read_text())
    assert report["counts"] == {"requests": 21, "answered": 20, "refused": 0, "bad": 1, "kept": 0, "cut": 0}
    assert (report["job"], report["tasks"]) == (job.name, 5)
    assert report["provenance"]["options"]["system"] == {"sha256": batch.hashlib.sha256(b"Be brief.").hexdigest()}
    left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("p."))
    assert left == ["p.answers.jsonl", "p.answers.report.json", "p.jsonl"]
    written = "".join(path.read_text(errors="replace") for path in job.path.rglob("*") if path.is_file())
    assert "question 1" not in written, "words of people are in no job's folder"
    assert claims.alive(tmp_path) == []


def test_jobs_are_shown_in_prompts_and_counted(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [asked(n) for n in range(9)])
    with standin(tmp_path / "s") as (url, _):
        job = submitted(kuulo, "p.jsonl", "--on", "local", "--endpoint", url, "--concurrency", "1", "--task-time", "1")
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 0
    (shown,) = json.loads(kuulo("jobs", "--json").stdout)
    assert (shown["kind"], shown["counts"], shown["state"], shown["files"]) == ("prompts", {"done": 9}, "done", [])
    assert [(task["pieces"], task["done"]) for task in shown["tasks"]] == [(5, 5), (4, 4)]
    assert "9 prompts: 9 done" in kuulo("jobs", "show", job.name).stdout
    assert "9 prompts" in kuulo("jobs").stdout.splitlines()[1]
    assert json.loads(kuulo("usage", "--json").stdout)["total"]["prompts"] == 9
    assert "prompts 1 to 5: 5 answered" in kuulo("jobs", "logs", job.name).stdout
    assert "has no recordings" in kuulo("jobs", "logs", job.name, "a.wav").stderr
    assert "nothing of job" in kuulo("jobs", "retry", job.name).stderr
    assert kuulo("jobs", "remove", job.name).returncode == 0
    assert len(read(tmp_path / "p.answers.jsonl")) == 9


def test_a_server_that_dies_is_survived_and_nothing_is_asked_twice(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [asked(n) for n in range(30)])
    with standin(tmp_path / "s", "--holds-after", "6") as (url, process):
        job = submitted(kuulo, "p.jsonl", "--on", "local", "--endpoint", url, "--concurrency", "2", "--cpus", "1")
        running = kuulo("llm", "batch", "p.jsonl", "--endpoint", url)
        assert running.returncode == 2 and f"kuulo jobs wait {job.name}" in running.stderr
        until(lambda: kept(tmp_path) == 6)
        process.kill()
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 1
    assert not (tmp_path / "p.answers.jsonl").exists(), "half of the answers are no OUT"
    done = kuulo("jobs", "show", job.name).stdout
    assert "to 30: " in done and "not asked" in kuulo("jobs", "logs", job.name).stdout
    assert kept(tmp_path) == 6
    with standin(tmp_path / "again", "--port", port_of(url)):
        assert kuulo("jobs", "retry", job.name).returncode == 0
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 0
    assert questions(tmp_path / "again") == 24
    assert [said(line) for line in read(tmp_path / "p.answers.jsonl")] == [f"Answer: question {n}" for n in range(30)]


def test_what_a_cancelled_job_has_answered_is_kept_for_a_run(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [asked(n) for n in range(30)])
    with standin(tmp_path / "s", "--holds-after", "6") as (url, _):
        job = submitted(kuulo, "p.jsonl", "--on", "local", "--endpoint", url, "--concurrency", "2")
        until(lambda: kept(tmp_path) == 6)
        assert kuulo("jobs", "cancel", job.name).returncode == 0
        until(lambda: not claims.alive(tmp_path))
        until(lambda: events(job, 0, "finished"))
    with standin(tmp_path / "again", "--port", port_of(url)) as (same, _):  # its log has nothing of the job's
        assert same == url
        done = kuulo("llm", "batch", "p.jsonl", "--endpoint", url)
        assert done.returncode == 0, done.stderr
    assert questions(tmp_path / "again") == 24
    assert len(read(tmp_path / "p.answers.jsonl")) == 30
    assert not (tmp_path / "p.answers.jsonl.parts").exists()


def test_a_folder_is_asked_about_in_a_job(kuulo: Kuulo, tmp_path: Path) -> None:
    folder = tmp_path / "te xts"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.txt").write_text(f"text {n}")
    (tmp_path / "mine.toml").write_text('prompt = "Say $word about: $input"\n')
    with standin(tmp_path / "s") as (url, _):
        job = submitted(kuulo, folder, "-t", "./mine.toml", "-p", "word", "much", "-o", "o.jsonl", "--on", "local",
                        "--endpoint", url)  # fmt: skip
        assert kuulo("jobs", "wait", "-q", job.name).returncode == 0
    lines = read(tmp_path / "o.jsonl")
    assert [line["custom_id"] for line in lines] == ["0.txt", "1.txt", "2.txt"]
    assert "Say much about: " in said(lines[2]) and "text 2" in said(lines[2])
    report = json.loads((tmp_path / "o.report.json").read_text())
    assert report["provenance"]["template"]["name"] == "mine"


def test_what_a_job_cannot_do_is_refused(kuulo: Kuulo, tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [asked(n) for n in range(3)])
    write(tmp_path / "there.jsonl", [])
    url = ["--endpoint", "http://127.0.0.1:9/v1"]
    for words, told in (
        (["--on", "local", "--part", "1/2"], "--part and --retry are for runs of this shell"),
        (["--on", "local", "--retry"], "kuulo jobs retry"),
        (["--time", "10"], "--time is for a job"),
        (["--slurm", "a=b"], "--slurm is for a job"),
        (["--on", "local", "-o", "there.jsonl"], "a file is in the way"),
    ):
        done = kuulo("llm", "batch", "p.jsonl", *url, *words)
        assert done.returncode == 2 and told in done.stderr, (words, done.stderr)
    assert not list((tmp_path / "home").rglob("k1"))
    shown = kuulo("llm", "batch", "p.jsonl", *url, "--on", "local", "--dry-run", "--time", "7")
    assert "prompts     3\ntasks       1\n" in shown.stdout and "jobs task JOB_FOLDER 1" in shown.stdout
    assert not list((tmp_path / "home").rglob("k1")), "a dry run submits nothing"


# ------------------------------------------------------------------ pure


def job_of(tmp_path: Path, **changed: Any) -> Prompts:
    rows = [asked(n) for n in range(4)]
    write(tmp_path / "p.jsonl", rows)
    requests = batch.read(tmp_path / "p.jsonl")
    made = Prompts(
        source=tmp_path / "p.jsonl",
        target=tmp_path / "o.jsonl",
        digest=batch.digest(requests),
        number=4,
        bytes=200 << 20,
        asked={"endpoint": "http://127.0.0.1:9/v1", "model": "standin", "stop": ["x"], "temperature": 0.5},
        engine="openai",
        model="standin",
        model_sha256=None,
        concurrency=None,
        tasks=((Share(0, 2),), (Share(2, 4),)),
        resources=Resources(10, 1000, 1),
        queue=Queue(partition="p", extra=(("a", "b"),)),
        scheduler="local",
        variables={"a": "b"},
    )
    return dataclasses.replace(made, **changed)


def test_a_plan_file_holds_all_of_it(tmp_path: Path) -> None:
    made = job_of(tmp_path, target=tmp_path / "o \udcff\n.jsonl", mail="a@b", at_once=3, overwrite=True)
    plan_file.write(tmp_path, made)
    assert plan_file.read(tmp_path) == made
    assert (tmp_path / "plan.json").stat().st_mode & 0o077 == 0
    assert submission.finish(tmp_path, "k1", made, Round(1, (0,), made.resources)).resources.memory_mb == 3648


def test_what_has_changed_since_is_not_asked(tmp_path: Path) -> None:
    made = job_of(tmp_path)
    assert len(prompts.requests(made)) == 4
    write(tmp_path / "p.jsonl", [asked(n) for n in range(5)])
    with pytest.raises(CannotRun, match="what is asked has changed"):
        prompts.requests(made)
    (tmp_path / "p.jsonl").unlink()
    with pytest.raises(CannotRun, match="cannot be read"):
        prompts.requests(made)
    (tmp_path / "t.toml").write_text('prompt = "$input"')
    with pytest.raises(CannotRun, match="the template t has changed"):
        prompts.requests(job_of(tmp_path, template=str(tmp_path / "t.toml"), template_sha256="0" * 64))
    with pytest.raises(CannotRun, match="the model standin has changed"):
        prompts.chat_plan(job_of(tmp_path, model_sha256="0" * 64))


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60), st.integers(1, 20))
def test_shares_are_all_of_it_in_order_and_about_alike(costs: list[float], number: int) -> None:
    found = prompts_planning.shares(costs, number)
    assert found[0].begin == 0 and found[-1].end == len(costs) and len(found) <= number
    assert all(one.begin < one.end for one in found)
    assert all(one.end == other.begin for one, other in itertools.pairwise(found))
    assert len(found) == min(number, len(costs)) or sum(costs) == 0
    if len(costs) >= number:
        longest = max(sum(costs[one.begin : one.end]) for one in found)
        assert longest <= sum(costs) / number + 2 * max(costs) + 1e-6


def test_a_prompt_costs_its_length_and_what_may_be_answered() -> None:
    def cost(most: int | None = None, **body: Any) -> float:
        return pace.cost(Request(1, "a", {"messages": [{"role": "user", "content": "x" * 4000}], **body}), most)

    assert cost() == pytest.approx(1000 * pace.PROMPT_SHARE + pace.USUAL_ANSWER)
    assert cost(max_tokens=10) == pytest.approx(1000 * pace.PROMPT_SHARE + 10) == cost(10)
    assert cost(max_tokens=99999) == cost()
    parts = [{"role": "user", "content": [{"type": "text", "text": "x" * 40}, {"type": "image_url"}]}]
    assert pace.cost(Request(1, "a", {"messages": parts}), 1) == pytest.approx(10 * pace.PROMPT_SHARE + 1)
    assert pace.cost(Request(1, None, why="no JSON"), 10) == 0.0


def test_a_finished_job_says_how_fast_the_next_one_is(tmp_path: Path) -> None:
    made = job_of(tmp_path)
    chat = prompts.chat_plan(made)
    guess = pace.estimate(chat, 16, 2, [], "p")
    assert (guess.source, guess.speed) == (speeds.GUESS, pace.UNKNOWN_SPEED)
    wanted = pace.work(chat, 16, 2)
    one = pace.observation(
        wanted, done=3000, elapsed_s=60, load_s=2, memory_bytes=10, place="p", node="n", at="2026-01-01"
    )
    assert one is not None
    few = pace.observation(wanted, done=30, elapsed_s=1, load_s=2, memory_bytes=10, place="p", node="n", at="x")
    assert few is None
    speeds.write(tmp_path / "speeds.json", speeds.Table().with_([one]))
    known = pace.estimate(chat, 16, 2, [speeds.read(tmp_path / "speeds.json")], "p")
    assert (known.source, known.speed, known.load_s) == (speeds.MEASURED, 50.0, 2)
    assert pace.estimate(chat, 4, 2, [speeds.read(tmp_path / "speeds.json")], "p").source == speeds.GUESS


def test_an_endpoint_of_this_machine_alone_is_no_place_for_a_job(tmp_path: Path, monkeypatch: Any) -> None:
    from kuulo import schedulers
    from kuulo.jobs.settings import JobSettings
    from kuulo.schedulers import slurm
    from kuulo.schedulers.base import Limits

    monkeypatch.setattr(slurm, "limits", lambda queue: Limits(1000, None))
    assert schedulers.of("slurm") is slurm
    asked_for = dict.fromkeys(("partition", "account", "qos", "cpus", "time_", "mem", "task_time"))
    asked_for |= {"array_limit": None, "raw": (), "mail": None, "scheduler": "slurm"}
    wanted = prompts_planning.Wanted(tmp_path / "p", tmp_path / "o", [], {"endpoint": "http://127.0.0.1:9/v1"})
    for url in ("http://127.0.0.1:9/v1", "http://localhost:9", "unix:/tmp/s", "http://[::1]:9"):
        one = dataclasses.replace(wanted, given={"endpoint": url})
        with pytest.raises(CannotRun, match="on this machine alone"):
            prompts_planning.placed(JobSettings(), one, asked_for)
    one = dataclasses.replace(wanted, given={"endpoint": "http://node7:9/v1"})
    assert prompts_planning.placed(JobSettings(), one, asked_for)[0].scheduler == "slurm"
    with pytest.raises(UsageError):
        prompts_planning.placed(JobSettings(), dataclasses.replace(wanted, given={"endpoint": "x"}), asked_for)


@pytest.mark.parametrize(
    ("typed", "gpus"),
    [({}, 1), ({"device": "cpu"}, 0), ({"device": "cuda"}, 1), ({"tensor_parallel": "2"}, 2), ({"gpu_layers": "1"}, 1)],
)
def test_gpus_are_asked_for_where_the_site_has_a_place_for_them(
    tmp_path: Path, monkeypatch: Any, typed: dict[str, str], gpus: int
) -> None:
    """Of a job of prompts, and of what follows transcripts."""
    from kuulo.jobs import then
    from kuulo.jobs.settings import JobSettings, Place
    from kuulo.schedulers import slurm
    from kuulo.schedulers.base import Limits

    llm_standin.program(tmp_path, "llama-server")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "limits", lambda queue: Limits(1000, 120))
    places = JobSettings(cpu=Place(Queue(partition="batch"), 4), gpu=Place(Queue(partition="gpu", gres="gpu:a100"), 6))
    asked_for: dict[str, Any] = {
        "partition": None, "account": "a1", "qos": None, "cpus": None, "time_": "30", "mem": "1G", "task_time": None,
        "array_limit": None, "raw": ("nice=1", "mem-per-cpu=2G"), "mail": None, "scheduler": "slurm", "then_time": None,
        "then_mem": None,
    }  # fmt: skip
    given = {"engine": "llama-cpp", "model": str(TINY), **typed}
    wanted = prompts_planning.Wanted(tmp_path / "p", tmp_path / "o", [], given)
    where, chat = prompts_planning.placed(places, wanted, asked_for)
    values = {"then": "summary", "then_option": given}
    following, _ = then.planned(places, values, asked_for)
    on_gpu = gpus > 0
    assert (where.on_gpu, prompts_planning.gpus_for(chat), following.resources.gpus) == (on_gpu, gpus, gpus)
    for queue in (where.queue, following.queue):
        assert (queue.partition, queue.gres) == (("gpu", "gpu:a100") if on_gpu else ("batch", None))
        assert queue.account == "a1"
    assert following.queue.extra == (("nice", "1"),), "what the tasks of speech need is not what it needs"
    assert (following.resources.minutes, following.resources.cpus) == (120, 6 if on_gpu else 4)
    assert following.resources.memory_mb == prompts_planning.memory_for(chat) > 2048


# ------------------------------------------------------------------ on Slurm

SMALL = ["--cpus", "1", "--mem", "300M", "--time", "10"]
HERE = "0.0.0.0"
"""Every address of this machine: all nodes are on it."""


def give(home: Home, number: int) -> None:
    write(home.folder / "p.jsonl", [asked(n) for n in range(number)])
    owner = home.folder.stat()
    os.chown(home.folder / "p.jsonl", owner.st_uid, owner.st_gid)


def disturbed(home: Home, job: Folder, under_way: Callable[[], bool]) -> dict[str, Any]:
    """The report of a job whose task 0 is warned and whose task 1 is killed."""
    # Well after the start: while a task is starting, scancel says it twice, and the second is for the next run.
    until(under_way, 150)
    home.slurm("scancel", "--signal=USR1", "--batch", f"{job.rounds()[0].array}_0")
    until(lambda: events(job, 1, "begins"), 150)
    killed = events(job, 1, "starts")[0]["pid"]
    with contextlib.suppress(ProcessLookupError):
        os.kill(killed, signal.SIGKILL)
    return ended(job, 200)


def test_an_array_asks_all_and_goes_on_after_a_warning_and_a_kill(home: Home, tmp_path: Path) -> None:
    give(home, 16)
    with standin(tmp_path / "s", "--host", HERE, "--slow", "2.5") as (url, _):
        words = ["llm", "batch", "p.jsonl", "--on", "slurm", "--endpoint", url, "--model", "standin", "--json"]
        done = home.kuulo(*words, *SHORT, "--array-limit", "2", *SMALL)
        assert done.returncode == 0, done.stderr
        job = Folder(Path(json.loads(done.stdout)["folder"]))
        report = disturbed(home, job, lambda: questions(tmp_path / "s") >= 4)
        answered = questions(tmp_path / "s")
    assert report["counts"] == {"done": 16, "failed": 0}, (report, logs(job))
    assert [said(line) for line in read(home.folder / "p.answers.jsonl")] == [
        f"Answer: question {n}" for n in range(16)
    ]
    assert events(job, 0, "finished")[0]["code"] == 75, "it asked to go on later"
    assert 16 <= answered <= 19, "at most what was under way was asked again"
    assert (home.folder / "p.answers.jsonl").stat().st_uid == home.folder.stat().st_uid
    assert home.kuulo("jobs", "wait", job.name).returncode == 0


def llama_of(home: Home) -> dict[str, str]:
    """Variables with which the cluster's user has llama.cpp's server; skips where it is not installed."""
    program = next(LLAMA.glob("llama-cpp/*/lib/python*/site-packages/bin/llama-server"), None)
    if program is None:
        pytest.skip("llama-cpp is not installed here")
    folder = home.folder / "bin"
    folder.mkdir()
    (folder / "llama-server").write_text(f'#!/bin/sh\nexec {program} "$@"\n')  # its own place is root's alone
    (folder / "llama-server").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{home.cluster.environ['PATH']}"}


def test_a_model_of_the_store_is_started_by_each_task(home: Home) -> None:
    environ = llama_of(home)
    rows = [asked(n, "Where is the harbour?", model="tiny", max_tokens=12) for n in range(8)]
    write(home.folder / "p.jsonl", rows)
    os.chown(home.folder / "p.jsonl", home.folder.stat().st_uid, home.folder.stat().st_gid)
    done = home.kuulo(
        "llm", "batch", "p.jsonl", "--any-model", "-m", str(TINY), "-e", "llama-cpp", "--on", "slurm", "--context",
        "128", "--concurrency", "2", "--cpus", "1", "--time", "10", "--json", **environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = Folder(Path(json.loads(done.stdout)["folder"]))
    report = ended(job, 240)
    assert report["counts"] == {"done": 8, "failed": 0}, (report, logs(job))
    texts = {said(line) for line in read(home.folder / "p.answers.jsonl")}
    assert len(texts) == 1 and texts != {""}, texts
    provenance = json.loads((home.folder / "p.answers.report.json").read_text())["provenance"]
    assert provenance["engine"] == "llama-cpp" and provenance["model_sha256"]


def test_time_is_asked_for_by_the_planner(home: Home) -> None:
    give(home, 200)
    words = ["llm", "batch", "p.jsonl", "--on", "slurm", "--endpoint", "http://node7:1/v1", "--dry-run"]
    shown = home.kuulo(*words, "--task-time", "60", "--mail", "a@b.example", "--slurm", "nice=5").stdout
    number = int(shown.partition("tasks       ")[2].partition("\n")[0])
    assert number == 3, "200 answers of 400 tokens at 10 in a second are 2.3 hours"
    assert f"#SBATCH --array=0-{number - 1}" in shown and "--nice=5" in shown and "mail" not in shown
    assert "a guess: this endpoint was not measured yet" in shown
    began = time.monotonic()
    assert home.kuulo(*words, "--json").returncode == 0 and time.monotonic() - began < 60
