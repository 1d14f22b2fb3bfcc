"""What every scheduler owes, asked of it as it is: Slurm on a cluster of its own, the others on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import WEIRD_NAMES
from kuulo import schedulers
from kuulo.schedulers.base import (
    AGAIN,
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    OUT_OF_TIME,
    RUNNING,
    WAITING,
    Array,
    Queue,
    Resources,
    Scheduler,
    State,
)

SMALL = Resources(minutes=5, memory_mb=100, cpus=1)
PATIENCE_S = 90


@dataclass
class Place:
    """A scheduler and where its jobs' folders are."""

    scheduler: Scheduler
    folder: Callable[[str | None], Path]
    own: Callable[[Path], None]

    def array(self, code: str, *arguments: str, name: str = "test", where: Path | None = None, **more: Any) -> Array:
        """An array of that Python code, with its arguments; its folder has a folder for logs."""
        where = where or self.folder(None)
        logs = where / "logs"
        logs.mkdir(exist_ok=True)
        self.own(logs)
        fields = {"resources": SMALL, "tasks": (0,), **more}
        return Array(name=name, folder=where, command=(sys.executable, "-c", code, *arguments), **fields)

    def submit(self, array: Array) -> str:
        (array.folder / "job.sh").write_bytes(os.fsencode(self.scheduler.script(array)))
        return self.scheduler.submit(array, "job.sh")

    def until(
        self, ids: str | list[str], true: Callable[[Mapping[int | None, State]], bool], patience_s: float = PATIENCE_S
    ) -> dict[int | None, State]:
        """The states of a submission's tasks, once they are as wanted; of the last, where there are several."""
        ids = [ids] if isinstance(ids, str) else ids
        deadline = time.monotonic() + patience_s
        while True:
            states = {task: s for (id_, task), s in self.scheduler.states(ids).items() if id_ == ids[-1]}
            if states and true(states):
                return states
            assert time.monotonic() < deadline, states
            time.sleep(0.3)

    def within(self, true: Callable[[], bool]) -> None:
        """Wait for what a job does, which may be a moment after the scheduler says so."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def ended(self, id_: str, patience_s: float = PATIENCE_S) -> dict[int | None, State]:
        return self.until(id_, lambda states: all(s.state in ENDED for s in states.values()), patience_s)


@pytest.fixture(scope="module", params=schedulers.NAMES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    name: str = request.param
    if importlib.util.find_spec(f"kuulo.schedulers.{name}") is None:
        pytest.skip(f"there is no scheduler {name} yet")

    def folder(of_name: str | None) -> Path:
        made = tmp_path_factory.mktemp("job") / (of_name or "job")
        made.mkdir()
        return made

    with pytest.MonkeyPatch.context() as patch:
        if name != "slurm":
            patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
            patch.setenv("KUULO_LOCAL_AT_ONCE", "3")
            yield Place(schedulers.of(name), folder, lambda path: None)
            return
        cluster = request.getfixturevalue("user_cluster")
        cluster.use(patch)
        yield Place(schedulers.of(name), cluster.folder, cluster.own)


NO_LIMITS = "a queue of one machine enforces no time limits: nobody else waits for it"


@pytest.fixture(scope="module")
def overtime(place: Place) -> str:
    """A submission that goes on for longer than it may, which takes a minute or two to show: begun first of all."""
    if place.scheduler is schedulers.of("local"):
        return ""
    return place.submit(place.array("import time; time.sleep(600)", resources=Resources(1, 100, 1), warning_s=0))


def test_it_is_here_and_is_named(place: Place, overtime: str) -> None:
    assert place.scheduler.is_here()


def test_tasks_get_their_numbers_and_end_with_their_codes(place: Place) -> None:
    array = place.array("import sys; print('heard', sys.argv[1:]); sys.exit(int(sys.argv[-1]))", "x", tasks=(0, 2, 3))
    states = place.ended(place.submit(array))
    assert {task: (s.state, s.exit_code) for task, s in states.items()} == {
        0: (DONE, 0),
        2: (FAILED, 2),
        3: (FAILED, 3),
    }
    for task in array.tasks:
        assert (array.folder / f"logs/task-{task}.txt").read_text() == f"heard ['x', '{task}']\n"
    assert all(s.native and s.started_at and abs(s.started_at - time.time()) < 300 for s in states.values())


def test_a_submission_without_tasks_is_one_run_of_the_command(place: Place) -> None:
    array = place.array("import sys; print(sys.argv[1:])", "x", tasks=(), log="logs/finish.txt")
    states = place.ended(place.submit(array))
    assert {task: s.state for task, s in states.items()} == {None: DONE}
    assert (array.folder / "logs/finish.txt").read_text() == "['x']\n"


def test_the_script_is_valid_and_the_same_each_time(place: Place) -> None:
    array = place.array("print()", tasks=(1, 2, 5), queue=Queue(account="a'b"), comment="50%", mail="you@uni.example")
    text = place.scheduler.script(array)
    assert text == place.scheduler.script(array)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "job.sh" in place.scheduler.submit_command(array, "job.sh")


def test_what_comes_after_waits_for_the_end_however_it_was(place: Place) -> None:
    code = "import sys, time; time.sleep(1); open('ended','w').close(); sys.exit(3)"
    first = place.array(code, tasks=(4,))
    id_ = place.submit(first)
    second = place.array("import os, sys; sys.exit(not os.path.exists('ended'))", where=first.folder, after=(id_,))
    assert {s.state for s in place.ended(place.submit(second)).values()} == {DONE}
    assert place.ended(id_)[4].state == FAILED


def test_no_more_run_at_once_than_may(place: Place) -> None:
    code = "import time; print(time.time(), flush=True); time.sleep(0.5); print(time.time())"
    array = place.array(code, tasks=(0, 1, 2), at_once=1)
    place.ended(place.submit(array))
    times = [tuple(map(float, (array.folder / f"logs/task-{n}.txt").read_text().split())) for n in array.tasks]
    assert len(times) == 3
    assert all(one[1] <= other[0] for one, other in zip(sorted(times), sorted(times)[1:], strict=False))


def test_cancelling_ends_what_runs_and_what_waits(place: Place) -> None:
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('told', flush=True), sys.exit(1)))
print('runs', flush=True)
time.sleep(600)"""
    array = place.array(code, tasks=(0, 1), at_once=1)
    id_ = place.submit(array)
    log = array.folder / "logs/task-0.txt"
    place.until(id_, lambda states: states[0].state == RUNNING and log.exists() and "runs" in log.read_text())
    waits = place.scheduler.states([id_])[id_, 1]
    assert waits.state == WAITING
    assert waits.reason
    place.scheduler.cancel([id_])
    gone = place.until(id_, lambda states: states[0].state in ENDED)
    assert {s.state for s in gone.values()} == {CANCELLED}
    place.within(lambda: "told" in log.read_text())
    assert not (array.folder / "logs/task-1.txt").exists()
    place.scheduler.cancel([id_])


def test_a_command_that_is_killed_has_failed(place: Place) -> None:
    states = place.ended(place.submit(place.array("import os; os.kill(os.getpid(), 9)")))
    assert (states[0].state, states[0].exit_code) == (FAILED, 128 + 9)


def test_a_command_that_is_not_there_has_failed(place: Place) -> None:
    array = place.array("")
    array = Array(**{**array.__dict__, "command": ("/nonexistent/program",)})
    assert place.ended(place.submit(array))[0].state == FAILED


def test_what_wants_to_go_on_later_is_queued_again(place: Place) -> None:
    code = f"""
import os, sys
first = not os.path.exists('begun')
open('begun', 'w').close()
print('first' if first else 'second')
sys.exit({AGAIN} if first else 0)"""
    array = place.array(code, tasks=(7, 8))
    id_ = place.submit(array)
    states = place.until(id_, lambda states: all(s.state == DONE for s in states.values()))
    assert set(states) == {7, 8}
    assert sum(s.restarts for s in states.values()) in (1, 2)
    logs = [(array.folder / f"logs/task-{n}.txt").read_text().split() for n in array.tasks]
    assert ["first", "second"] in [[line for line in log if line in ("first", "second")] for log in logs]


def test_a_task_is_warned_before_its_end(place: Place) -> None:
    if place.scheduler is schedulers.of("local"):
        pytest.skip(NO_LIMITS)
    code = f"""
import os, signal, sys, time
if os.path.exists('begun'):
    sys.exit(0)
open('begun', 'w').close()
signal.signal(signal.SIGUSR1, lambda *_: (print('warned', flush=True), time.sleep(1), sys.exit({AGAIN})))
time.sleep(600)"""
    array = place.array(code, resources=Resources(1, 100, 1), warning_s=50)
    id_ = place.submit(array)
    states = place.until(id_, lambda states: states[0].state in ENDED)
    assert (states[0].state, states[0].restarts) == (DONE, 1)
    assert "warned" in (array.folder / "logs/task-0.txt").read_text()


@pytest.mark.parametrize("name", [*WEIRD_NAMES.values(), "50%a 100%%", "#SBATCH -x\\"], ids=ascii)
def test_every_character_arrives(place: Place, name: str) -> None:
    array = place.array(
        "import json, os, sys; print(json.dumps([os.getcwd(), sys.argv[1]]))",
        name,
        name=f"kuulo-{name}",
        comment=name,
        where=place.folder(name),
        log="logs/50% done.txt",
    )
    states = place.ended(place.submit(array))
    assert states[0].state == DONE
    assert json.loads((array.folder / "logs/50% done-0.txt").read_text()) == [str(array.folder), name]
    assert sorted(p.name for p in array.folder.iterdir()) == ["job.sh", "logs"]


def test_it_says_when_it_would_start_and_what_is_allowed(place: Place) -> None:
    array = place.array("raise SystemExit('it was run')")
    (array.folder / "job.sh").write_text(place.scheduler.script(array))
    assert place.scheduler.would_start(array, "job.sh")
    assert list((array.folder / "logs").iterdir()) == []
    limits = place.scheduler.limits(Queue())
    assert limits.tasks >= 1000
    assert limits.minutes is None or limits.minutes >= 60


def test_use_is_told_where_it_is_known(place: Place) -> None:
    id_ = place.submit(place.array("import time; time.sleep(1)"))
    place.ended(id_)
    for one in place.scheduler.usage([id_]):
        assert (one.id, one.task) == (id_, 0)
        assert one.elapsed_s >= 1


def test_a_task_that_takes_too_long_is_ended(place: Place, overtime: str) -> None:
    if not overtime:
        pytest.skip(NO_LIMITS)
    assert place.ended(overtime, patience_s=180)[0].state == OUT_OF_TIME
