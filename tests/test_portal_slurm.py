"""Sessions of the portal's app in jobs of a real Slurm, submitted as ood_core does it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import recordings
from kuulo import engines, site
from kuulo.deploy import portal as app
from kuulo.deploy.base import Deployment
from portal_session import Portal, Session

SITE = """
[jobs.cpu]
partition = "cpu"
cpus = 1
extra = { comment = "it's $(x)" }

[portal]
cluster = "c"
hours = 1
"""


class Home:
    """A folder of the cluster's user, with recordings and a portal."""

    def __init__(self, cluster: Any) -> None:
        self.cluster, self.folder = cluster, cluster.folder("anna's $(touch owned)")
        program = self.folder / "bin" / "kuulo"
        program.parent.mkdir()
        (self.folder / "site.toml").write_text(SITE)
        program.write_text(f'#!/bin/bash\nexport KUULO_WORKERS=1\nexec {sys.executable} -P -m kuulo "$@"\n')
        program.chmod(0o755)
        files = site.load({"KUULO_SITE": str(self.folder / "site.toml")})
        specs = (engines.spec("faster-whisper"), engines.spec("pocketsphinx"))
        made = app.render(Deployment(files, "1", self.folder, specs))
        for name, file in made.items():
            path = self.folder / "app" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)
            path.chmod(file.mode)
        (self.folder / "in").mkdir()
        for name in ("a.wav", "b $(touch owned).wav"):
            recordings.wav(self.folder / "in" / name, recordings.tone(60, rate=8000) * 0, 8000)
        # The portal's own folders have no odd names: what is in a job's script is not quoted there.
        self.portal = Portal(self.folder / "app", cluster.folder() / "sessions")

    def opened(self, name: str = "s1", **values: str) -> Session:
        """A session that may be submitted by the cluster's user."""
        session = self.portal.opened(name, kuulo_files=str(self.folder / "in"), kuulo_engine="null", **values)
        owner = self.folder.stat()
        for top in (self.folder, self.portal.place):
            for path in (top, *top.rglob("*")):
                os.chown(path, owner.st_uid, owner.st_gid)
        return session

    def submit(self, session: Session, *words: str) -> str:
        """Submit it; the job's number."""
        script = session.submit["script"]
        asked = ["--export=NONE", "-D", str(session.folder), "-o", str(session.folder / "output.log")]
        asked += ["-t", str(script["wall_time"] // 60), "-p", script["queue_name"]]
        asked += [*script["native"], "--mem=300M", *words]
        path = session.folder / "job_script_content.sh"
        path.write_text("#!/bin/bash\n" + self._environment() + path.read_text())
        done = self.cluster.run(["sbatch", "--parsable", *asked, path.name], cwd=session.folder)
        assert done.returncode == 0, done.stderr
        return str(done.stdout).strip()

    def _environment(self) -> str:
        """What a login would give: the cluster's user finds this Kuulo."""
        return "".join(f"export {name}='{value}'\n" for name, value in self.cluster.environ.items())

    def state(self, job: str) -> tuple[str, str]:
        """A job's state and exit code, as Slurm has them."""
        told = self.cluster.run(["scontrol", "show", "job", job]).stdout
        found = re.search(r"JobState=(\S+).*?ExitCode=(\S+)", told, re.S)
        assert found, told
        return found[1], found[2]

    def ended(self, job: str, seconds: float = 120) -> tuple[str, str]:
        until(lambda: self.state(job)[0] not in ("PENDING", "RUNNING", "COMPLETING"), seconds)
        return self.state(job)


@pytest.fixture
def home(user_cluster: Any) -> Iterator[Home]:
    if shutil.which("ruby") is None:
        pytest.skip("needs the program ruby, which is not installed here")
    yield Home(user_cluster)
    user_cluster.run(["scancel", "--full", "--me"])
    user_cluster.wait_until_empty()


def until(what: Callable[[], Any], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.2)


def said(session: Session) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return session.status()
    return {}


def owned(home: Home) -> list[Path]:
    return [*home.folder.rglob("owned"), *home.portal.place.rglob("owned")]


def test_a_session_is_done(home: Home) -> None:
    session = home.opened()
    job = home.submit(session)
    assert home.ended(job) == ("COMPLETED", "0:0"), session.log()
    assert session.status()["counts"] == {"done": 2}
    assert len(list((home.folder / "in" / "transcripts").glob("*.txt"))) == 2 and not owned(home)


def test_one_that_is_cancelled_says_what_is_kept(home: Home) -> None:
    session = home.opened(kuulo_engine_option="wait_ms=4000")
    job = home.submit(session)
    until(lambda: said(session).get("device"))
    home.cluster.run(["scancel", job])
    assert home.ended(job)[0] == "CANCELLED"
    until(lambda: said(session).get("state") == "stopped")
    assert "Stopped before the end" in session.view("completed", "completed")
    assert not owned(home)


def test_one_whose_time_is_nearly_over_stops_in_good_order_and_goes_on(home: Home) -> None:
    session = home.opened(kuulo_engine_option="wait_ms=15000")
    assert "--signal=B:USR1@120" in session.submit["script"]["native"]
    job = home.submit(session)
    until(lambda: said(session).get("device"))
    # As Slurm does when two minutes are left, which may be a minute early, and before there is a process to be told.
    home.cluster.run(["scancel", "--batch", "--signal=USR1", job])
    state, code = home.ended(job, 180)
    assert (state, code) == ("FAILED", "1:0"), session.log()
    assert session.status()["state"] == "stopped"
    assert "Stopped before the end" in session.view("completed", "completed")
    journals = list((home.folder / "in" / "transcripts" / ".kuulo").rglob("*.jsonl"))
    assert journals or json.loads((home.folder / "in" / "transcripts" / "report.json").read_bytes())["counts"]
