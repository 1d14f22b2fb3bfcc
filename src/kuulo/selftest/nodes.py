"""The self-test as jobs: one on each kind of node of the places in `[jobs]`.

Nodes of a place's partitions are of one kind when their GPUs and features are equal. Slurm chooses a node of the kind
by itself: the others are excluded.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo import survey
from kuulo.doctor import slurm as looked
from kuulo.doctor.asking import ask
from kuulo.doctor.finding import some
from kuulo.doctor.page import shown
from kuulo.doctor.slurm import Node as Computer
from kuulo.errors import CannotRun, KuuloError, UsageError
from kuulo.jobs.settings import Place
from kuulo.plan import WORKER_OVERHEAD_BYTES
from kuulo.schedulers import slurm, slurm_answers
from kuulo.schedulers.base import DONE, ENDED, WAITING, Array, Queue, Resources, State
from kuulo.selftest import outcome
from kuulo.selftest.outcome import Node
from kuulo.site import Site

MINUTES = 60
"""The time limit of a job, where the partition allows it."""

LOOK_EVERY_S = 2.0
BASE_MB = {"cpu": 2000, "gpu": 6000}
"""Memory beside the worker with its model. CUDA's libraries take some GB of the machine's, too."""

LOG_LINES = 8


@dataclass(frozen=True)
class Kind:
    """Nodes that are alike, of a place. `others`: the nodes of its partitions that are not of it."""

    place: str
    partitions: tuple[str, ...]
    words: str
    nodes: tuple[Computer, ...]
    others: tuple[str, ...]
    settings: Place
    minutes: int

    @property
    def gpu(self) -> bool:
        return self.place == "gpu"


@dataclass
class Job:
    kind: Kind
    folder: Path
    id: str = ""
    state: State | None = None
    trouble: KuuloError | None = None

    @property
    def over(self) -> bool:
        return self.trouble is not None or (self.state is not None and self.state.state in ENDED)


def run(
    site: Site, *, engines: Sequence[str] = (), model: str | None = None, gpu: bool = False, minutes: int = 60,
    told: Callable[[str], None] = lambda text: None, program: Sequence[str] = (sys.executable, "-m", "kuulo"),
) -> list[Node]:  # fmt: skip
    """What became of each kind of node, in the order of the site's file. Waits for `minutes` at most; jobs that have
    not ended then, and all when it is interrupted, are cancelled. `gpu`: the nodes with GPUs alone. `program`: what
    starts Kuulo on a node. Raises CannotRun when Slurm does not answer, UsageError when there is no place."""
    kinds = [kind for kind in find(site) if kind.gpu or not gpu]
    if not kinds:
        raise UsageError(
            "no place in [jobs] has nodes to try" + (" with GPUs" if gpu else ""),
            looked_at=str(site.site_file or "the built-in settings"),
            do="kuulo doctor --site",
        )
    folder = site.jobs_folder().path / f"selftest-{os.getpid()}-{time.time_ns()}"
    worker_mb = _worker_mb(site)
    jobs = [Job(kind, folder / f"{number}-{kind.place}") for number, kind in enumerate(kinds, 1)]
    try:
        for job in jobs:
            _submit(job, [*program, "selftest", *_arguments(engines, model)], worker_mb)
            told(f"{job.kind.place}, {job.kind.words}: {f'job {job.id}' if job.id else job.trouble}")
        _wait(jobs, minutes, told)
    finally:
        _cancel(jobs)
    nodes = [_result(job, minutes) for job in jobs]
    if all(node.ok for node in nodes):
        shutil.rmtree(folder, ignore_errors=True)
    return nodes


def find(site: Site) -> list[Kind]:
    """The kinds of nodes. Raises CannotRun when Slurm does not answer, UsageError for what [jobs] cannot be."""
    jobs = site.jobs()
    shown_ = {what: ask(["scontrol", "-o", "show", what]) for what in ("partition", "node")}
    for answer in shown_.values():
        if not answer.ok:
            raise CannotRun(f"Slurm does not answer: {answer.why}", looked_at=answer.command, do="kuulo doctor --site")
    known = {p["PartitionName"]: p for p in looked.records(shown_["partition"].out) if "PartitionName" in p}
    computers = looked.read_nodes(shown_["node"].out)
    found = _kinds("cpu", jobs.cpu, known, computers)
    return [*found, *(_kinds("gpu", jobs.gpu, known, computers) if jobs.gpu else [])]


def _kinds(name: str, place: Place, known: dict[str, dict[str, str]], computers: Sequence[Computer]) -> list[Kind]:
    partitions = tuple(looked.partitions_of(place, known))
    missing = [p for p in partitions if p not in known]
    if missing or not partitions:
        raise UsageError(
            f"[jobs.{name}]: there is no partition {missing[0]!r}" if missing else f"[jobs.{name}] names no partition",
            looked_at=f"scontrol show partition: {', '.join(known)}",
            do="kuulo doctor --site",
        )
    inside = [c for c in computers if set(partitions) & set(c.partitions)]
    wanted = place.queue.gres or "gpu"
    able = [c for c in inside if name == "cpu" or c.gres.get(wanted)]
    alike: dict[str, list[Computer]] = {}
    for computer in able:
        alike.setdefault(_words(computer), []).append(computer)
    minutes = min([MINUTES, *(limit for p in partitions if (limit := _limit(known[p])))])
    return [
        Kind(
            name, partitions, words, tuple(same),
            tuple(c.name for c in inside if c not in same), place, minutes,
        )
        for words, same in sorted(alike.items())
    ]  # fmt: skip


def _words(computer: Computer) -> str:
    """What a node has, as people call it."""
    kinds = {kind: number for kind, number in computer.gres.items() if kind.startswith("gpu:")}
    kinds = kinds or {kind: number for kind, number in computer.gres.items() if kind == "gpu"}
    gpus = [f"{number} {kind}" for kind, number in sorted(kinds.items())]
    return ", ".join([*(gpus or ["without GPU"]), *sorted(computer.features)])


def _limit(partition: dict[str, str]) -> int | None:
    seconds = slurm_answers.seconds(partition.get("MaxTime", "UNLIMITED"))
    return None if seconds is None else max(1, seconds // 60)


def _worker_mb(site: Site) -> int:
    """Of a worker with the largest model of the stores."""
    largest = max((model.bytes for model in survey.facts(site).models), default=0)
    return math.ceil((WORKER_OVERHEAD_BYTES + 2 * largest) / 2**20)


def _arguments(engines: Sequence[str], model: str | None) -> list[str]:
    return [*(word for name in engines for word in ("--engine", name)), *(["--model", model] if model else [])]


# ------------------------------------------------------------------ jobs


def _submit(job: Job, command: Sequence[str], worker_mb: int) -> None:
    kind = job.kind
    room = [c.memory_mb for c in kind.nodes if c.memory_mb]
    carried = [f"{k}={v}" for k, v in os.environ.items() if k.startswith("KUULO_") or k == "PYTHONPATH"]
    memory_mb = BASE_MB[kind.place] + worker_mb
    report = job.folder / "report.json"
    words = ["env", *carried, *command, "--report", str(report), *(["--gpu"] if kind.gpu else [])]
    if not any(computer.usable for computer in kind.nodes):
        states = sorted({computer.state for computer in kind.nodes})
        found = f"none of {some([c.name for c in kind.nodes])} takes jobs now"
        job.trouble = CannotRun(found, looked_at=", ".join(states), do="sinfo -R says why")
        return
    try:
        job.folder.mkdir(mode=0o700, parents=True)
        array = Array(
            name="kuulo-selftest",
            folder=job.folder,
            command=tuple(words),
            resources=Resources(
                minutes=kind.minutes,
                memory_mb=min([memory_mb, *(int(0.9 * size) for size in room)]),
                cpus=kind.settings.cpus,
                gpus=int(kind.gpu),
            ),
            queue=_queue(kind),
            log="log.txt",
            warning_s=0,
        )
        (job.folder / "job.sh").write_text(slurm.script(array))
        job.id = slurm.submit(array, "job.sh")
    except OSError as error:
        do = "name another place for jobs with KUULO_JOBS; nodes must see it"
        job.trouble = CannotRun(f"no job folder can be made: {error.strerror}", looked_at=str(job.folder), do=do)
    except KuuloError as error:
        job.trouble = error


def _queue(kind: Kind) -> Queue:
    """The place's own, without the nodes of other kinds."""
    queue = kind.settings.queue
    if not kind.others:
        return queue
    extra = dict(queue.extra)
    extra["exclude"] = ",".join(filter(None, [extra.get("exclude", ""), _short(kind.others)]))
    return dataclasses.replace(queue, extra=tuple(sorted(extra.items())))


def _short(names: Sequence[str]) -> str:
    """Nodes as Slurm writes them: "n[1-200]"."""
    answer = ask(["scontrol", "show", "hostlistsorted", ",".join(names)])
    return answer.out.strip() if answer.ok and answer.out.strip() else ",".join(names)


def _wait(jobs: Sequence[Job], minutes: int, told: Callable[[str], None]) -> None:
    deadline = time.monotonic() + 60 * minutes
    said: dict[str, str] = {}
    while open_ := [job for job in jobs if not job.over]:
        states = slurm.states([job.id for job in open_])
        for job in open_:
            job.state = states.get((job.id, None), job.state)
            if job.state:
                words = job.state.state + (f" ({job.state.reason})" if job.state.reason else "")
                if said.get(job.id) != words:
                    said[job.id] = words
                    told(f"job {job.id}: {words}")
            elif (job.folder / "report.json").exists():  # Slurm has forgotten it already
                job.state = State(DONE)
        if time.monotonic() > deadline:
            return
        if any(not job.over for job in open_):
            time.sleep(LOOK_EVERY_S)


def _cancel(jobs: Sequence[Job]) -> None:
    ids = [job.id for job in jobs if job.id and not job.over]
    if ids:
        slurm.cancel(ids)


def _result(job: Job, minutes: int) -> Node:
    """What the job's report says; without one, why there is none."""
    like = Node(host="", place=job.kind.place, kind=job.kind.words, job=job.id)
    if job.trouble:
        do = job.trouble.do or "kuulo doctor --site"
        return dataclasses.replace(like, why=job.trouble.what, looked_at=job.trouble.looked_at or "", do=do)
    state = job.state or State("unknown")
    like = dataclasses.replace(like, host=state.node)
    try:
        return outcome.from_json(json.loads((job.folder / "report.json").read_text()), like)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        do = "is the same Kuulo there?"
        found = f"the job's report cannot be read: {error}"
        return dataclasses.replace(like, why=found, looked_at=str(job.folder), do=do)
    if not job.over:
        what = "still waiting" if state.state == WAITING else f"still {state.state}"
        why = f"{what} after {minutes} minutes, and cancelled" + (f": {state.reason}" if state.reason else "")
        return dataclasses.replace(like, why=why, looked_at=f"job {job.id}", do="try again with more --within")
    why = f"the job is over ({state.native or state.state}) without a report"
    return dataclasses.replace(like, why=why, looked_at="\n".join(_log(job.folder)), do=f"see {job.folder}")


def _log(folder: Path) -> Iterator[str]:
    path = folder / "log.txt"
    yield str(path)
    if path.is_file():
        text = re.sub(r"\x1b\[[0-9;]*m", "", path.read_text(errors="replace"))
        yield from (shown(line) for line in text.splitlines()[-LOG_LINES:])
