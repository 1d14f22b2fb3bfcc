"""Slurm: that it answers, and that the places of `[jobs]` are there: partitions, nodes, GPUs, limits."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo.doctor.asking import Answer, ask
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, WARNING, Finding, Looking, some
from kuulo.errors import KuuloError
from kuulo.jobs.settings import JobSettings, Place
from kuulo.schedulers import slurm, slurm_answers
from kuulo.schedulers.base import Array, Resources

UNUSABLE = frozenset(
    {"DOWN", "DRAIN", "DRAINED", "DRAINING", "ERROR", "FAIL", "FAILING", "FUTURE", "INVAL", "MAINT",
     "NOT_RESPONDING", "NO_RESPOND", "UNKNOWN"}
)  # fmt: skip
"""Words in a node's state with which it takes no jobs at this moment (scontrol(1)); a `*` says that it is silent. Nodes
that Slurm has switched off to save power (POWERED_DOWN) are usable: it switches them on."""

LITTLE_MINUTES = 10


@dataclass(frozen=True)
class Node:
    """A node as scontrol shows it. `gres`: kind ("gpu", "gpu:a100") -> number."""

    name: str
    state: str
    partitions: tuple[str, ...]
    features: tuple[str, ...]
    cpus: int
    memory_mb: int
    gres: Mapping[str, int]

    @property
    def usable(self) -> bool:
        return "*" not in self.state and not UNUSABLE & set(re.findall(r"[A-Z_]+", self.state))


def check(looking: Looking) -> Iterator[Finding]:
    """The controller, the accounts, and each place of [jobs]."""
    try:
        jobs = looking.site.jobs()
    except KuuloError:  # told with the site's file
        yield Finding("[jobs]", UNKNOWN, "it is not understood", str(looking.site.site_file))
        return
    if not slurm.is_here() or jobs.scheduler not in (None, "slurm"):
        yield _without(jobs)
        return
    ping = ask(["scontrol", "ping"])
    if not ping.ok or " is UP" not in ping.out:
        said = ping.why or "; ".join(ping.out.split("\n")).strip("; ")
        yield Finding(
            "controller",
            PROBLEM,
            f"it does not answer: {said}",
            ping.command,
            "systemctl status slurmctld; is SLURM_CONF right?",
        )
        return
    version = ask(["scontrol", "--version"]).out.strip()
    yield Finding("controller", OK, f"{version}, it answers", ping.command)
    yield from _accounts()
    partitions, nodes = _shown("partition"), _shown("node")
    if not partitions.ok or not nodes.ok:
        bad = nodes if partitions.ok else partitions
        yield Finding("partitions", UNKNOWN, bad.why, bad.command, "try the command by hand")
        return
    known = {p["PartitionName"]: p for p in records(partitions.out) if "PartitionName" in p}
    every = read_nodes(nodes.out)
    for name, place in (("cpu", jobs.cpu), *([("gpu", jobs.gpu)] if jobs.gpu else [])):
        yield from _place(f"[jobs.{name}]", place, known, every, jobs.task_minutes, gpu=name == "gpu")
    yield from _gpus(every, jobs)


def _without(jobs: JobSettings) -> Finding:
    partition = jobs.cpu.queue.partition or (jobs.gpu.queue.partition if jobs.gpu else None)
    if jobs.scheduler == "slurm" or (jobs.scheduler is None and partition):
        do = "load Slurm's module, or install slurm-client; does the site's file belong to this machine?"
        return Finding("Slurm", PROBLEM, "its commands are not here", "sbatch in PATH", do)
    return Finding("Slurm", OK, "not used: jobs run on this machine, one after the other", "sbatch in PATH")


def _shown(what: str) -> Answer:
    return ask(["scontrol", "-o", "show", what])


def _accounts() -> Iterator[Finding]:
    answer = ask(["scontrol", "show", "config"])
    found = re.search(r"^AccountingStorageType\s*=\s*(\S+)", answer.out, re.M)
    if not found:
        yield Finding("accounts", UNKNOWN, answer.why or "Slurm does not say", answer.command)
        return
    if found[1] in ("(null)", "accounting_storage/none"):
        yield Finding("accounts", OK, "Slurm keeps none: `kuulo usage` knows what jobs say themselves", answer.command)
        return
    told = ask(["sacct", "-n", "-X", "--starttime=now-1hour"])
    if told.ok:
        yield Finding("accounts", OK, "sacct answers", told.command)
    else:
        yield Finding("accounts", WARNING, f"sacct: {told.why}", told.command, "systemctl status slurmdbd")


# A place of [jobs].


def _place(
    title: str, place: Place, known: Mapping[str, Mapping[str, str]], nodes: Sequence[Node], minutes: int, *, gpu: bool
) -> Iterator[Finding]:
    names = partitions_of(place, known)
    if not names:
        do = f"partition = one of {some(list(known))}"
        yield Finding(title, PROBLEM, "no partition is named, and the cluster has no default", "scontrol", do)
        return
    missing = [name for name in names if name not in known]
    for name in missing:
        near = difflib.get_close_matches(name, known, n=1)
        do = f"did you mean {near[0]}?" if near else f"there are {some(list(known))}"
        yield Finding(title, PROBLEM, f"there is no partition {name!r}", "scontrol show partition", do)
    for name in [n for n in names if n in known]:
        inside = [node for node in nodes if name in node.partitions]
        yield _partition(title, name, known[name], inside)
        yield from _limit(title, name, known[name], minutes)
        yield from _fits(title, name, place, inside, gpu=gpu)
    if not missing:
        yield _would(title, place, gpu=gpu)


def partitions_of(place: Place, known: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The partitions of a place: those that it names, else the cluster's default."""
    named = [name for name in (place.queue.partition or "").split(",") if name]
    return named or [name for name, facts in known.items() if facts.get("Default") == "YES"]


def _partition(title: str, name: str, facts: Mapping[str, str], inside: Sequence[Node]) -> Finding:
    state = facts.get("State", "UP")
    usable = [node for node in inside if node.usable]
    found = f"partition {name}: {len(usable)} of {len(inside)} nodes can be used"
    where = f"scontrol show partition {name}"
    if state != "UP":
        return Finding(
            title, PROBLEM, f"partition {name} is {state}", where, f"scontrol update Partition={name} State=UP"
        )
    if not usable:
        states = ", ".join(f"{count} {word}" for word, count in Counter(n.state for n in inside).items())
        return Finding(title, PROBLEM, f"{found} ({states or 'it has none'})", where, "sinfo -R says why")
    if 2 * len(usable) < len(inside):
        return Finding(title, WARNING, found, where, "sinfo -R says why")
    return Finding(title, OK, found, where)


def _limit(title: str, name: str, facts: Mapping[str, str], minutes: int) -> Iterator[Finding]:
    most = slurm_answers.seconds(facts.get("MaxTime", "UNLIMITED"))
    if most is not None and most // 60 < max(minutes, LITTLE_MINUTES):
        found = f"partition {name} allows {most // 60} minutes, and a task should be {minutes}"
        do = f"task_minutes = {max(1, most // 60 // 2)} in [jobs]"
        yield Finding(title, WARNING, found, f"MaxTime={facts.get('MaxTime')}", do)


def _fits(title: str, name: str, place: Place, inside: Sequence[Node], *, gpu: bool) -> Iterator[Finding]:
    """Whether some node has the CPUs, the GPU and the feature that are asked for."""
    most = max((node.cpus for node in inside), default=0)
    if inside and most < place.cpus:
        found = f"cpus = {place.cpus}, and no node of {name} has more than {most}"
        yield Finding(title, PROBLEM, found, "scontrol show node", f"cpus = {most}, or another partition")
    if gpu and inside:
        wanted = place.queue.gres or "gpu"
        having = [node for node in inside if node.gres.get(wanted)]
        if having:
            yield Finding(title, OK, f"{wanted} on {some([n.name for n in having])}", "scontrol show node")
        else:
            kinds = sorted({kind for node in inside for kind in node.gres})
            do = f"gres = one of {some(kinds)}" if kinds else "another partition; or Gres= in slurm.conf, and gres.conf"
            yield Finding(title, PROBLEM, f"no node of {name} has {wanted!r}", "Gres in scontrol show node", do)
    wish = place.queue.constraint
    if wish and re.fullmatch(r"[\w.-]+", wish) and not any(wish in node.features for node in inside):
        features = sorted({feature for node in inside for feature in node.features})
        do = f"constraint = one of {some(features)}" if features else "leave constraint out"
        yield Finding(title, PROBLEM, f"no node of {name} has the feature {wish!r}", "scontrol show node", do)


def _would(title: str, place: Place, *, gpu: bool) -> Finding:
    """What Slurm says to a small job like ours; none is submitted."""
    asked = Resources(minutes=LITTLE_MINUTES, memory_mb=100, cpus=place.cpus, gpus=int(gpu))
    with tempfile.TemporaryDirectory(prefix="kuulo-doctor-") as folder:
        path = Path(folder, "job.sh")
        try:
            path.write_text(slurm.script(Array("kuulo-doctor", Path(folder), ("true",), asked, queue=place.queue)))
        except KuuloError as error:
            return Finding(title, PROBLEM, error.what, error.looked_at or "", error.do or "correct `extra`")
        answer = ask(["sbatch", "--test-only", str(path)])
    who = os.environ.get("USER") or str(os.getuid())
    where = "sbatch --test-only"
    if answer.ok:
        return Finding(title, OK, f"Slurm would take a job of {who}", where)
    said = re.sub(r"^exit code \d+: (sbatch: )?(error: )?", "", answer.why)
    do = "account, qos, or limits? Users may be told otherwise: try it as one"
    return Finding(title, WARNING, f"Slurm would take no job of {who}: {said}", where, do)


def _gpus(nodes: Sequence[Node], jobs: JobSettings) -> Iterator[Finding]:
    """The cluster's GPUs by kind; whether the site's file uses them."""
    by_kind: dict[str, list[Node]] = {}
    for node in nodes:
        for kind in [k for k in node.gres if k.startswith("gpu:")] or [k for k in node.gres if k == "gpu"]:
            by_kind.setdefault(kind, []).append(node)
    for kind, having in sorted(by_kind.items()):
        number = sum(node.gres[kind] for node in having)
        yield Finding(
            kind, OK, f"{number} on {len(having)} nodes: {some([n.name for n in having])}", "scontrol show node"
        )
    if by_kind and jobs.gpu is None:
        do = "[jobs.gpu] with partition, gres and cpus"
        yield Finding("GPUs", WARNING, "the cluster has some, and no work goes there", "the site's file", do)
    if not by_kind:
        yield Finding("GPUs", OK, "the cluster has none", "Gres in scontrol show node")


# What scontrol prints.


def records(text: str) -> list[dict[str, str]]:
    """Lines of `scontrol -o show ...`: Key=value, where a value may have spaces."""
    return [
        dict(re.findall(r"([A-Za-z][\w:/]*)=(.*?)(?=\s+[A-Za-z][\w:/]*=|\s*$)", line)) for line in text.splitlines()
    ]


def read_nodes(text: str) -> list[Node]:
    """The nodes of `scontrol -o show node`."""
    found = []
    for facts in records(text):
        if "NodeName" in facts:
            found.append(
                Node(
                    facts["NodeName"],
                    facts.get("State", ""),
                    _words(facts.get("Partitions", "")),
                    _words(facts.get("AvailableFeatures", "")),
                    int(facts.get("CPUTot") or 0),
                    int(facts.get("RealMemory") or 0),
                    gres(facts.get("Gres", "")),
                )
            )
    return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word and word != "(null)")


def gres(text: str) -> dict[str, int]:
    """Gres of a node, "gpu:a100:4(S:0-1),gpu:v100:2,tmpdisk:9": kind -> number; every kind of a name counts for the
    name alone too."""
    found: Counter[str] = Counter()
    for part in re.sub(r"\([^)]*\)", "", text).split(","):
        name, *rest = part.strip().split(":")
        number = int(re.sub(r"\D", "", rest.pop())) if rest and re.fullmatch(r"\d+[KMGT]?", rest[-1]) else 1
        if name and name != "null":
            found[name] += number
            found.update({f"{name}:{kind}": number for kind in rest})
    return dict(found)
