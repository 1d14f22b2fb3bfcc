"""Proves that a version works, before users get it and whenever somebody asks: every part is really used.

Each proof runs as a program of its own, with an empty home and a scratch folder that are gone afterwards.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuulo import miniature, naming, site_check
from kuulo.deploy import library, making, module
from kuulo.deploy.base import Deployment
from kuulo.errors import KuuloError
from kuulo.formats import json as master
from kuulo.selftest.outcome import FAILED, PASSED

TIME_LIMIT_S = 900
"""How long one proof may take: loading a large model from a busy disk takes minutes."""

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
KEPT = ("CUDA_VISIBLE_DEVICES", "LOGNAME", "SHELL", "USER")
"""What a proof has of our variables: it is to find what a user finds who has just logged in."""

LMOD = ("/usr/share/lmod/lmod/init/bash", "/etc/profile.d/lmod.sh", "/etc/profile.d/z00_lmod.sh")
"""Where Lmod begins, if LMOD_PKG does not say."""


@dataclass(frozen=True)
class Proof:
    """`ok`: True, False, or None for what could not be tried or may be meant; `said` says what was seen."""

    what: str
    ok: bool | None
    said: str


def prove(made: Deployment, tell: Callable[[Proof], None], *, nodes: bool = False) -> list[Proof]:
    """All proofs of a version that is written. `tell` is called as each ends. `nodes`: also as Slurm's jobs, one on
    each kind of node."""
    found = []
    with tempfile.TemporaryDirectory(prefix="kuulo-prove-") as folder:
        for proof in _proofs(made, Path(folder), nodes=nodes):
            tell(proof)
            found.append(proof)
    return found


def _proofs(made: Deployment, scratch: Path, *, nodes: bool) -> Iterator[Proof]:
    program = str(made.program)
    yield _open(made)
    yield _run("the command", [program, "--version"], scratch, expect=made.version.rpartition("-")[0])
    yield _run(
        "the settings", [program, "site", "check", "--quiet"], scratch, good="they can be read, and fit together"
    )
    yield _transcript(made, scratch)
    yield from _selftest(made, scratch)
    for one in module.modules(made):
        yield _module(made, one, scratch)
    app = made.folder / making.APP
    if app.is_dir():
        yield _run("the portal's app", [program, "portal", "check", str(app)], scratch, good="no mistake was found")
    if nodes:
        yield from _on_nodes(made)


def _selftest(made: Deployment, scratch: Path) -> Iterator[Proof]:
    """Every engine that users get, through every stage of a run."""
    done = _call([str(made.program), "selftest", "--json"], scratch)
    nodes = _nodes(done)
    if nodes is None:
        yield _judged("the self-test", done, "")
        return
    yield from (_outcome(one) for node in nodes for one in node["outcomes"])


def _on_nodes(made: Deployment) -> Iterator[Proof]:
    """The same on each kind of node, as jobs of who deploys, whose folders the nodes see."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("KUULO_", "PYTHON", "VIRTUAL_ENV"))}
    command = [str(made.program), "selftest", "--on", "slurm", "--json"]
    done = _called(command, Path.home(), environ, 2 * 3600)
    nodes = _nodes(done)
    if nodes is None:
        yield _judged("nodes", done, "")
        return
    for node in nodes:
        where = f"{node['host'] or 'no node'} ({node['kind']})"
        if node["why"]:
            yield Proof(where, False, f"{node['why']}: {node['looked_at']}")
        for one in node["outcomes"]:
            proof = _outcome(one)
            yield dataclasses.replace(proof, what=f"{where}: {proof.what}")


def _nodes(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]] | None:
    """What a self-test says; None when it says nothing."""
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["nodes"]
    except (ValueError, KeyError, TypeError):
        return None
    return found


def _outcome(one: Mapping[str, Any]) -> Proof:
    """What became of a pipeline."""
    who = " + ".join(filter(None, [one["engine"], one["speaker_engine"]]))
    failures = [f"{stage['name']}: {stage['found']}" for stage in one["stages"] if not stage["ok"]]
    state = {PASSED: True, FAILED: False}.get(one["state"])
    good = f"on {one['device']}" if one["device"] else "; ".join(stage["found"] for stage in one["stages"])
    return Proof(f"the engine {who}, {one['model'] or 'no model'}", state, "; ".join(failures) or good)


def _open(made: Deployment) -> Proof:
    """Whether everybody reaches all that it needs, by the permissions of the folders on the way."""
    what = "open to users"
    needed = [made.folder, made.folder / library.PYTHON, *library.packages(), *made.site.centre.stores]
    needed += [environment.folder for environment in made.environments.values()]
    for path in needed:
        closed = site_check.closed(path) if path.exists() else None
        if closed:
            return Proof(what, None, f"not everybody may enter {closed}, where {path.name} is: {path}")
    return Proof(what, True, "by the permissions of the files and of the folders above them")


def _transcript(made: Deployment, scratch: Path) -> Proof:
    """A clip, with the defaults that users get."""
    what, out = "a transcript", scratch / "out"
    proof = _run(what, [str(made.program), "transcribe", str(miniature.CLIP), "-o", str(out), "--quiet"], scratch)
    if proof.ok is False:
        return proof
    try:
        transcript = master.read_master(out / f"{miniature.CLIP.stem}.json")
    except KuuloError as error:
        return Proof(what, False, str(error))
    words = sum(len(segment.text.split()) for segment in transcript.segments)
    return Proof(what, words > 0, f"{words} words of a clip" if words else "a clip of speech has no words")


def _module(made: Deployment, one: module.Module, scratch: Path) -> Proof:
    """Load it in a clean shell, use it, unload it, and see that nothing stays."""
    what, begin = f"the module {one.name}", lmod()
    path = made.folder / "modules" / module.LMOD
    if begin is None or not path.is_dir():
        return Proof(what, None, "no Lmod is here to load it" if path.is_dir() else "not for Lmod")
    done = _call(["bash", "--norc", "-c", LOAD, "bash", str(begin), str(path), f"{one.name}/{one.version}"], scratch)
    return _judged(what, done, "loaded, used and unloaded")


LOAD = """\
# All variables but those in which Lmod keeps its own books.
variables() { env | grep -v -E -e '^(_|_LMFILES_|LOADEDMODULES|_ModuleTable[^=]*|__LMOD[^=]*|LMOD[^=]*)=' | sort; }
. "$1" >/dev/null
module use "$2"
before=$(variables)
module load "$3" || exit 1
[ "$(command -v kuulo)" ] || { echo "kuulo is not on the PATH" >&2; exit 1; }
kuulo --version >/dev/null || exit 1
module unload "$3" || exit 1
after=$(variables)
[ "$before" = "$after" ] || { diff <(echo "$before") <(echo "$after") >&2; exit 1; }
"""


def lmod() -> Path | None:
    """The file with which Lmod begins in bash, where there is one."""
    package = os.environ.get("LMOD_PKG")
    candidates = [f"{package}/init/bash"] if package else []
    return next((Path(path) for path in (*candidates, *LMOD) if Path(path).is_file()), None)


def _run(what: str, command: Sequence[str], scratch: Path, expect: str = "", good: str = "") -> Proof:
    done = _call(command, scratch)
    if done.returncode == 0 and expect not in done.stdout:
        return Proof(what, False, f"it says {done.stdout.strip()!r} and not {expect}")
    last = [line for line in done.stdout.splitlines() if line.strip()]
    return _judged(what, done, good or (last[0].strip() if last else "works"))


def _judged(what: str, done: subprocess.CompletedProcess[str], good: str) -> Proof:
    if done.returncode == 0:
        return Proof(what, True, good)
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-6:]
    return Proof(what, False, f"exit code {done.returncode}: " + "; ".join(line.strip() for line in lines))


def _call(command: Sequence[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    home = scratch / "home"
    home.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    environ = {**kept, "HOME": str(home), "TMPDIR": str(scratch), "PATH": PATH, "LANG": "C.UTF-8", "NO_COLOR": "1"}
    try:
        return _called(command, home, environ, TIME_LIMIT_S)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _called(
    command: Sequence[str], folder: Path, environ: Mapping[str, str], seconds: int
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no end after {seconds} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 126, "", f"{naming.shown(Path(command[0]))}: {error.strerror}")
