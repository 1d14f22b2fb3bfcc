"""ERB files rendered by Ruby as Open OnDemand does it, where there is a Ruby.

What is rendered is code of the app: it runs as whoever asks. So only apps that one would install are for this."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuulo.errors import CannotRun

SCRIPT = Path(__file__).with_name("render.rb")
SECONDS = 60
FORM, SUBMIT, STAGE, SESSION, CONNECT = "form", "submit", "stage", "session", "connect"
"""What a file's Ruby can see: nothing, the form's values, a session and the values, a session, a connection."""


@dataclass(frozen=True)
class Task:
    """A file to render: `sees`, the form's values, and facts of the session that differ from made-up ones."""

    file: Path
    sees: str
    values: Mapping[str, str] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    """The text, or what went wrong: `kind` is Ruby's class, `name` what a NameError misses. `missing`: names in
    `submit.yml` that are no fields of the form, and so nothing (nil)."""

    text: str | None
    error: str = ""
    kind: str = ""
    line: int | None = None
    name: str = ""
    missing: tuple[str, ...] = ()

    @property
    def asks_the_portal(self) -> bool:
        """Whether it wants a class of the portal's own, which is not here."""
        return self.kind == "NameError" and self.name[:1].isupper()


def found() -> str | None:
    """The program."""
    return shutil.which("ruby")


def render(tasks: Sequence[Task], ruby: str | None = None) -> list[Rendered]:
    """Each file rendered, in one process. Raises CannotRun when Ruby does not answer."""
    if not tasks:
        return []
    asked = [{"file": os.fspath(t.file), "as": t.sees, "values": t.values, "session": t.session} for t in tasks]
    command = [ruby or found() or "ruby", os.fspath(SCRIPT)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps({"tasks": asked}).encode(),
            capture_output=True,
            timeout=SECONDS,
            check=True,
        )
        said = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode("utf-8", "backslashreplace").strip().splitlines()
        raise CannotRun("Ruby does not render the app", looked_at=lines[0] if lines else " ".join(command)) from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise CannotRun(f"Ruby does not render the app: {error}", looked_at=" ".join(command)) from error
    return [_rendered(one) for one in said]


def _rendered(said: Mapping[str, Any]) -> Rendered:
    told = {name: said[name] for name in ("error", "kind", "line", "name") if said.get(name) is not None}
    return Rendered(said.get("text"), **told, missing=tuple(said.get("missing", ())))
