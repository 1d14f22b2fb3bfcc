"""A site's file, written from answers: what is asked, what is proposed, and the text."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo import site_file
from kuulo.site_file import Key


@dataclass(frozen=True)
class Question:
    """What is asked for a key. `key` is `TABLE.NAME`, or a name on top. `proposal`: what is taken without an answer, as
    people type it; empty: the key is left out."""

    key: str
    ask: str
    proposal: str = ""

    @property
    def about(self) -> Key:
        return about(self.key)


JOBS: Mapping[str, Key] = {
    "partition": Key("text", "Slurm's partition.", '"batch"'),
    "account": Key("text", "The account that is charged.", '"project"'),
    "cpus": Key("number", "CPUs of a task.", "8"),
    "gres": Key("text", "What a task with a GPU asks for, without the number.", '"gpu:a100"'),
}
"""Keys of [jobs.cpu] and [jobs.gpu] that are asked for; jobs/settings.py has all."""


def about(key: str) -> Key:
    """What a key is."""
    table, _, name = key.rpartition(".")
    if table.startswith("jobs."):
        return JOBS[name]
    return site_file.TABLES[table][name] if table else site_file.TOP[name]


def questions(base: Path, partitions: Sequence[tuple[str, str]]) -> list[Question]:
    """What is asked, in the file's order. `base`: the folder that is proposed for everything; `partitions`: Slurm's, as
    (name, GRES), the default one first."""
    with_gpu = next(((name, gres) for name, gres in partitions if gres.startswith("gpu")), None)
    cpu = next((name for name, gres in partitions if not gres.startswith("gpu")), None)
    return [
        Question("name", "What is the centre called?"),
        Question("contact", "Whom do users ask (an address or a page)?"),
        Question("stores", "Where are models, read-only for users?", str(base / "models")),
        Question("images", "Where are container images of engines?", str(base / "images")),
        Question("container", "What starts them?", found_container() or ""),
        Question("scratch", "Where do runs keep what they need for a while?"),
        Question("defaults.model", "Which model do users get when they name none?"),
        Question("jobs.cpu.partition", "Which partition takes work without a GPU?", cpu or ""),
        Question("jobs.gpu.partition", "Which partition has GPUs?", with_gpu[0] if with_gpu else ""),
        Question("jobs.gpu.gres", "What do GPU jobs ask for?", with_gpu[1] if with_gpu else ""),
        Question("deploy.folder", "Where are deployed versions?", str(base)),
        Question("deploy.modules", "Which folder of MODULEPATH gets the modules?", str(base / "modules")),
        Question("portal.folder", "Where are Open OnDemand's apps, if you have it?"),
        Question("portal.cluster", "What does it call the cluster?"),
    ]


def found_container() -> str | None:
    """What starts images here."""
    programs = {"apptainer": "apptainer", "singularity": "singularity", "ch-run": "charliecloud"}
    return next((name for program, name in programs.items() if shutil.which(program)), None)


def partitions() -> list[tuple[str, str]]:
    """Slurm's partitions with the GRES of their nodes, the default one first; none where Slurm does not answer."""
    if not shutil.which("sinfo"):
        return []
    try:
        done = subprocess.run(
            ["sinfo", "-h", "-o", "%P|%G"], capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    found: dict[str, str] = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        name, _, gres = line.partition("|")
        kind = gres.split("(")[0].split(",")[0].rpartition(":")[0] if gres.startswith("gpu") else ""
        if not found.get(name):
            found[name] = kind
    ordered = sorted(found.items(), key=lambda item: not item[0].endswith("*"))
    return [(name.rstrip("*"), gres) for name, gres in ordered]


def text(answers: Mapping[str, str]) -> str:
    """The file: each key with what it is. `answers` as people typed them, by key; empty ones are left out."""
    lines = ["# The site's file of Kuulo. All keys: docs/site.md. `kuulo site check` reads it.", ""]
    table = ""
    for key, answer in answers.items():
        if not answer:
            continue
        where, _, name = key.rpartition(".")
        if where != table:
            lines += ["", f"[{where}]"]
            table = where
        value = _value(key, answer)
        lines.append(f"{name} = {value}".ljust(48) + f"  # {_about(key)}")
    return "\n".join(lines) + "\n"


def _about(key: str) -> str:
    if key.startswith("defaults."):
        return "What users get when they name none."
    return about(key).help


def _value(key: str, answer: str) -> str:
    kind = "text" if key.startswith("defaults.") else about(key).kind
    if kind in ("paths", "names"):
        parts = [part.strip() for part in answer.split(",") if part.strip()]
        return json.dumps(parts, ensure_ascii=False)
    if kind == "number" and answer.isdigit():
        return answer
    return json.dumps(answer, ensure_ascii=False)
