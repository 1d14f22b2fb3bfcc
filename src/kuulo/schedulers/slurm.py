"""Tasks as Slurm's job arrays: the batch script, the commands, and what they answer in plain words.

Nothing goes through a shell but the batch script, in which everything is quoted. What is said here of Slurm's ways was
seen with 22.05.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from kuulo.errors import CannotRun, UsageError
from kuulo.schedulers import slurm_answers as answers
from kuulo.schedulers.base import AGAIN, Array, Limits, Queue, State, Usage
from kuulo.schedulers.slurm_words import HINTS

TIMEOUT_S = 60
"""How long a command may take."""

PAUSES_S = (1, 4)
"""Between tries, when the controller could not be reached or did not answer. Each try is Slurm's own tries, for 17
seconds where the controller is down (seen)."""

ARRAY_CHARACTERS = 4096
"""How long the list of an array's numbers may be (seen; sbatch then speaks of a "parameter too long")."""

UNREACHED = ("Unable to contact slurm controller",)
UNANSWERED = ("Socket timed out", "Zero Bytes were transmitted", "Connection timed out")
"""What Slurm's commands say when nothing was asked of the controller, and when it may have heard but did not answer."""

UNKNOWN_JOB = "Invalid job id specified"
NO_ACCOUNTS = "accounting storage is disabled"

OURS = frozenset({"array", "chdir", "error", "open-mode", "output", "parsable", "requeue", "signal", "wait", "wrap"})
"""Options that the script needs as they are."""

DEFAULTS: Mapping[str, str] = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CLUSTERS": "clusters",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
}
"""Variables with which a user or a site chooses for every job; they count where the script has nothing of its own.
Slurm would have them, and every other SBATCH_ variable, override the script."""

OWN_VARIABLES = ("SACCT_", "SBATCH_", "SCANCEL_", "SCONTROL_", "SLURM_", "SQUEUE_")
CLUSTER_VARIABLES = frozenset({"SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"})
"""Slurm's variables: of a job that we may be in, or filters that would hide jobs; and those that say which Slurm."""


def is_here() -> bool:
    """Whether Slurm's commands are on this machine. Calls none."""
    return shutil.which("sbatch") is not None


# The script.

SCRIPT = """\
#!/bin/bash
# This can be submitted by hand, from the folder that it is in.
{directives}
{redirect}
# Signals go on to the work: Slurm's warning (USR1), and its wish that we end (TERM). The work is in the background
# since bash runs a trap only while it waits; until it listens to warnings it does not hear them.
trap 'kill -USR1 "$work"' USR1
trap 'kill -TERM "$work" 2>/dev/null' TERM
(trap '' USR1; exec {command}) &
work=$!
while wait "$work"; kill -0 "$work" 2>/dev/null; do :; done
wait "$work"
code=$?

if [ "$code" -eq {again} ]; then  # It wants to go on later. Slurm ends this run then.
    scontrol requeue "{job}" && {{ sleep 300 & wait $!; }}
fi
exit "$code"
"""


def script(array: Array) -> str:
    """The text of the batch script, which can be submitted by hand from the array's folder. Pure. Raises UsageError."""
    command = shlex.join(array.command)
    number = '"$SLURM_ARRAY_TASK_ID"'
    return SCRIPT.format(
        directives="\n".join(_directive(name, value) for name, value in _options(array).items()),
        redirect=_redirect(array),
        command=f"{command} {number}" if array.tasks else command,
        again=AGAIN,
        job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if array.tasks else "$SLURM_JOB_ID",
    )


def submit_command(array: Array, script: str) -> list[str]:
    """The exact command that submits the script of this file name in the array's folder. Pure."""
    return ["sbatch", "--parsable", script]


def _options(array: Array) -> dict[str, str]:
    """sbatch's long options, without dashes, in the order of the script; an empty value is none. What is in `extra`
    takes the place of ours."""
    ask, queue = array.resources, array.queue
    refused = sorted(OURS & {name for name, _ in queue.extra})
    if refused:
        raise UsageError(f"Kuulo needs sbatch's --{refused[0]} itself", do=f"leave {refused[0]} out")
    numbers = _numbers(array.tasks) + (f"%{array.at_once}" if array.tasks and array.at_once else "")
    if len(numbers) > ARRAY_CHARACTERS:
        raise UsageError(
            "one array cannot name so many tasks with gaps between their numbers",
            looked_at=f"{len(array.tasks)} tasks, {len(numbers)} characters; Slurm takes {ARRAY_CHARACTERS}",
            do="submit them in parts",
        )
    options = {
        "job-name": _one_line(array.name),
        "comment": _one_line(array.comment),
        "array": numbers,
        "dependency": ":".join(["afterany", *(_number(id_) for id_ in array.after)]) if array.after else "",
        "partition": queue.partition or "",
        "account": queue.account or "",
        "qos": queue.qos or "",
        "constraint": queue.constraint or "",
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(ask.cpus),
        "mem": f"{ask.memory_mb}M",
        "gres": f"{queue.gres or 'gpu'}:{ask.gpus}" if ask.gpus else "",
        "time": duration(ask.minutes),
        "mail-user": array.mail or "",
        "mail-type": "END,FAIL" if array.mail else "",
        "output": _output(array),
        "open-mode": "append",
        "signal": f"B:USR1@{array.warning_s}" if array.warning_s else "",
    }
    kept = {name: value for name, value in options.items() if value}
    return {**kept, "requeue": "", **dict(queue.extra)}


def _directive(name: str, value: str) -> str:
    """A line of the script. Slurm splits it as a shell would, except that a backslash counts in every quote; it ends
    at a line's end, whatever is quoted."""
    if re.search(r"[\x00-\x1f\x7f]", name + value):
        raise UsageError(f"sbatch's --{_one_line(name)} cannot have a line break: {value!r}")
    if not value:
        return f"#SBATCH --{name}"
    if re.fullmatch(r"[\w@%+=:,./\[\]-]+", value, re.ASCII):
        return f"#SBATCH --{name}={value}"
    return f'#SBATCH --{name}="' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _one_line(text: str) -> str:
    """A label for people, without what would break a line."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)


def _needs_redirect(array: Array) -> bool:
    """Whether Slurm cannot open the log by itself: it takes `%` and backslashes in the folder's name for its own
    (seen with 22.05), and there is no way to quote a backslash."""
    return bool(re.search(r"[%\\]", f"{array.folder}")) or "\\" in array.log


def _output(array: Array) -> str:
    if _needs_redirect(array):
        return "/dev/null"
    path = PurePath(array.log.replace("%", "%%"))
    return str(path.with_name(f"{path.stem}-%a{path.suffix}") if array.tasks else path)


def _redirect(array: Array) -> str:
    """The lines that open the log where Slurm cannot."""
    if not _needs_redirect(array):
        return ""
    path = PurePath(array.log)
    name = shlex.quote(f"{path.with_suffix('')}-") + '"$SLURM_ARRAY_TASK_ID"' + shlex.quote(path.suffix)
    return f"exec >>{name if array.tasks else shlex.quote(array.log)} 2>&1  # Slurm cannot open it: the folder's name\n"


def duration(minutes: int) -> str:
    """Minutes as Slurm takes them: "08:30:00", "2-00:00:00"."""
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60:02}:{rest % 60:02}:00"
    return f"{days}-{clock}" if days else clock


def _numbers(tasks: Sequence[int]) -> str:
    """The numbers as sbatch takes them: "0-3,7"."""
    ranges: list[list[int]] = []
    for number in sorted(set(tasks)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


# Asking Slurm.


def submit(array: Array, script: str) -> str:
    """Submit it; its id: a number, followed by `;` and the cluster's name where there are several. Raises CannotRun;
    when sbatch gave no answer, the error says how to find out whether it was queued."""
    answer = _call(submit_command(array, script), array=array).stdout
    for line in reversed(answer.splitlines()):
        if re.fullmatch(r"\d+(;\S+)?", line.strip()):
            return line.strip()
    raise CannotRun("sbatch gave no job id", looked_at=repr(answer), do="squeue --me tells whether it was queued")


def would_start(array: Array, script: str) -> str:
    """When it would start, in Slurm's words; nothing is submitted. Raises CannotRun when Slurm would not take it."""
    said = _call(["sbatch", "--test-only", script], array=array).stderr
    return said.replace("sbatch: ", "").strip()


def limits(queue: Queue) -> Limits:
    """Tasks in one array and minutes of a task in the queue's partition: where several are named, in the one that
    allows the most. Limits of accounts and QOS are not known. Raises UsageError when there is no such partition."""
    partitions = answers.partitions(_call(["scontrol", "-o", "show", "partition"]).stdout)
    named = queue.partition or os.environ.get("SBATCH_PARTITION") or ""
    names = [n for n in named.split(",") if n] or [name for name, (default, _) in partitions.items() if default]
    if not names:
        raise UsageError(
            "this cluster has no default partition",
            looked_at=", ".join(partitions),
            do="name one: --slurm partition=NAME",
        )
    missing = [name for name in names if name not in partitions]
    if missing:
        raise UsageError(f"there is no partition {missing[0]!r}", looked_at=", ".join(partitions))
    allowed = [partitions[name][1] for name in names]
    tasks = answers.array_size(_call(["scontrol", "show", "config"]).stdout)
    return Limits(tasks, None if None in allowed else max(m for m in allowed if m is not None))


def states(ids: Sequence[str]) -> dict[tuple[str, int | None], State]:
    """What became of each task of these submissions: from squeue, which forgets what ended some minutes ago, and from
    the accounts, where the site keeps them. Asks both at each call. Raises CannotRun when squeue does not answer."""
    known: dict[tuple[str, int | None], State] = {}
    for where, by_number in _by_cluster(ids).items():
        jobs = ",".join(by_number)
        told = _from_accounts(where, jobs)
        ask = ["squeue", *where, "-h", "-r", "--states=all", f"--jobs={jobs}"]
        ask.append("--Format=" + ",".join(f"{field}|" for field in answers.QUEUE_FIELDS))
        told.update(answers.queue(_call(ask, none_if=(UNKNOWN_JOB,)).stdout, by_number))
        known.update({(by_number[n], task): state for (n, task), state in told.items() if n in by_number})
    return known


def _from_accounts(where: Sequence[str], jobs: str) -> dict[tuple[str, int | None], State]:
    """What the accounts remember; nothing where there are none or they do not answer: squeue tells what goes on."""
    ask = ["sacct", *where, "-n", "-P", "-X", f"--jobs={jobs}", f"--format={','.join(answers.ACCOUNT_FIELDS)}"]
    try:
        return answers.accounts(_call(ask, none_if=(NO_ACCOUNTS,)).stdout)
    except CannotRun:
        return {}


def cancel(ids: Sequence[str]) -> None:
    """End these submissions, also those that wait. One that has ended or that Slurm has forgotten is no error. Raises
    CannotRun."""
    for where, by_number in _by_cluster(ids).items():
        _call(["scancel", *where, *by_number], none_if=(UNKNOWN_JOB, "already completing or completed"))


def quiet(ids: Sequence[str]) -> None:
    """Tell nobody by mail about these submissions, after all. Raises CannotRun."""
    for where, by_number in _by_cluster(ids).items():
        for number in by_number:
            _call(["scontrol", *where, "update", f"JobId={number}", "MailType=NONE"])


def usage(ids: Sequence[str]) -> list[Usage]:
    """What each run of their tasks took: a task that was queued again has one for each run, with the state `WAITING`
    for those after which it went back into the queue. Empty without accounts. Raises CannotRun when they do not answer.
    """
    taken = []
    for where, by_number in _by_cluster(ids).items():
        ask = ["sacct", *where, "-n", "-P", "--duplicates", "--noconvert", f"--jobs={','.join(by_number)}"]
        done = _call([*ask, f"--format={','.join(answers.USAGE_FIELDS)}"], none_if=(NO_ACCOUNTS,))
        taken += answers.usage(done.stdout, by_number)
    return taken


def _by_cluster(ids: Sequence[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """For each cluster, as options of a command: number -> id as we gave it."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for id_ in ids:
        number, _, cluster = id_.partition(";")
        if not number.isdigit():
            raise UsageError(f"{id_!r} is no job id of Slurm")
        found.setdefault((f"--clusters={cluster}",) if cluster else (), {})[number] = id_
    return found


def _number(id_: str) -> str:
    return id_.partition(";")[0]


def _call(
    argv: Sequence[str], *, array: Array | None = None, none_if: Iterable[str] = ()
) -> subprocess.CompletedProcess[str]:
    """What a command of Slurm's prints, also when it fails with one of the messages in `none_if`. A controller that
    cannot be reached is asked again; one that may have heard a submission is not. Raises CannotRun."""
    again = UNREACHED if array else UNREACHED + UNANSWERED
    for pause in (*PAUSES_S, None):
        done = _once(argv, array)
        if done.returncode == 0 or any(words in done.stderr for words in none_if):
            return done
        if pause is None or not any(words in done.stderr for words in again):
            break
        time.sleep(pause)
    raise _failed(argv, array, done.stderr.strip() or f"exit code {done.returncode}")


def _once(argv: Sequence[str], array: Array | None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            cwd=array.folder if array else None,
            env=_environment(array),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(argv, array, f"no answer within {TIMEOUT_S} seconds", UNANSWERED[0]) from error
    except OSError as error:
        raise CannotRun(
            f"{argv[0]} cannot be started: {error.strerror}",
            looked_at=os.fspath(error.filename),
            do=None if shutil.which(argv[0]) else "log in to the cluster, or load its Slurm module",
        ) from error


def _environment(array: Array | None) -> dict[str, str]:
    """Our variables without those of a job that we may be in. Times come as POSIX seconds, but not sbatch's, which
    hands its variables on to the job."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OWN_VARIABLES) or k in CLUSTER_VARIABLES}
    if array is None:
        return {**kept, "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
    set_by_us = _options(array)
    return {**kept, **{k: os.environ[k] for k, name in DEFAULTS.items() if k in os.environ and name not in set_by_us}}


def _failed(argv: Sequence[str], array: Array | None, said: str, cause: str = "") -> CannotRun:
    unanswered = any(words in (cause or said) for words in UNANSWERED)
    do = next((hint for words, hint in HINTS.items() if words in said), None)
    if unanswered or any(words in said for words in UNREACHED):
        do = "Slurm's controller is busy or down (scontrol ping tells): try again later"
    if unanswered and array and "--test-only" not in argv:
        name = shlex.quote(_one_line(array.name))
        do = f"it may be in the queue all the same: squeue --me --name={name} tells; scancel it before you try again"
    lines = [re.sub(r"^\w+: (error: )?", "", line) for line in said.splitlines()]
    return CannotRun(f"{argv[0]}: {'; '.join(lines)}", looked_at=shlex.join(argv), do=do)
