"""Slurm: the script, what its commands say (literal text), and what the contract tests do not ask of a real cluster."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuulo.errors import CannotRun, UsageError
from kuulo.schedulers import slurm, slurm_words
from kuulo.schedulers import slurm_answers as answers
from kuulo.schedulers.base import (
    AGAIN,
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    NODE_FAILED,
    OUT_OF_MEMORY,
    OUT_OF_TIME,
    RUNNING,
    UNKNOWN,
    WAITING,
    Array,
    Queue,
    Resources,
    State,
)

SMALL = Resources(minutes=5, memory_mb=100, cpus=1)


def an_array(folder: Path = Path("/jobs/1"), code: str = "", **more: Any) -> Array:
    fields = {"name": "kuulo-1", "command": (sys.executable, "-c", code), "resources": SMALL, "tasks": (0,), **more}
    return Array(folder=folder, **fields)


# The script.


def test_the_script_as_it_is() -> None:
    array = Array(
        name="kuulo-interviews 2026",
        folder=Path("/home/a/it's"),
        command=("/opt/kuulo/bin/python", "-m", "kuulo", "jobs", "task", "/home/a/it's", "1"),
        resources=Resources(minutes=1530, memory_mb=6144, cpus=4, gpus=1),
        tasks=(0, 1, 2, 5, 9, 10),
        at_once=4,
        after=("17", "18;big"),
        queue=Queue("gpu", "lab", "normal", "a100|h100", "gpu:a100", (("reservation", "course"), ("exclusive", ""))),
        log="logs/round1.txt",
        mail="a@uni.example",
        comment='the "pilot"',
    )
    head, _, body = slurm.script(array).partition("\n\n")
    assert head.splitlines() == [
        "#!/bin/bash",
        "# This can be submitted by hand, from the folder that it is in.",
        '#SBATCH --job-name="kuulo-interviews 2026"',
        '#SBATCH --comment="the \\"pilot\\""',
        "#SBATCH --array=0-2,5,9-10%4",
        "#SBATCH --dependency=afterany:17:18",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=lab",
        "#SBATCH --qos=normal",
        '#SBATCH --constraint="a100|h100"',
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=6144M",
        "#SBATCH --gres=gpu:a100:1",
        "#SBATCH --time=1-01:30:00",
        "#SBATCH --mail-user=a@uni.example",
        "#SBATCH --mail-type=END,FAIL",
        "#SBATCH --output=logs/round1-%a.txt",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=B:USR1@60",
        "#SBATCH --requeue",
        "#SBATCH --reservation=course",
        "#SBATCH --exclusive",
    ]
    command = "exec /opt/kuulo/bin/python -m kuulo jobs task '/home/a/it'\"'\"'s' 1"
    assert f'{command} "$SLURM_ARRAY_TASK_ID") &' in body
    assert 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' in body


def test_what_is_asked_by_hand_takes_the_place_of_ours() -> None:
    text = slurm.script(an_array(queue=Queue(extra=(("mem", "8G"), ("time", "2:00:00")))))
    assert "#SBATCH --mem=8G\n" in text
    assert "#SBATCH --time=2:00:00\n" in text
    assert "100M" not in text


@pytest.mark.parametrize("option", ["array", "output", "open-mode", "signal"])
def test_what_the_script_needs_cannot_be_taken_from_it(option: str) -> None:
    with pytest.raises(UsageError, match=option):
        slurm.script(an_array(queue=Queue(extra=((option, "x"),))))


def test_an_option_cannot_begin_a_line_of_its_own() -> None:
    with pytest.raises(UsageError, match="line break"):
        slurm.script(an_array(queue=Queue(account="a\n#SBATCH --mem=0")))


@given(st.integers(1, 60 * 24 * 400))
def test_a_time_that_is_written_is_read_again(minutes: int) -> None:
    assert answers.seconds(slurm.duration(minutes)) == minutes * 60


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("01:00:00", 3600),
        ("1-6", 108_000),
        ("1-06:30", 109_800),
        ("2-00:00:00", 172_800),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("Partition_Limit", None),
    ],
)
def test_times(text: str, told: int | None) -> None:
    assert answers.seconds(text) == told


def test_minutes_of_a_day_and_more() -> None:
    assert [slurm.duration(m) for m in (1, 60, 1439, 1440, 4325)] == [
        "00:01:00",
        "01:00:00",
        "23:59:00",
        "1-00:00:00",
        "3-00:05:00",
    ]


@given(st.sets(st.integers(0, 300), min_size=1))
def test_numbers_that_are_written_are_read_again(tasks: set[int]) -> None:
    assert answers.expand(f"[{slurm._numbers(sorted(tasks))}%3]") == sorted(tasks)


@pytest.mark.parametrize(
    ("text", "told"),
    [("[3-8%2]", [3, 4, 5, 6, 7, 8]), ("0-6:3,9", [0, 3, 6, 9]), ("4", [4]), ("", [None]), ("N/A", [None])],
)
def test_numbers(text: str, told: list[int | None]) -> None:
    assert answers.expand(text) == told


# What the commands say, as text.

# squeue of 22.05, with QUEUE_FIELDS; its columns are padded. State names and reasons of later versions beside them.
QUEUE = """\
1  |6  |0  |COMPLETED  |0  |0  |1795456314 |1795456315 |n1 |None |
1  |7  |1  |FAILED  |768  |2  |1795456314 |1795456315 |n1 |NonZeroExitCode |
1  |8  |2  |FAILED  |9  |0  |1795456314 |1795456315 |n1 |RaisedSignal:9(Killed) |
1  |9  |3  |FAILED  |53  |0  |1795456314 |1795456315 |n1 |JobLaunchFailure |
1  |10 |4  |RUNNING  |0  |1  |1795456314 |1795456914 |n2 |None |
1  |11 |5  |COMPLETING  |0  |0  |1795456314 |1795456915 |n2 |None |
1  |12 |6  |OUT_OF_MEMORY  |125  |0  |1795456314 |1795456915 |n2 |OutOfMemory |
1  |13 |7  |TIMEOUT  |0  |0  |1795456314 |1795456915 |n2 |TimeLimit |
1  |14 |8  |NODE_FAIL  |0  |0  |1795456314 |1795456915 |n2 |NodeDown |
1  |15 |9  |PREEMPTED  |0  |0  |1795456314 |1795456915 |n2 |None |
1  |1  |12-14%2  |PENDING  |0  |0  |N/A |N/A | |JobArrayTaskLimit |
4  |4  |N/A  |PENDING  |0  |0  |1795457214 |1795457814 | |ReqNodeNotAvail, UnavailableNodes:n[1-3] |
5  |5  |N/A  |PENDING  |0  |3  |N/A |N/A | |launch failed requeued held |
6  |6  |N/A  |SOMETHING_NEW  |0  |0  |N/A |N/A | |None |
CLUSTER: other
"""


def test_what_squeue_says() -> None:
    told = answers.queue(QUEUE, {"1", "4", "5", "6"})
    words = {key: (state.state, state.exit_code, state.restarts) for key, state in told.items()}
    assert words == {
        ("1", 0): (DONE, 0, 0),
        ("1", 1): (FAILED, 3, 2),
        ("1", 2): (FAILED, 137, 0),
        ("1", 3): (FAILED, None, 0),
        ("1", 4): (RUNNING, None, 1),
        ("1", 5): (RUNNING, None, 0),
        ("1", 6): (OUT_OF_MEMORY, None, 0),
        ("1", 7): (OUT_OF_TIME, None, 0),
        ("1", 8): (NODE_FAILED, None, 0),
        ("1", 9): (CANCELLED, None, 0),
        ("1", 12): (WAITING, None, 0),
        ("1", 13): (WAITING, None, 0),
        ("1", 14): (WAITING, None, 0),
        ("4", None): (WAITING, None, 0),
        ("5", None): (WAITING, None, 3),
        ("6", None): (UNKNOWN, None, 0),
    }
    assert told["1", 4] == State(RUNNING, "", "RUNNING", "n2", started_at=1795456314, ends_by=1795456914, restarts=1)
    assert told["1", 3].reason == "its folder or its log could not be opened on its node"
    assert told["1", 9].reason == "its node was given to a job of higher rank"
    assert told["4", None].reason == "the nodes that it needs are down, draining or reserved"
    assert told["4", None].native == "PENDING (ReqNodeNotAvail, UnavailableNodes:n[1-3])"
    assert told["4", None].starts_at == 1795457214
    assert "scontrol release" in told["5", None].reason


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("AssocGrpGRES", "your account's jobs take all the GPUs that they may together"),
        ("AssocGrpEnergyRunMinutes", "your account has reached its limit on what its jobs take together"),
        ("QOSMaxJobsPerUserLimit", "you have as many jobs running as the QOS allows"),
        ("QOSMaxBillingPerUser", "it asks for more than its QOS gives a job or a user"),
        ("Priority", "others come first"),
        ("Resources", "it is next when nodes become free"),
        ("DependencyNeverSatisfied", "what it should come after never came to be: it will not start"),
        ("BrandNew", "Slurm's reason: BrandNew"),
        ("None", ""),
    ],
)
def test_reasons_are_sentences(reason: str, sentence: str) -> None:
    line = "|".join(["1", "1", "N/A", "PENDING", "0", "0", "N/A", "N/A", "", reason, ""])
    assert answers.queue(line, {"1"})["1", None].reason == sentence


@pytest.mark.parametrize("name", ["STATES", "WHY_STATE", "WHY", "HINTS"])
def test_tables_are_sorted(name: str) -> None:
    table: Mapping[str, str] = getattr(slurm_words, name)
    assert list(table) == sorted(table)


# sacct of 22.05: of a job with a second run, of an array whose last tasks were cancelled while they waited, and of a
# task that slurmdbd has not linked to its array yet (the number is the task's own).
ACCOUNTS = """\
1_0|COMPLETED|0:0|n1|1795456314
1_1|FAILED|3:0|n1|1795456314
1_2|FAILED|0:9|n1|1795456314
1_[3-4%2]|CANCELLED by 64030|0:0|None assigned|None
4|RUNNING|0:0|n1|1795456399
5|REQUEUED|0:0|n1|1795456399
6|OUT_OF_MEMORY|0:125|n2|1795456399
"""


def test_what_the_accounts_say() -> None:
    told = answers.accounts(ACCOUNTS)
    assert {key: (state.state, state.exit_code, state.node) for key, state in told.items()} == {
        ("1", 0): (DONE, 0, "n1"),
        ("1", 1): (FAILED, 3, "n1"),
        ("1", 2): (FAILED, 137, "n1"),
        ("1", 3): (CANCELLED, None, ""),
        ("1", 4): (CANCELLED, None, ""),
        ("6", None): (OUT_OF_MEMORY, None, "n2"),
    }


USAGE = """\
4|REQUEUED|1|1795456313|1795456313|1795456317|10|2||200M|billing=1,cpu=2,gres/gpu=1,gres/gpu:fake=1,mem=200M,node=1
4.batch|CANCELLED|1|1795456317|1795456317|1795456317||2|3100672||cpu=2,gres/gpu=1,mem=200M,node=1
4.0|CANCELLED|1|1795456317|1795456317|1795456317||2|4812K||cpu=2,gres/gpu=1,mem=200M,node=1
4|COMPLETED|86400|1795456318|1795456324|1795456325|2880|2||1.50Gc|billing=1,cpu=2,gres/gpu:a100=2,mem=200M,node=1
1_7|COMPLETED|5|1795456318|Unknown|1795456325||1||18446744073709551616.00M|billing=1,cpu=1
2_[0-4%2]|PENDING|0|1795456313|Unknown|Unknown|5|1||100M|
9|COMPLETED|5|1795456318|Unknown|1795456325||1||1G|billing=1,cpu=1
9.batch|COMPLETED|5|1795456318|Unknown|1795456325||1|9999999||cpu=1
"""


def test_what_was_used() -> None:
    first, second, third = answers.usage(USAGE, {"4": "4;big", "1": "1", "2": "2"})
    assert (first.id, first.task, first.state, first.elapsed_s, first.waited_s) == ("4;big", None, WAITING, 1, 4)
    assert (first.limit_s, first.cpus, first.gpus) == (600, 2, 1)
    assert (first.memory_bytes, first.memory_asked_bytes) == (4812 * 1024, 200 * 2**20)
    assert (second.state, second.elapsed_s, second.waited_s, second.gpus) == (DONE, 86400, 1, 2)
    assert (second.memory_bytes, second.memory_asked_bytes) == (None, 3 * 2**30)
    assert (third.task, third.waited_s, third.limit_s, third.memory_asked_bytes) == (7, 7, None, None)


def test_limits_of_arrays() -> None:
    assert answers.array_size("MaxArraySize            = 1001\nMaxJobCount             = 10000\n") == 1001
    some = "MaxArraySize = 1001\nMaxJobCount = 10000\nSchedulerParameters = bf_interval=1,max_array_tasks=200\n"
    assert answers.array_size(some) == 200
    with pytest.raises(CannotRun):
        answers.array_size("")


# Commands that hang or fail, which no cluster does when it is asked to.


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a program of that name on the PATH, alone with those of the system; gives the file in which it counts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "PAUSES_S", (0, 0, 0))

    def put(name: str, text: str) -> Path:
        count = tmp_path / f"{name}.count"
        count.touch()
        program = folder / name
        program.write_text(f"#!/bin/bash\necho x >>{count}\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return count

    return put


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_job_id_is_found_among_greetings(fakes: Callable[[str, str], Path], tmp_path: Path) -> None:
    fakes("sbatch", "echo Welcome; echo '4711;big'; echo done")
    assert slurm.submit(an_array(tmp_path), "job.sh") == "4711;big"
    fakes("sbatch", "echo Welcome")
    with pytest.raises(CannotRun, match="no job id"):
        slurm.submit(an_array(tmp_path), "job.sh")


def test_an_unreachable_controller_is_asked_again(fakes: Callable[[str, str], Path], tmp_path: Path) -> None:
    count = fakes(
        "sbatch",
        f"[ $(wc -l <{tmp_path}/sbatch.count) -ge 3 ] && echo 12 && exit\n"
        "echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)' >&2\n"
        "exit 1",
    )
    assert slurm.submit(an_array(tmp_path), "job.sh") == "12"
    assert lines(count) == 3


def test_a_submission_that_may_have_been_heard_is_not_repeated(
    fakes: Callable[[str, str], Path], tmp_path: Path
) -> None:
    said = "Batch job submission failed: Socket timed out on send/recv operation"
    count = fakes("sbatch", f"echo 'sbatch: error: {said}' >&2; exit 1")
    with pytest.raises(CannotRun) as error:
        slurm.submit(an_array(tmp_path), "job.sh")
    assert lines(count) == 1
    assert error.value.what == f"sbatch: {said}"
    assert error.value.looked_at == "sbatch --parsable job.sh"
    assert "squeue --me --name=kuulo-1" in (error.value.do or "")


def test_a_question_that_was_not_answered_is_asked_again(fakes: Callable[[str, str], Path]) -> None:
    fakes("sacct", "exit 1")
    count = fakes("squeue", "echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1")
    with pytest.raises(CannotRun, match="Socket timed out") as error:
        slurm.states(["1"])
    assert lines(count) == 4
    assert "scontrol ping" in (error.value.do or "")


@pytest.mark.parametrize("command", ["sbatch", "squeue", "scancel", "scontrol", "sacct"])
def test_a_command_that_hangs(
    fakes: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT_S", 0.5)
    for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct"):
        fakes(name, "exec sleep 60" if name == command else "exit 1")
    calls: dict[str, Callable[[], object]] = {
        "sbatch": lambda: slurm.submit(an_array(tmp_path), "job.sh"),
        "squeue": lambda: slurm.states(["1"]),
        "scancel": lambda: slurm.cancel(["1"]),
        "scontrol": lambda: slurm.limits(Queue()),
        "sacct": lambda: slurm.usage(["1"]),
    }
    with pytest.raises(CannotRun, match=f"^{command}: no answer within 0.5 seconds"):
        calls[command]()


def test_accounts_that_do_not_answer_do_not_hide_what_squeue_says(fakes: Callable[[str, str], Path]) -> None:
    fakes("squeue", "echo '1|1|N/A|RUNNING|0|0|N/A|N/A|n1|None|'")
    fakes("sacct", "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1")
    assert slurm.states(["1"])["1", None].state == RUNNING
    with pytest.raises(CannotRun, match="Connection refused"):
        slurm.usage(["1"])


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm.is_here()
    with pytest.raises(CannotRun, match="squeue") as error:
        slurm.states(["1"])
    assert "module" in (error.value.do or "")


def test_other_clusters_are_asked_by_name(fakes: Callable[[str, str], Path], tmp_path: Path) -> None:
    said = tmp_path / "said"
    for name in ("squeue", "sacct", "scancel"):
        fakes(name, f'echo "{name} $*" >>{said}; exit 0')
    slurm.states(["5;big", "6"])
    slurm.cancel(["5;big"])
    text = said.read_text()
    assert re.search(r"^squeue --clusters=big .*--jobs=5 ", text, re.MULTILINE)
    assert re.search(r"^squeue -h .*--jobs=6 ", text, re.MULTILINE)
    assert re.search(r"^sacct --clusters=big .*--jobs=5 ", text, re.MULTILINE)
    assert re.search(r"^scancel --clusters=big 5$", text, re.MULTILINE)


def test_an_id_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="no job id"):
        slurm.cancel(["--user=root"])


# A real cluster.


@pytest.fixture
def cluster(user_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    user_cluster.use(monkeypatch)
    return user_cluster


def submitted(cluster: Any, code: str = "", **more: Any) -> tuple[str, Array]:
    folder = cluster.folder()
    (folder / "logs").mkdir()
    cluster.own(folder / "logs")
    array = an_array(folder, code, **more)
    (folder / "job.sh").write_text(slurm.script(array))
    return slurm.submit(array, "job.sh"), array


def until(id_: str, task: int | None, true: Callable[[State], bool], patience_s: float = 90) -> State:
    deadline = time.monotonic() + patience_s
    while True:
        state = slurm.states([id_]).get((id_, task))
        if state and true(state):
            return state
        assert time.monotonic() < deadline, state
        time.sleep(0.3)


def has_ended(state: State) -> bool:
    return state.state in ENDED


def test_limits(cluster: Any) -> None:
    assert slurm.limits(Queue()) == slurm.Limits(4001, 60)
    assert slurm.limits(Queue(partition="long")).minutes is None
    assert slurm.limits(Queue(partition="cpu,gpu")).minutes == 60
    with pytest.raises(UsageError, match="no partition 'grey'") as error:
        slurm.limits(Queue(partition="cpu,grey"))
    assert "cpu, gpu, long, urgent" in str(error.value)


@pytest.mark.parametrize(
    ("queue", "resources", "words", "hint"),
    [
        (Queue(partition="grey"), SMALL, "invalid partition", "sinfo"),
        (Queue(), Resources(5, 10**6, 1), "Memory specification", "--mem"),
        (Queue(gres="gpu:h100"), Resources(5, 100, 1, gpus=1), "not available|generic resource", "sinfo"),
        (Queue(extra=(("no-such-option", "1"),)), SMALL, "unrecognized option", None),
    ],
)
def test_what_slurm_refuses_is_said(
    cluster: Any, queue: Queue, resources: Resources, words: str, hint: str | None
) -> None:
    with pytest.raises(CannotRun, match=words) as error:
        submitted(cluster, queue=queue, resources=resources)
    assert error.value.what.startswith("sbatch: ")
    assert (hint or "") in (error.value.do or "")


def test_when_it_would_start(cluster: Any) -> None:
    folder = cluster.folder()
    array = an_array(folder)
    (folder / "job.sh").write_text(slurm.script(array))
    assert re.fullmatch(r"Job \d+ to start at 20\d\d-\S+ using 1 processors .*", slurm.would_start(array, "job.sh"))


def test_a_job_that_we_are_in_says_nothing_of_the_next(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SBATCH_ variables would override the script, and SLURM_ ones what it asks for; a partition of choice is kept."""
    inside = {
        "SBATCH_ARRAY_INX": "0-99",
        "SBATCH_MEM_PER_NODE": "3000",
        "SBATCH_PARTITION": "long",
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_WAIT": "1",
        "SLURM_JOB_ID": "1",
        "SLURM_MEM_PER_CPU": "4000",
        "SLURM_NTASKS": "64",
        "SLURM_TIME_FORMAT": "%d",
        "SQUEUE_STATES": "SUSPENDED",
    }
    for name, value in inside.items():
        monkeypatch.setenv(name, value)
    code = "import os; print(sorted(k for k in os.environ if k in ('SLURM_TIME_FORMAT', 'SLURM_NTASKS')))"
    id_, array = submitted(cluster, code)
    assert until(id_, 0, has_ended).state == DONE
    assert (array.folder / "logs/task-0.txt").read_text() == "['SLURM_NTASKS']\n"
    job = cluster.run(["scontrol", "-o", "show", "job", id_]).stdout
    assert "Partition=long" in job
    assert "TimeLimit=00:05:00" in job
    assert "MinMemoryNode=100M" in job
    _, other = submitted(cluster, queue=Queue(partition="cpu"))
    assert "SBATCH_PARTITION" not in slurm._environment(other)


def test_a_held_job_and_its_release(cluster: Any) -> None:
    id_, _ = submitted(cluster, tasks=(), queue=Queue(extra=(("hold", ""),)))
    state = until(id_, None, lambda state: state.state == WAITING)
    assert state.reason == "it is held: scontrol release ID lets it go"
    cluster.run(["scontrol", "release", id_], check=True)
    assert until(id_, None, has_ended).state == DONE


def test_what_slurm_does_not_know(cluster: Any) -> None:
    assert slurm.states(["99999999"]) == {}
    slurm.cancel(["99999999"])
    assert slurm.usage(["99999999"]) == []  # there are no accounts either


def test_a_log_that_cannot_be_opened(cluster: Any) -> None:
    folder = cluster.folder()
    array = an_array(folder)
    (folder / "job.sh").write_text(slurm.script(array))
    state = until(slurm.submit(array, "job.sh"), 0, has_ended)
    assert (state.state, state.exit_code) == (FAILED, None)
    assert state.reason == "its folder or its log could not be opened on its node"


def test_thousands_of_tasks(cluster: Any) -> None:
    tasks = (*range(3000), *range(3001, 4000, 2))
    id_, array = submitted(cluster, tasks=tasks, at_once=1, queue=Queue(extra=(("hold", ""),)))
    assert sorted(task for _, task in slurm.states([id_])) == list(tasks)
    slurm.cancel([id_])
    with pytest.raises(UsageError, match="so many tasks with gaps"):
        slurm.script(an_array(array.folder, tasks=tuple(range(0, 4000, 2))))


def test_a_job_that_can_never_start_says_so(cluster: Any) -> None:
    id_, _ = submitted(cluster, resources=Resources(120, 100, 1))
    state = until(id_, 0, lambda state: bool(state.reason))
    slurm.cancel([id_])
    assert state.reason.endswith("it will not start")


GOES_ON = f"""
import os, signal, sys, time
def stop(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit({AGAIN})
signal.signal(signal.SIGUSR1, stop)
print(os.environ['SLURMD_NODENAME'], flush=True)
if os.path.exists('begun'):
    sys.exit(0)
open('begun', 'w').close()
time.sleep(600)"""


def test_a_job_of_higher_rank_takes_the_node(cluster: Any) -> None:
    node = cluster.nodes[1]
    alone = (("nodelist", node), ("exclusive", ""))
    id_, array = submitted(cluster, GOES_ON, queue=Queue("cpu", extra=alone))
    until(id_, 0, lambda _: (array.folder / "begun").exists())
    urgent, _ = submitted(cluster, "import time; time.sleep(1)", queue=Queue("urgent", extra=alone))
    assert until(urgent, 0, has_ended).state == DONE
    state = until(id_, 0, has_ended)
    assert (state.state, state.restarts) == (DONE, 1)
    assert "SIGUSR1" in (array.folder / "logs/task-0.txt").read_text()


def test_a_node_that_fails(cluster: Any) -> None:
    node = cluster.nodes[2]
    first = (("nodelist", node),)
    id_, array = submitted(cluster, GOES_ON, queue=Queue(extra=first))
    until(id_, 0, lambda _: (array.folder / "begun").exists())
    cluster.fail_node(node)
    try:
        state = until(id_, 0, lambda state: state.restarts == 1, patience_s=60)
        assert state.state == WAITING
    finally:
        cluster.start_slurmd(node)
    assert until(id_, 0, has_ended).state == DONE


def test_memory_that_was_not_asked_for(root_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root_cluster.use(monkeypatch)
    id_, _ = submitted(root_cluster, "bytearray(300_000_000)")
    state = until(id_, 0, has_ended)
    assert (state.state, state.exit_code) == (OUT_OF_MEMORY, None)


def test_accounts_remember_what_slurm_forgets(accounts_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts_cluster.use(monkeypatch)
    code = f"""
import os, sys, time
if sys.argv[-1] == '1':
    sys.exit(3)
x = bytearray(50_000_000)
time.sleep(2)
first = not os.path.exists('begun')
open('begun', 'w').close()
sys.exit({AGAIN} if first else 0)"""
    id_, _ = submitted(accounts_cluster, code, tasks=(0, 1), queue=Queue("gpu"), resources=Resources(5, 100, 1, 1))
    assert until(id_, 0, lambda state: state.state == DONE).state == DONE

    def told() -> str:
        return accounts_cluster.run(["squeue", "-h", "-t", "all", "-j", id_]).stdout

    deadline = time.monotonic() + 120
    while told():
        assert time.monotonic() < deadline
        time.sleep(1)
    assert {task: (s.state, s.exit_code) for (_, task), s in slurm.states([id_]).items()} == {
        0: (DONE, 0),
        1: (FAILED, 3),
    }
    runs = [u for u in slurm.usage([id_]) if u.task == 0]
    assert [run.state for run in runs] == [WAITING, DONE]
    for run in runs:
        assert 2 <= run.elapsed_s < 60
        assert (run.limit_s, run.cpus, run.gpus, run.memory_asked_bytes) == (300, 1, 1, 100 * 2**20)
        assert 50_000_000 < (run.memory_bytes or 0) < 100_000_000
        assert 0 <= (run.waited_s or 0) < 60
    assert slurm.states([f"{id_};tests"])[f"{id_};tests", 1].exit_code == 3


def test_a_controller_that_is_down(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = cluster.folder() / "slurm.conf"
    conf.write_text(re.sub(r"(?m)^SlurmctldPort=.*$", "SlurmctldPort=1", cluster.conf.read_text()))
    monkeypatch.setenv("SLURM_CONF", os.fspath(conf))
    monkeypatch.setattr(slurm, "PAUSES_S", ())
    with pytest.raises(CannotRun, match="Unable to contact slurm controller") as error:
        slurm.states(["1"])
    assert "try again later" in (error.value.do or "")
