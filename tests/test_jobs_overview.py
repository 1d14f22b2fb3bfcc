"""What people are told of a job: from what the scheduler says and what its folder says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import jobs_made
import recordings
from kuulo.jobs import overview
from kuulo.jobs.batch import WORDS, Batch, Piece
from kuulo.jobs.folder import Folder, PieceState, Round, TaskLog, TaskState
from kuulo.jobs.overview import Begun, Overview
from kuulo.schedulers.base import CANCELLED, DONE, FAILED, OUT_OF_TIME, RUNNING, WAITING, Resources, State
from sessions import UNCLOSED

pytestmark = UNCLOSED

ROUND = Round(1, (0, 1), Resources(10, 1000, 1), "7", "8", "2026-11-23T10:00:00+00:00")
NOW = 10_000.0


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Three recordings of 100 s: one in task 0, two in task 1."""
    made = jobs_made.planned(tmp_path / "out", engine="null")
    names = ("a", "b", "c")
    paths = [recordings.wav(tmp_path / f"{name}.wav", recordings.tone(100, rate=8000) * 0, 8000) for name in names]
    return jobs_made.batch(made, [jobs_made.item(p) for p in paths], [[Piece(0)], [Piece(1), Piece(2)]])


def task(number: int, *pieces: PieceState, **fields: Any) -> TaskState:
    return TaskState(number, list(pieces), **fields)


def seen(
    batch: Batch,
    tasks: list[TaskState],
    states: dict[int | None, State],
    *,
    said: dict[str, Any] | None = None,
    silent: str = "",
    begun: tuple[Begun, ...] = (),
) -> Overview:
    known = {("8", None) if n is None else ("7", n): state for n, state in states.items()}
    return overview.overview(Folder(Path("/jobs/k1")), batch, [ROUND], tasks, begun, known, said, silent, NOW)


LEFT, DONE_ = PieceState(), PieceState("done", 100_000)
NEW = [task(0, LEFT), task(1, LEFT, LEFT)]


def test_it_waits_with_the_schedulers_reason(batch: Batch) -> None:
    waiting = State(WAITING, "others come first", starts_at=12_000.0)
    one = seen(batch, NEW, {0: waiting, 1: waiting, None: State(WAITING, "it starts after others")})
    assert (one.state, one.reason, one.starts_at) == (WAITING, "others come first", 12_000.0)
    assert one.count("left") == 3 and one.done_ms == 0 and one.left_s is None
    assert [line.state for line in one.tasks] == [WAITING, WAITING]


def test_it_runs_and_how_long_is_left(batch: Batch) -> None:
    working = task(0, PieceState("in work", 50_000), lives=1, round=1, started=NOW - 100, host="n1")
    half = task(1, DONE_, LEFT, lives=1, round=1, started=NOW - 90)
    running = State(RUNNING, node="n1", ends_by=20_000.0)
    begun = (Begun(NOW - 100, {0: 0}), Begun(NOW - 90, {0: 0}))
    one = seen(batch, [working, half], {0: running, 1: running}, begun=begun)
    assert (one.state, one.ends_by) == (RUNNING, 20_000.0)
    assert [file.state for file in one.files] == ["in work", "done", "left"]
    assert (one.audio_ms, one.done_ms) == (300_000, 150_000)
    assert (one.speed, one.left_s) == (1.5, 100.0), "150 s of sound in 100 s, and as much is left"


def test_what_was_there_before_makes_nothing_faster(batch: Batch) -> None:
    """A recording that goes on, one that was skipped, a task of an earlier round, one that nobody will hear."""
    working = task(0, PieceState("in work", 90_000), lives=2, round=1, started=NOW - 10)
    skipped = task(1, PieceState("skipped"), PieceState("failed"), lives=1, round=1, started=NOW - 10)
    running = {0: State(RUNNING), 1: State(RUNNING)}
    begun = (Begun(NOW - 100, {0: 80_000}), Begun(NOW - 10, {1: 0}))
    one = seen(batch, [working, skipped], running, begun=begun)
    assert (one.speed, one.left_s) == (0.1, 100.0), "10 s of sound in 100 s, and 10 s are left"
    earlier = task(1, DONE_, DONE_, lives=1, round=0)
    again = seen(batch, [working, earlier], running, begun=(begun[0], Begun(0.0, {0: 0, 1: 0})))
    assert again.left_s == 100.0
    fresh = seen(batch, [working, earlier], running, begun=(Begun(NOW - 1, {0: 90_000}), Begun(None, {})))
    assert (fresh.speed, fresh.left_s) == (None, None), "nothing to tell it from"


def test_when_the_rest_starts_is_no_beginning_of_the_job(batch: Batch) -> None:
    one = seen(batch, NEW, {0: State(RUNNING), 1: State(WAITING, "others come first", starts_at=12_000.0)})
    assert (one.state, one.starts_at) == (RUNNING, None)


def test_where_pieces_stood_is_read_from_what_the_task_said(tmp_path: Path, batch: Batch) -> None:
    job = jobs_made.folder(tmp_path / "jobs", batch)
    log = TaskLog(job.path, 1)
    start = {"host": "n1", "id": ""}
    log.say("starts", round=1, **start)
    log.say("begins", piece=0, done=0)
    log.say("starts", round=2, **start)
    log.say("begins", piece=0, done=70_000)
    log.say("progress", piece=0, done=80_000)
    log.say("starts", round=2, **start)  # it was queued again
    log.say("begins", piece=0, done=80_000)
    log.close()
    begun = overview._begun(job.events(1))
    assert begun.pieces == {0: 70_000}
    assert begun.at == [event["at"] for event in job.events(1)][2]
    assert overview._begun(job.events(0)) == Begun(None, {})


def test_what_was_heard_is_counted(batch: Batch) -> None:
    ended = [task(0, DONE_, lives=1), task(1, DONE_, DONE_, lives=1)]
    one = seen(batch, ended, {0: State(DONE), 1: State(DONE), None: State(WAITING, "after others")})
    assert (one.state, one.reason) == (overview.FINISHING, "what was heard is joined and counted")


def test_over(batch: Batch) -> None:
    files = [{"source": "a.wav", "state": "done", "audio_ms": 100_000, "outputs": ["a.txt"]}]
    files += [{"source": "b.wav", "state": "failed", "why": "the file is empty", "do": "look"}]
    said = {"counts": {"done": 1, "failed": 1}, "files": files}
    one = seen(batch, NEW, {}, said=said)
    assert (one.state, one.reason) == ("failed", "1 failed")
    assert [(f.state, f.why, f.outputs) for f in one.files] == [
        ("done", "", ("a.txt",)),
        ("failed", "the file is empty", ()),
    ]
    assert seen(batch, NEW, {}, said={"counts": {"failed": 0}, "files": []}).state == "done"
    assert one.state in overview.OVER


def test_cancelled_and_lost(batch: Batch) -> None:
    stopped = task(0, PieceState(), lives=1, finished={"code": 130, "why": "it was told to stop"})
    one = seen(batch, [stopped, NEW[1]], {0: State(CANCELLED), 1: State(CANCELLED), None: State(CANCELLED)})
    assert one.state == CANCELLED and "retry" in one.reason
    assert [file.why for file in one.files] == ["its task was cancelled"] * 3
    gone = seen(batch, [stopped, NEW[1]], {})
    assert gone.state == overview.LOST and "retry" in gone.reason, "Slurm has forgotten it, and nobody has counted"
    late = seen(batch, [task(0, PieceState("in work", 1), lives=1), NEW[1]], {0: State(OUT_OF_TIME), 1: State(FAILED)})
    assert late.files[0].state == "left" and late.files[0].why == "the time limit was over"


def test_a_scheduler_that_does_not_answer_hides_nothing(batch: Batch) -> None:
    silent = "slurm does not answer: squeue: no answer within 60 seconds"
    working = task(0, PieceState("in work", 50_000), lives=1, started=NOW - 50)
    one = seen(batch, [working, NEW[1]], {}, silent=silent)
    assert (one.state, one.reason, one.done_ms) == (RUNNING, silent, 50_000)
    begun = (Begun(NOW - 50, {0: 0}), Begun(None, {}))
    known = seen(batch, [dataclasses.replace(working, round=1), NEW[1]], {}, silent=silent, begun=begun)
    assert known.speed == 1.0, "what the job's folder says is enough"
    idle = seen(batch, NEW, {}, silent=silent)
    assert idle.state == "unknown" and idle.state not in overview.OVER


def test_a_recording_that_is_cut_is_joined_before_it_is_done(batch: Batch) -> None:
    pieces = [Piece(0, WORDS, 0, 60_000, 0, 2), Piece(0, WORDS, 60_000, 100_000, 1, 2)]
    cut = dataclasses.replace(batch, items=batch.items[:1], tasks=((pieces[0],), (pieces[1],)))
    half = seen(cut, [task(0, DONE_, lives=1), task(1, LEFT)], {0: State(DONE), 1: State(RUNNING)})
    assert [(f.state, f.done_ms) for f in half.files] == [("left", 60_000)]
    both = seen(cut, [task(0, DONE_, lives=1), task(1, DONE_, lives=1)], {0: State(DONE), 1: State(DONE)})
    assert [(f.state, f.done_ms) for f in both.files] == [(overview.JOINING, 100_000)]


def test_a_folder_half_of_which_is_gone(tmp_path: Path, batch: Batch) -> None:
    job = jobs_made.folder(tmp_path / "jobs", batch)
    (job.path / "tasks").rmdir()
    one = overview.look(job)
    assert one.state == overview.LOST and one.count("left") == 3
    (job.path / "plan.json").unlink()
    gone = overview.look(job)
    assert gone.state == overview.DAMAGED and "No such file" in gone.reason


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan.json", "[]"),
        ("plan.json", '{"schema": 1}'),
        ("round-1.json", "{}"),
        ("report.json", "{}"),
        ("report.json", '{"counts": 3}'),
        ("tasks/0.jsonl", '{"type": "begins", "at": 1, "piece": 7, "done": 0}'),
        ("tasks/0.jsonl", '"starts"'),
    ],
)
def test_a_damaged_folder_is_no_error(tmp_path: Path, batch: Batch, name: str, text: str) -> None:
    """The others are to be seen."""
    damaged, whole = jobs_made.folder(tmp_path / "jobs", batch), jobs_made.folder(tmp_path / "jobs", batch)
    (damaged.path / name).write_text(text)
    assert [one.state for one in overview.look_all([damaged, whole])] == [overview.DAMAGED, overview.LOST]


def test_a_scheduler_that_does_not_answer_is_asked_once(
    tmp_path: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take a minute each time."""
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f"#!/bin/sh\necho asked >>{tmp_path}/calls\necho 'squeue: error: no' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent))
    jobs = [jobs_made.folder(tmp_path / "jobs", dataclasses.replace(batch, scheduler="slurm")) for _ in range(3)]
    for job in jobs:
        job.write_round(ROUND)
    seen_ = overview.look_all(jobs)
    assert [one.state for one in seen_] == ["unknown"] * 3
    assert all(one.reason.startswith("slurm does not answer: squeue") for one in seen_)
    assert (tmp_path / "calls").read_text() == "asked\n"


def test_a_round_that_is_being_submitted_is_not_the_end(batch: Batch) -> None:
    """What comes after the first round is at work until the second is queued."""
    second = dataclasses.replace(ROUND, number=2, array="9", finish="")
    ended = {("7", 0): State(FAILED), ("7", 1): State(DONE), ("8", None): State(RUNNING)}
    job = Folder(Path("/jobs/k1"))
    one = overview.overview(job, batch, [ROUND, second], NEW, (), ended, None, "", NOW)
    assert one.state == overview.FINISHING and one.state not in overview.OVER
