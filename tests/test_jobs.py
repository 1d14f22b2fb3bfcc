"""A job's folder, its plan, its claims and its account; and tasks that are done here, without a scheduler."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePath
from typing import Any

import pytest

import jobs_made
import recordings
from kuulo import audio, report
from kuulo.errors import CannotRun, InputFailed, UsageError
from kuulo.jobs import account, amounts, claims, finish, life, plan_file, queues, settings, survey, task
from kuulo.jobs.batch import WHOLE, Batch, Item, Pace, Piece, Refused
from kuulo.jobs.folder import Folder, Jobs, Round, TaskLog, tasks_of
from kuulo.schedulers.base import (
    AGAIN,
    CANCELLED,
    DONE,
    FAILED,
    OUT_OF_MEMORY,
    OUT_OF_TIME,
    RUNNING,
    Queue,
    Resources,
    State,
)
from sessions import UNCLOSED

pytestmark = UNCLOSED

ODD = "a b'c\"d$(x)%a\n\\ä\udcff.wav"


@pytest.fixture
def silence(tmp_path: Path) -> Path:
    return recordings.wav(tmp_path / ODD, recordings.tone(100) * 0)


def one_task(tmp_path: Path, *paths: Path, **options: Any) -> tuple[Folder, Batch]:
    """A job with one task for all of these recordings."""
    made = jobs_made.planned(tmp_path / "out", engine="null", **options)
    items = [jobs_made.item(path) for path in paths]
    batch = jobs_made.batch(made, items, [[Piece(n) for n in range(len(items))]])
    return jobs_made.folder(tmp_path / "jobs", batch), batch


# ---------------------------------------------------------------------- the plan


def test_a_plan_file_holds_all_of_a_batch(tmp_path: Path, silence: Path) -> None:
    job, batch = one_task(tmp_path, silence, word_times=True, **{"from": "0:10"})
    batch = dataclasses.replace(
        batch,
        queue=Queue("gpu", "project", "long", "a100", "gpu:a100", (("exclude", "n1"),)),
        finish_queue=Queue("batch", "project"),
        at_once=4,
        mail="me@example.org",
        pace=Pace(12.5, 3.0, 0.2, 10**9, "measured", "by kuulo calibrate"),
        refused=(Refused("x.wav", "it is a folder", None),),
        notes=("a note",),
    )
    plan_file.write(job.path, batch)
    assert plan_file.read(job.path) == batch
    assert (job.path / "plan.json").stat().st_mode & 0o777 == 0o600, "it names people's files"


def test_a_plan_with_a_diarizer_and_a_roster_is_checked_when_it_is_read(tmp_path: Path, silence: Path) -> None:
    roster = tmp_path / "roster.json"
    roster.write_text(json.dumps({"schema": 1, "encoder": "", "voices": []}))
    made = jobs_made.planned(tmp_path / "out", model="miniature", speakers="2", roster=str(roster))
    job = jobs_made.folder(tmp_path / "jobs", jobs_made.batch(made, [jobs_made.item(silence)], [[Piece(0)]]))
    assert plan_file.read(job.path).plan == made
    voice = {"name": "Anna", "embedding": [1.0, 0.0], "seconds": 9.0, "clips": 1}
    roster.write_text(json.dumps({"schema": 1, "encoder": "resemblyzer:x", "voices": [voice]}))
    with pytest.raises(CannotRun, match="has changed since"):
        plan_file.read(job.path)


@pytest.mark.parametrize(("content", "said"), [(b"{", "damaged"), (b'{"schema": 99}', "another version")])
def test_a_plan_that_is_no_plan(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(CannotRun, match=said):
        plan_file.read(tmp_path)
    with pytest.raises(CannotRun, match="No such file"):
        plan_file.read(tmp_path / "gone")


# ---------------------------------------------------------------------- tasks


def test_a_task_says_in_its_folder_what_became_of_each(tmp_path: Path, silence: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound at all")
    job, batch = one_task(tmp_path, silence)
    items = (*batch.items, Item(bad, PurePath("bad"), 0, 15, 0))
    batch = dataclasses.replace(batch, items=items, tasks=((Piece(0), Piece(1)),))
    plan_file.write(job.path, batch)
    assert jobs_made.do(job, batch) == [1]
    (state,) = tasks_of(job, [2])
    assert [piece.state for piece in state.pieces] == ["done", "failed"]
    assert state.finished is not None and state.finished["code"] == 1 and state.finished["peak_bytes"] > 10**7
    found = account.items(batch, [state], {})
    assert [f.state for f in found] == ["done", "failed"]
    outcomes = [account.outcome(batch, f) for f in found]
    assert outcomes[0].audio_ms == 100_000 and outcomes[0].segments == 4
    assert outcomes[1].why == "it is not audio or video that FFmpeg's libraries can read"
    assert not (tmp_path / "out" / "report.json").exists(), "the job's report is written once, at its end"


def test_a_task_that_is_started_again_does_what_is_left(tmp_path: Path, silence: Path) -> None:
    other = recordings.wav(tmp_path / "other.wav", recordings.tone(31) * 0)
    job, batch = one_task(tmp_path, silence, other)
    log = TaskLog(job.path, 0)
    log.say("starts", round=1, host="n1", id="7_0")
    log.say("begins", piece=0, done=0)
    log.say("ends", piece=0, state="done", source="x")
    log.close()
    assert jobs_made.do(job, batch) == [0]
    assert {p.name for p in (tmp_path / "out").glob("*.txt")} == {"other.txt"}


def test_what_kills_its_task_twice_is_set_aside_and_the_rest_is_done(tmp_path: Path, silence: Path) -> None:
    other = recordings.wav(tmp_path / "other.wav", recordings.tone(31) * 0)
    job, batch = one_task(tmp_path, silence, other)
    log = TaskLog(job.path, 0)
    for _ in range(2):
        log.say("starts", round=1, host="n1", id="7_0")
        log.say("begins", piece=0, done=30_000)
    log.close()
    assert jobs_made.do(job, batch) == [1]
    (state,) = tasks_of(job, [2])
    assert [piece.state for piece in state.pieces] == ["failed", "done"]
    assert state.pieces[0].fields["why"] == life.KILLED_TWICE
    assert jobs_made.do(job, batch, round_=2) == [0], "somebody asked for another try"


def test_one_that_came_further_each_time_is_not_set_aside(tmp_path: Path, silence: Path) -> None:
    job, batch = one_task(tmp_path, silence)
    log = TaskLog(job.path, 0)
    for done_ms in (0, 30_000, 60_000):
        log.say("starts", round=1, host="n1", id="7_0")
        log.say("begins", piece=0, done=done_ms)
        log.say("progress", piece=0, done=done_ms + 15_000)
    log.close()
    assert jobs_made.do(job, batch) == [0]


def test_a_line_that_a_kill_cut_short_is_no_trouble(tmp_path: Path, silence: Path) -> None:
    job, batch = one_task(tmp_path, silence)
    log = TaskLog(job.path, 0)
    log.say("starts", round=1, host="n1", id="7_0")
    log.close()
    with (job.path / "tasks" / "0.jsonl").open("ab") as file:
        file.write(b'{"type":"begi')
    assert jobs_made.do(job, batch) == [0]
    assert account.items(batch, tasks_of(job, [1]), {})[0].state == "done"


def test_overwriting_does_once_what_the_job_has_done(tmp_path: Path, silence: Path) -> None:
    """A task that is started again does not overwrite its own work."""
    job, batch = one_task(tmp_path, silence)
    assert jobs_made.do(job, batch) == [0]
    written = next((tmp_path / "out").glob("*.json")).stat().st_mtime_ns
    again, batch = one_task(tmp_path, silence, existing="overwrite")
    assert jobs_made.do(again, batch) == [0]
    rewritten = next((tmp_path / "out").glob("*.json")).stat().st_mtime_ns
    assert rewritten > written
    assert jobs_made.do(again, batch) == [0]
    assert next((tmp_path / "out").glob("*.json")).stat().st_mtime_ns == rewritten


def test_a_recording_that_changed_since_is_said(tmp_path: Path, silence: Path) -> None:
    job, batch = one_task(tmp_path, silence)
    os.utime(silence, ns=(1, 1))
    assert jobs_made.do(job, batch) == [0]
    (state,) = tasks_of(job, [1])
    assert "changed after the job was submitted" in state.pieces[0].fields["warning"]


def test_a_recording_that_is_gone_fails_and_says_so(tmp_path: Path, silence: Path) -> None:
    job, batch = one_task(tmp_path, silence)
    silence.unlink()
    assert jobs_made.do(job, batch) == [1]
    (state,) = tasks_of(job, [1])
    assert state.pieces[0].fields["why"] == "there is no such file"


def started(job: Folder, round_: int = 1) -> subprocess.Popen[bytes]:
    """Task 0 in a process of its own."""
    words = [sys.executable, "-P", "-m", "kuulo", "jobs", "task", str(job.path), str(round_), "0"]
    return subprocess.Popen(words, stderr=subprocess.PIPE)


def until(what: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def kept_ms(output: Path) -> int:
    """How far the journals of an output folder are."""
    last = 0
    for path in (output / ".kuulo" / "partial").glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            if b'"checkpoint"' in line:
                last = max(last, json.loads(line)["at_ms"])
    return last


def test_told_that_time_is_over_it_goes_on_later(tmp_path: Path) -> None:
    """Stopped by SIGUSR1 and killed by SIGKILL in turn, until it is done: as if nothing had happened."""
    path = recordings.wav(tmp_path / "long.wav", recordings.tone(600) * 0)
    job, batch = one_task(tmp_path, path, engine_option=("wait_ms=100",), word_times=True)
    codes, at = [], 0
    for how in (signal.SIGUSR1, signal.SIGKILL, signal.SIGUSR1):
        process = started(job)
        until(lambda before=at: kept_ms(tmp_path / "out") > before)
        at = kept_ms(tmp_path / "out")
        process.send_signal(how)
        codes.append(process.wait(20))
        assert process.stderr is not None
        process.stderr.close()
    assert codes == [AGAIN, -signal.SIGKILL, AGAIN]
    assert jobs_made.do(job, batch) == [0]
    made = (tmp_path / "out" / "long.json").read_text()
    straight, batch = one_task(tmp_path / "straight", path, word_times=True)
    assert jobs_made.do(straight, batch) == [0]
    undisturbed = json.loads((tmp_path / "straight" / "out" / "long.json").read_text())
    assert json.loads(made)["segments"] == undisturbed["segments"]
    (state,) = tasks_of(job, [1])
    assert state.lives == 4 and state.pieces[0].fields["resumed_at_ms"] > 0


def test_whether_a_warning_is_for_the_time_limit() -> None:
    assert life.is_time_over(None, 1.0), "where no limit is known it may always be"
    assert life.is_time_over(60, 3540) and life.is_time_over(60, 3600 - 60 - 89), "Slurm may be early"
    assert not life.is_time_over(60, 1800) and life.is_time_over(2, 1.0)


def test_without_getting_further_it_does_not_ask_for_more(tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "long.wav", recordings.tone(600) * 0)
    job, _ = one_task(tmp_path, path, engine_option=("wait_ms=60000",))
    process = started(job)
    events = job.path / "tasks" / "0.jsonl"
    until(lambda: events.exists() and b'"begins"' in events.read_bytes())
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 1
    assert process.stderr is not None
    process.stderr.close()
    (state,) = tasks_of(job, [1])
    assert state.finished is not None and "--time" in state.finished["do"]


def test_cancelled_it_does_not_ask_for_more(tmp_path: Path) -> None:
    path = recordings.wav(tmp_path / "long.wav", recordings.tone(600) * 0)
    job, _ = one_task(tmp_path, path, engine_option=("wait_ms=100",))
    process = started(job)
    until(lambda: kept_ms(tmp_path / "out") > 0)
    process.terminate()
    assert process.wait(20) == 130
    assert process.stderr is not None
    process.stderr.close()


def test_a_full_gpu_gets_smaller_batches(tmp_path: Path, silence: Path) -> None:
    job, batch = one_task(tmp_path, silence, batch_size="16", engine_option=("gpu_batch=4",))
    assert jobs_made.do(job, batch) == [0]
    read = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert read["provenance"]["steps"][0]["options"]["batch_size"] == 4
    job, batch = one_task(tmp_path / "b", silence, batch_size="2", engine_option=("gpu_batch=0",))
    assert jobs_made.do(job, batch) == [1]
    (state,) = tasks_of(job, [1])
    assert "out of memory" in state.pieces[0].fields["why"]


def test_no_word_of_a_transcript_is_in_a_jobs_folder(tmp_path: Path, silence: Path) -> None:
    """The engine's words are "Window N."."""
    job, batch = one_task(tmp_path, silence, word_times=True)
    assert jobs_made.do(job, batch) == [0]
    assert "Window" in next((tmp_path / "out").glob("*.txt")).read_text()
    for path in job.path.rglob("*"):
        if path.is_file():
            assert b"Window" not in path.read_bytes(), path


# ---------------------------------------------------------------------- what becomes of it


def states(*, lives: int = 1, finished: dict[str, Any] | None = None, **piece: Any) -> Any:
    """What one task with one piece says of itself."""
    from kuulo.jobs.folder import PieceState, TaskState

    return TaskState(0, [PieceState(**piece)], lives=lives, finished=finished)


@pytest.fixture
def small(tmp_path: Path, silence: Path) -> Batch:
    return one_task(tmp_path, silence)[1]


ROUND = Round(1, (0,), Resources(10, 1000, 1))
MEMORY = {"why": "the engine was killed, twice", "cause": "memory"}


@pytest.mark.parametrize(
    ("task_state", "scheduler", "again", "more_memory"),
    [
        (states(state="done"), State(DONE), False, False),
        (states(state="left"), State(FAILED), True, False),
        (states(state="in work"), State(OUT_OF_MEMORY), True, True),
        (states(state="failed", fields=MEMORY), State(OUT_OF_MEMORY), True, True),
        (states(state="failed", fields={"why": "no sound"}, finished={"code": 1}), State(FAILED), False, False),
        (states(state="left"), State(CANCELLED), False, False),
        (states(state="left", finished={"code": 3, "why": "no model"}), State(FAILED), False, False),
        (states(state="left", finished={"code": 3, "cause": "memory"}), State(FAILED), True, True),
        (states(state="left"), State(OUT_OF_TIME), True, False),
        (states(state="left", finished={"code": 130}), State(FAILED), True, False),
        (states(state="left", finished={"code": 130}), State(CANCELLED), False, False),
        (states(state="left", lives=0), State(FAILED), False, False),
        (states(state="left"), None, True, False),
    ],
)
def test_what_was_killed_goes_on_by_itself(
    small: Batch, task_state: Any, scheduler: State | None, again: bool, more_memory: bool
) -> None:
    known = {0: scheduler} if scheduler else {}
    found = account.again([task_state], known, [ROUND])
    assert (found is not None) == again
    assert not found or (found.tasks, found.more_memory) == ((0,), more_memory)


def test_memory_is_raised_once_and_rounds_have_an_end(small: Batch) -> None:
    raised = Round(2, (0,), Resources(10, 2000, 1), asked_by="finish")
    lacking = states(state="failed", fields=MEMORY)
    assert account.again([lacking], {}, [ROUND, raised]) is None
    killed = states(state="left")
    assert account.again([killed], {}, [ROUND, raised]) is not None
    third = Round(3, (0,), Resources(10, 2000, 1), asked_by="finish")
    assert account.again([killed], {}, [ROUND, raised, third]) is None
    asked = Round(4, (0,), Resources(10, 2000, 1), asked_by="retry")
    assert account.again([killed], {}, [ROUND, raised, third, asked]) is not None


@pytest.mark.parametrize(
    ("task_state", "scheduler", "why"),
    [
        (states(state="left"), State(RUNNING), ""),
        (states(state="left"), State(CANCELLED), "its task was cancelled"),
        (states(state="left", lives=0), None, "its task never began"),
        (states(state="left"), None, "its task was killed"),
        (states(state="left", finished={"code": 3, "why": "the model is not on this node"}), None, "the model is not"),
    ],
)
def test_why_a_recording_is_left(small: Batch, task_state: Any, scheduler: State | None, why: str) -> None:
    (found,) = account.items(small, [task_state], {0: scheduler} if scheduler else {})
    assert found.why.startswith(why) and bool(found.why) == bool(why)


def test_a_report_that_is_written_while_it_is_looked_for_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Folder(tmp_path / "k1")
    assert job.report() is None, "nor is its folder"
    job.path.mkdir()
    read = Path.read_bytes

    def late(path: Path) -> bytes:
        try:
            return read(path)
        except FileNotFoundError:
            path.write_text("{}")
            raise

    monkeypatch.setattr(Path, "read_bytes", late)
    assert job.report() is None
    assert job.report() == {}
    (job.path / "report.json").write_text("{")
    with pytest.raises(CannotRun, match="damaged"):
        job.report()


def test_the_end_of_a_job(tmp_path: Path, silence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, batch = one_task(tmp_path, silence)
    batch = dataclasses.replace(batch, refused=(Refused("x.wav", "the file is empty"),))
    plan_file.write(job.path, batch)
    job.write_round(ROUND)
    assert jobs_made.do(job, batch) == [0]
    claims.write(tmp_path / "out", claims.make(job.name, job.path, "local", ["x"], "key"))
    code = finish.conclude(job, batch, account.items(batch, tasks_of(job, [1]), {}), tasks_of(job, [1]))
    assert code == 1, "one of what was named is no recording"
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert said == job.report()
    assert said["counts"] == {"done": 1, "skipped": 0, "failed": 1, "stopped": 0} and said["job"] == "k1"
    assert not list((tmp_path / "out" / ".kuulo" / "jobs").iterdir())
    assert "1 done, 1 failed" in capsys.readouterr().err


# ---------------------------------------------------------------------- folders and claims


def test_jobs_have_numbers_and_are_found_by_them(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs")
    assert jobs.all() == []
    made = [jobs.new() for _ in range(3)]
    assert [job.name for job in made] == ["k1", "k2", "k3"]
    assert made[0].path.stat().st_mode & 0o777 == 0o700
    for job in made:
        (job.path / "plan.json").write_text("{}")
    made[1].write_round(dataclasses.replace(ROUND, array="4711", finish="4712"))
    for name in ("k2", "2", "4711", "4712", "4711_3"):
        assert jobs.find(name).name == "k2"
    with pytest.raises(UsageError, match="there is no job k9"):
        jobs.find("k9")
    assert [job.name for job in jobs.all()] == ["k1", "k2", "k3"]
    assert made[1].rounds() == [dataclasses.replace(ROUND, array="4711", finish="4712")]


def test_of_two_submits_at_once_one_waits(tmp_path: Path) -> None:
    with (
        claims.submitting(tmp_path),
        pytest.raises(CannotRun, match="somebody is submitting"),
        claims.submitting(tmp_path),
    ):
        pass
    with claims.submitting(tmp_path):
        pass


def test_the_lock_of_who_died_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / claims.LOCK
    lock.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (lock / "holder").write_text(f"{os.uname().nodename} {gone.pid}")
    with claims.submitting(tmp_path):
        pass
    lock.mkdir()
    (lock / "holder").write_text("another-machine 1")
    with pytest.raises(CannotRun), claims.submitting(tmp_path):
        pass
    os.utime(lock, (1, 1))
    with claims.submitting(tmp_path):
        pass


def test_a_damaged_claim_is_said(tmp_path: Path) -> None:
    (tmp_path / claims.FOLDER).mkdir(parents=True)
    (tmp_path / claims.FOLDER / "me-k1.json").write_text("{")
    with pytest.raises(CannotRun, match="cannot be read"):
        claims.alive(tmp_path)


def test_looking_tells_what_is_done_what_is_busy_and_what_is_no_recording(tmp_path: Path, silence: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing of the kind")
    others = [recordings.wav(tmp_path / f"{n}.wav", recordings.tone(1) * 0) for n in range(2)]
    job, batch = one_task(tmp_path, silence)
    assert jobs_made.do(job, batch) == [0]
    found = audio.Found([audio.Recording(p) for p in (silence, bad, *others)], [("gone", InputFailed("it is gone"))])
    claim = claims.Claim("k7", "", "local", "", "me", ("0",), (), batch.plan.key)
    looked = survey.look(batch.plan, found, [claim])
    assert [item.path.name for item in looked.items] == ["1.wav"] and looked.items[0].length_ms == 1000
    assert (len(looked.done), looked.busy) == (1, {"k7": 1})
    assert [r.why for r in looked.refused] == [
        "it is gone",
        "it is not audio or video that FFmpeg's libraries can read",
    ]
    with pytest.raises(UsageError, match="making other transcripts"):
        survey.look(batch.plan, found, [dataclasses.replace(claim, key="other")])


# ---------------------------------------------------------------------- settings


def test_the_users_word_counts_over_the_sites() -> None:
    site = {"scheduler": "slurm", "cpu": {"partition": "batch", "cpus": 8}, "gpu": {"partition": "gpu"}}
    chosen = settings.settings(site, {"cpu": {"account": "mine"}, "at_once": 3}, "files")
    assert chosen.cpu == settings.Place(Queue("batch", "mine"), 8)
    assert chosen.gpu == settings.Place(Queue("gpu"), settings.USUAL_CPUS)
    assert (chosen.scheduler, chosen.at_once) == ("slurm", 3)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"cpus": 3}, "no key 'cpus'"),
        ({"cpu": {"cpus": "8"}}, "not a whole number"),
        ({"cpu": {"cpus": 0}}, "less than 1"),
        ({"at_once": True}, "not a whole number"),
        ({"mail": "pigeon"}, "none of scheduler, sendmail"),
        ({"cpu": {"extra": "x"}}, "not a table"),
    ],
)
def test_settings_that_cannot_be(said: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        settings.settings({}, said, "the user's file")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30", 2), ("1:30:00", 90), ("2-0", 2880), ("1-12:30", 2190), ("30:00:00", 1800), ("0:10", 1)],
)
def test_times_are_read_as_slurm_does(text: str, minutes: int) -> None:
    assert amounts.minutes(text) == minutes


def test_sizes_are_read_as_slurm_does() -> None:
    assert [amounts.megabytes(t) for t in ("8G", "6000M", "6000", "2048k", "1t", "8gb")] == [
        8192, 6000, 6000, 2, 1048576, 8192,
    ]  # fmt: skip
    for text in ("", "-1G", "0", "8 G", "G", "1.5G"):
        with pytest.raises(UsageError):
            amounts.megabytes(text)
    for text in ("", "soon", "1:2:3:4", "-5"):
        with pytest.raises(UsageError):
            amounts.minutes(text)


def test_what_comes_after_needs_no_gpu() -> None:
    gpu = Queue("gpu", "mine", gres="gpu:a100")
    jobs = settings.settings({"cpu": {"partition": "batch", "qos": "short"}, "gpu": {"partition": "gpu"}}, {}, "")
    assert queues.without_gpu(gpu, jobs) == Queue("batch", "mine", "short")
    assert queues.without_gpu(gpu, settings.settings({}, {}, "")) == Queue("gpu", "mine")
    raw = Queue("gpu", extra=(("begin", "now"), ("gres", "gpu:2"), ("time", "60")))
    assert queues.for_finish(raw).extra == (("begin", "now"),)


def test_pieces_are_what_they_are_called() -> None:
    assert Piece(0).kind == WHOLE and task.part_of(Piece(0)) is None
    assert report.MEMORY == "memory"


# ---------------------------------------------------------------------- scratch and mail


def test_scratch_is_the_nodes(tmp_path: Path, silence: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    made = jobs_made.planned(tmp_path / "out", engine="null", scratch="$NODE_DISK/$SLURM_JOB_ID")
    assert task.here(made, 1).options["scratch"] == str(tmp_path / "disk" / "4711")
    assert (tmp_path / "disk" / "4711").is_dir()


def test_a_model_that_the_node_does_not_see_is_named(tmp_path: Path) -> None:
    made = jobs_made.planned(tmp_path / "out", model="miniature")
    assert made.model is not None
    gone = dataclasses.replace(made, model=dataclasses.replace(made.model, path=tmp_path / "gone"))
    with pytest.raises(CannotRun, match="miniature is not on this node"):
        task.here(gone, 1)


def test_one_mail_with_numbers_and_without_names(
    tmp_path: Path, silence: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job, batch = one_task(tmp_path, silence)
    batch = dataclasses.replace(batch, mail="me@uni.example", mailer="sendmail", refused=(Refused("x.wav", "empty"),))
    plan_file.write(job.path, batch)
    job.write_round(ROUND)
    assert jobs_made.do(job, batch) == [0]
    program = tmp_path / "bin" / "sendmail"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat >{tmp_path}/mail\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert finish.run(job.path, 1) == 1
    mail = (tmp_path / "mail").read_text()
    assert "To: me@uni.example" in mail and "Subject: Kuulo job k1: 1 failed" in mail and "1 done, 1 failed" in mail
    assert ".wav" not in mail
    program.write_text("#!/bin/sh\nexit 75\n")
    assert finish.run(job.path, 1) == 1 and "no mail" not in capsys.readouterr().err, "it was told already"
    (job.path / "report.json").unlink()
    finish.run(job.path, 1)
    assert "no mail was sent" in capsys.readouterr().err
