"""The queue of this machine: what becomes of its tasks when processes are killed, limits, what it leaves behind. What
every scheduler owes is in contracts/test_schedulers.py."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import WEIRD_NAMES
from kuulo.errors import CannotRun, UsageError
from kuulo.schedulers import local
from kuulo.schedulers.base import CANCELLED, DONE, ENDED, FAILED, RUNNING, WAITING, Array, Resources, State

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
"""The queue's process goes on without who started it: so it is meant."""


@pytest.fixture(autouse=True)
def _own_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A queue of this test's own, of which nothing runs afterwards."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv(local.VARIABLE, raising=False)
    yield
    for path in tmp_path.glob("*/logs/*.queue.json"):
        for pid in (server_of(str(path)), *(t["process"][0] for t in said(str(path)).values() if "process" in t)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., str]:
    """Submits a shell's words for each task, whose number they have as $1; the id."""

    def do(words: str, *tasks: int, name: str = "job", **more: Any) -> str:
        folder = tmp_path / name
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        array = Array(name, folder, ("bash", "-c", words, "task"), Resources(5, 100, 1), tasks, **more)
        (folder / "job-1.sh").write_text(local.script(array))
        return local.submit(array, "job-1.sh")

    return do


def said(id_: str) -> dict[str, Any]:
    tasks: dict[str, Any] = json.loads(Path(id_).read_bytes())["tasks"]
    return tasks


def server_of(id_: str) -> int:
    return int(json.loads(Path(id_).read_bytes())["server"][0])


def states(id_: str) -> dict[int | None, State]:
    return {task: state for (_, task), state in local.states([id_]).items()}


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def ended(id_: str) -> dict[int | None, State]:
    until(lambda: all(state.state in ENDED for state in states(id_).values()))
    return states(id_)


def numbers(folder: Path, *names: str) -> list[int]:
    """The numbers of processes that have written them there."""
    files = [folder / name for name in names]
    until(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_killed_queue_lets_its_task_end_and_the_others_have_failed(
    submit: Callable[..., str], tmp_path: Path
) -> None:
    id_ = submit("until [ -e go ]; do sleep 0.05; done; touch done-$1", 1, 2)
    until(lambda: states(id_)[1].state == RUNNING)
    os.kill(server_of(id_), signal.SIGKILL)
    until(lambda: states(id_)[2].state == FAILED)
    assert states(id_)[1].state == RUNNING, "it goes on"
    assert states(id_)[2].reason == "its queue on this machine was ended"
    (tmp_path / "job" / "go").touch()
    assert ended(id_)[1].state == FAILED, "nobody saw how it ended"
    assert (tmp_path / "job" / "done-1").exists() and not (tmp_path / "job" / "done-2").exists()


def test_a_task_that_goes_on_without_its_queue_keeps_its_place(submit: Callable[..., str], tmp_path: Path) -> None:
    first = submit("until [ -e go ]; do sleep 0.05; done", 1)
    until(lambda: states(first)[1].state == RUNNING)
    os.kill(server_of(first), signal.SIGKILL)
    second = submit("test -e ../job/go", 1, name="other")
    time.sleep(1.5)
    assert states(second)[1].state == WAITING
    assert states(second)[1].reason == "other tasks of yours run on this machine"
    (tmp_path / "job" / "go").touch()
    assert ended(second)[1].state == DONE


def test_a_killed_task_has_failed_and_the_next_runs(submit: Callable[..., str]) -> None:
    id_ = submit('[ "$1" = 2 ] || sleep 600', 1, 2)
    until(lambda: states(id_)[1].state == RUNNING)
    os.killpg(said(id_)["1"]["process"][0], signal.SIGKILL)
    after = ended(id_)
    assert {task: (s.state, s.exit_code) for task, s in after.items()} == {1: (FAILED, 137), 2: (DONE, 0)}


@pytest.mark.parametrize("most", [1, 2])
def test_two_submissions_run_no_more_than_the_machine_may(
    submit: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setenv(local.VARIABLE, str(most))
    words = "touch ../runs-$$; ls .. | grep -c runs- >> ../seen; sleep 0.4; rm ../runs-$$"
    ids = [submit(words, 1, 2, name=name) for name in ("one", "two")]
    for id_ in ids:
        assert {s.state for s in ended(id_).values()} == {DONE}
    seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
    assert len(seen) == 4 and max(seen) == most


def test_cancelling_ends_all_that_a_task_has_started(
    submit: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is in a session of its own and does not listen, by who cancels when the queue was killed."""
    monkeypatch.setattr(local, "GRACE_S", 0.5)
    deaf = "trap '' TERM; echo $$ > {}; while :; do sleep 0.1; done"
    apart, beside = (shlex.quote(deaf.format(name)) for name in ("apart", "beside"))
    id_ = submit(f"setsid bash -c {apart} & bash -c {beside} & echo $$ > own; wait", 1)
    pids = numbers(tmp_path / "job", "apart", "beside", "own")
    os.kill(server_of(id_), signal.SIGKILL)
    assert len(set(pids)) == 3 and all(map(is_alive, pids))
    local.cancel([id_])
    until(lambda: not any(map(is_alive, pids)))
    assert states(id_)[1].state == CANCELLED


def test_the_queue_kills_what_does_not_listen(submit: Callable[..., str], tmp_path: Path) -> None:
    """After the grace of ten seconds."""
    deaf = shlex.quote("trap '' TERM; echo $$ > apart; while :; do sleep 0.1; done")
    id_ = submit(f"setsid bash -c {deaf} & trap '' TERM; echo $$ > own; while :; do sleep 0.1; done", 1)
    pids = [*numbers(tmp_path / "job", "apart", "own"), server_of(id_)]
    local.cancel([id_])
    until(lambda: not any(map(is_alive, pids)))
    assert states(id_)[1].state == CANCELLED


def test_cancelling_what_waits_for_others(submit: Callable[..., str], tmp_path: Path) -> None:
    first = submit("sleep 600", 1)
    second = submit("touch begun", name="after", after=(first,))
    assert states(second)[None] == State(WAITING, "it starts after others", WAITING, node=os.uname().nodename)
    local.cancel([second, first])
    assert states(second)[None].state == states(first)[1].state == CANCELLED
    assert not (tmp_path / "after" / "begun").exists()


def test_it_goes_on_when_the_user_logs_out(
    submit: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime folder is no more then."""
    id_ = submit("until [ -e go ]; do sleep 0.05; done", 1, 2)
    until(lambda: states(id_)[1].state == RUNNING)
    (tmp_path / "run" / f"kuulo-{os.getuid()}" / "slot-0").unlink()
    (tmp_path / "run" / f"kuulo-{os.getuid()}").rmdir()
    (tmp_path / "run").rmdir()
    (tmp_path / "job" / "go").touch()
    assert {s.state for s in ended(id_).values()} == {DONE}


def test_a_folder_that_is_gone(submit: Callable[..., str], tmp_path: Path) -> None:
    id_ = submit("until [ -e ../go ]; do sleep 0.05; done; touch ../done-$1", 1, 2)
    until(lambda: states(id_)[1].state == RUNNING)
    server = server_of(id_)
    for path in sorted((tmp_path / "job").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "job").rmdir()
    (tmp_path / "go").touch()
    until(lambda: not is_alive(server))
    assert (tmp_path / "done-1").exists(), "what ran went on"
    assert states(id_) == {}, "nothing is known of it"
    local.cancel([id_])


def test_a_log_that_cannot_be_written(submit: Callable[..., str]) -> None:
    id_ = submit("true", 1, log="no/such/folder.txt")
    assert (ended(id_)[1].state, ended(id_)[1].reason) == (
        FAILED,
        "it could not be started: No such file or directory",
    )


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5"])
def test_a_limit_that_is_none(submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(local.VARIABLE, value)
    with pytest.raises(UsageError, match=local.VARIABLE):
        submit("true", 1)


def test_locks_are_not_put_where_another_user_may_be(
    submit: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid():
        pytest.skip("only root can give folders away")
    folder = tmp_path / "run" / f"kuulo-{os.getuid()}"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(CannotRun, match="it is not yours"):
        submit("true", 1)


def test_the_script_by_hand_does_the_same(tmp_path: Path) -> None:
    for name in WEIRD_NAMES.values():
        folder = tmp_path / "hand"
        folder.mkdir(exist_ok=True)
        words = 'printf "%s" "$1" > "heard-$2"; [ "$2" != 3 ]'
        array = Array(name, folder, ("bash", "-c", words, "task", name), Resources(5, 100, 1), (1, 3, 4))
        (folder / "job.sh").write_bytes(os.fsencode(local.script(array)))
        done = subprocess.run(local.submit_command(array, "job.sh"), cwd=folder, check=False)
        assert done.returncode == 1, "one of them has failed"
        for number in (1, 3, 4):
            assert (folder / f"heard-{number}").read_bytes() == os.fsencode(name)
