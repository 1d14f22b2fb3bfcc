"""A portal for tests: an app's form filled in, its session staged, submitted and run here, and its card drawn, each as
Open OnDemand does it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kuulo.deploy.portal_check import ruby, session
from kuulo.deploy.portal_check.ruby import Task


@dataclass
class Portal:
    """An app, and a place for its sessions. `environment`: what a job has."""

    app: Path
    place: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def form(self) -> dict[str, str]:
        """The values that the form has when it is opened: text, all of them."""
        said = yaml.safe_load((self.app / "form.yml").read_text(encoding="utf-8"))
        return {name: str(said["attributes"][name].get("value", "")) for name in said["form"]}

    def opened(self, name: str = "s1", **values: str) -> Session:
        """A session whose form says so."""
        folder = self.place / name
        folder.mkdir(parents=True)
        all_values = {**self.form(), **values}
        (submitted,) = ruby.render(
            [Task(self.app / "submit.yml.erb", ruby.SUBMIT, all_values, {"staged_root": str(folder)})]
        )
        assert submitted.text is not None, submitted.error
        (made,) = session.staged(self.app, [(folder, all_values)])
        assert [one.error for one in made.rendered.values() if one.text is None] == []
        submit = yaml.safe_load(submitted.text)
        script = folder / "job_script_content.sh"
        script.write_text(session.job_script(submit["batch_connect"], folder), encoding="utf-8")
        return Session(self, folder, submit)


@dataclass
class Session:
    """A session of it. `submit`: what the scheduler is asked for."""

    portal: Portal
    folder: Path
    submit: dict[str, Any]

    def begin(self) -> subprocess.Popen[bytes]:
        """Start the job here, as the scheduler would, in a process group of its own."""
        with (self.folder / "output.log").open("wb") as log:
            return subprocess.Popen(
                ["/bin/bash", str(self.folder / "job_script_content.sh")],
                cwd=self.folder,
                env=dict(self.portal.environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(self) -> int:
        """Its exit code."""
        return self.begin().wait(120)

    def status(self) -> dict[str, Any]:
        """What Kuulo says."""
        said: dict[str, Any] = json.loads((self.folder / "status.json").read_bytes())
        return said

    def log(self) -> str:
        return (self.folder / "output.log").read_text(encoding="utf-8", errors="backslashreplace")

    def view(self, name: str, state: str = "running", *, newest: bool = True) -> str:
        """A part of the card, before it becomes HTML. `newest`: a portal that has a view for what is completed."""
        told = {"staged_root": str(self.folder), "state": state, "has_completed_view": newest}
        (made,) = ruby.render([Task(self.portal.app / f"{name}.html.erb", ruby.SESSION, {}, told)])
        assert made.text is not None, made.error
        return made.text
