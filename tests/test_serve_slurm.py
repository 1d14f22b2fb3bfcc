"""`kuulo serve --on slurm`: a server in a job of a real Slurm, as an ordinary user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

import recordings
import slurm_cluster
from serving import until

KUULO = [sys.executable, "-P", "-m", "kuulo"]
SMALL = ["--cpus", "1", "--mem", "400M", "--time", "10"]
NULL = ["serve", "--speech-engine", "null", "--on", "slurm", *SMALL]
LATER = ["--slurm", "begin=now+1hour"]


class Home:
    """A folder of the cluster's user, and `kuulo` in it."""

    def __init__(self, cluster: Any, name: str | None = None) -> None:
        self.cluster, self.folder = cluster, cluster.folder(name)
        self.environ = {"HOME": str(self.folder), "TMPDIR": str(cluster.folder())}
        self.servers = self.folder / ".local" / "state" / "kuulo" / "servers"

    def kuulo(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = self.cluster.run(
            [*KUULO, *words], cwd=self.folder, env={**self.environ, **environ}
        )
        return done

    def list(self) -> list[dict[str, Any]]:
        done = self.kuulo("llm", "list", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def queue(self) -> str:
        return str(self.cluster.run(["squeue", "-h", "-o", "%j %T"]).stdout)


@pytest.fixture
def home(user_cluster: Any) -> Iterator[Home]:
    yield Home(user_cluster)
    user_cluster.run(["scancel", "--full", "--me"])
    user_cluster.wait_until_empty()


def test_a_server_in_a_job_answers_and_ends(home: Home, tmp_path: Path) -> None:
    done = home.kuulo(*NULL)
    assert done.returncode == 0, done.stderr
    assert "s1 is submitted (slurm " in done.stderr
    assert "s1 is ready on n" in done.stdout and "its job is over in" in done.stdout
    (seen,) = home.list()
    assert (seen["state"], seen["server"]["bind"]) == ("ready", "127.0.0.1")
    assert seen["job"]["id"] == seen["server"]["job"]
    assert seen["server"]["node"] in home.cluster.nodes
    key = Path(seen["key_file"]).read_text().strip()
    assert key not in (home.servers / "s1" / "job.sh").read_text()
    said = httpx.post(
        home.kuulo("llm", "url").stdout.strip() + "/audio/transcriptions",
        headers={"Authorization": f"Bearer {key}"},
        data={"model": "its own"},
        files={"file": recordings.wav(tmp_path / "a.wav", recordings.tone(40)).read_bytes()},
        trust_env=False,
    )
    assert said.json()["text"] == "Window 0. Window 1."
    table = home.kuulo("llm", "list").stdout.splitlines()[1].split()
    assert table[:2] == ["s1", "ready"] and "min" in table
    stopped = home.kuulo("llm", "stop", "s1")
    assert f"its job {seen['job']['id']} is cancelled" in stopped.stdout, stopped.stderr
    assert home.list() == []
    until(lambda: not home.queue())
    assert list(Path(home.environ["TMPDIR"]).iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a machine another name")
def test_from_a_login_node_a_server_on_a_node_is_seen_and_reached(home: Home) -> None:
    """The command line runs on a machine of another name, so it asks Slurm and not the processes here."""

    def there(*words: str) -> str:
        named = ["unshare", "--uts", "sh", "-c", 'hostname login7; exec "$@"', "sh"]
        done = subprocess.run(
            [*named, *slurm_cluster._as_user(home.cluster.user), *KUULO, *words],
            env={**home.cluster.environ, **home.environ},
            cwd=home.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    assert home.kuulo(*NULL).returncode == 0
    (seen,) = home.list()
    node, port = seen["server"]["node"], seen["server"]["port"]
    assert there("llm", "list").splitlines()[1].split()[:4] == ["s1", "ready", node, f"127.0.0.1:{port}"]
    said = there("llm", "tunnel", "--user", "anna", "--login", "login.example")
    assert f"ssh -N -L {port}:127.0.0.1:{port} -J anna@login.example anna@{node}\n" in said
    assert "its job" in there("llm", "stop")
    assert home.list() == []


def test_a_waiting_job_shows_why_and_can_be_stopped(home: Home) -> None:
    done = home.kuulo(*NULL, *LATER, "--no-wait", "--name", "later")
    assert done.returncode == 0, done.stderr
    (seen,) = home.list()
    assert seen["state"] == "waiting" and seen["why"]
    assert home.kuulo("llm", "url").returncode == 3
    assert home.kuulo("llm", "stop").returncode == 0
    assert home.list() == []
    until(lambda: not home.queue())


@pytest.mark.parametrize(("interrupt", "left"), [("ask", True), ("leave", True), ("cancel", False)])
def test_ctrl_c_leaves_the_job_or_cancels_it(home: Home, interrupt: str, left: bool) -> None:
    """`ask` cannot ask here, where nobody is at a terminal: it leaves."""
    said = home.folder / "said.txt"
    command = ["sh", "-c", 'echo $$ >pid; exec "$@" 2>said.txt', "sh", *KUULO, *NULL, *LATER, "--interrupt", interrupt]
    results = []
    thread = threading.Thread(
        target=lambda: results.append(home.cluster.run(command, cwd=home.folder, env=home.environ))
    )
    thread.start()
    until(lambda: said.exists() and "waiting" in said.read_text(), 60)
    os.kill(int((home.folder / "pid").read_text()), signal.SIGINT)
    thread.join(60)
    assert results[0].returncode == 130
    assert ("goes on" in said.read_text()) is left
    assert ("kuulo-serve-s1" in home.queue()) is left
    assert bool(home.list()) is left


def test_a_server_that_fails_in_its_job_is_said_with_its_log(home: Home) -> None:
    done = home.kuulo(*NULL, KUULO_ENGINE_OPTION="nothing=1")
    assert done.returncode == 3
    assert "s1 did not become ready" in done.stderr
    assert "unknown option 'nothing'" in done.stderr
    (seen,) = home.list()
    assert seen["state"] == "failed" and "unknown option" in seen["why"]
    assert not (home.servers / "s1" / "key").exists()
    assert "It is forgotten" in home.kuulo("llm", "stop").stdout
    assert home.list() == []


def test_slurms_warning_ends_a_server_in_good_order(home: Home) -> None:
    assert home.kuulo(*NULL).returncode == 0
    (seen,) = home.list()
    home.cluster.run(["scancel", "--batch", "--signal=USR1", seen["job"]["id"]], check=True)
    until(lambda: not (home.servers / "s1").exists(), 60)
    until(lambda: not home.queue(), 60)
    assert home.list() == []


def test_a_job_that_is_killed_leaves_a_dead_server(home: Home) -> None:
    assert home.kuulo(*NULL).returncode == 0
    (seen,) = home.list()
    os.kill(seen["server"]["pid"], signal.SIGKILL)
    until(lambda: home.list()[0]["state"] == "dead", 60)
    (seen,) = home.list()
    assert seen["job"]["id"] in seen["why"]
    assert home.kuulo("llm", "stop").returncode == 0


def test_a_node_that_fails_takes_its_server_with_it(home: Home) -> None:
    assert home.kuulo(*NULL).returncode == 0
    (seen,) = home.list()
    node = seen["server"]["node"]
    try:
        home.cluster.fail_node(node)
        until(lambda: home.list()[0]["state"] == "dead", 90)
        until(lambda: "node" in home.list()[0]["why"], 90)
    finally:
        home.cluster.start_slurmd(node)
    assert "It is forgotten" in home.kuulo("llm", "stop").stdout
    assert home.queue() == ""


def test_what_a_job_cannot_have_is_refused(home: Home) -> None:
    for words, what in (
        (["--port", "80"], "nobody knows which"),
        (["--socket", "s"], "nobody knows which"),
        (["--slurm", "partition=nothing"], "no partition"),
        (["--time", "2-0"], "more than the partition allows"),
        (["--slurm", "output=x"], "--output itself"),
        (["--mem", "much"], "not a size"),
    ):
        done = home.kuulo("serve", "--speech-engine", "null", "--on", "slurm", *words)
        assert done.returncode == 2, done.stderr
        assert what in done.stderr
    assert home.list() == [] and home.queue() == ""


def test_dry_run_shows_the_script_and_submits_nothing(home: Home) -> None:
    done = home.kuulo(*NULL, "--idle", "30m", "--bind", "node", "--dry-run", "--account", "a b")
    assert done.returncode == 0, done.stderr
    assert '#SBATCH --account="a b"' in done.stdout and "#SBATCH --time=00:10:00" in done.stdout
    assert done.stdout.index("#SBATCH --requeue") < done.stdout.index("#SBATCH --no-requeue")  # the last one counts
    assert "--idle=30m" in done.stdout and "--bind=node" in done.stdout and "--in-job NAME" in done.stdout
    assert home.list() == [] and home.queue() == ""


def test_odd_names_of_folders_and_models_reach_the_job(user_cluster: Any) -> None:
    home = Home(user_cluster, 'it\'s $(touch owned) "x" ü')
    (home.folder / "a model; $x").mkdir()
    done = home.kuulo("serve", "--speech", "a model; $x", "--speech-engine", "null", "--on", "slurm", *SMALL)
    assert done.returncode in (2, 3)  # null brings its own model: refused before anything is queued
    done = home.kuulo(*NULL)
    assert done.returncode == 0, done.stderr
    assert not (home.folder / "owned").exists()
    assert home.kuulo("llm", "stop").returncode == 0
