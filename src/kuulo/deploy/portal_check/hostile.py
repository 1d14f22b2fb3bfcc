"""Values that nobody should write into a form, and where they end up."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from kuulo.deploy.portal_check import ruby, sandbox, scripts, session
from kuulo.deploy.portal_check.finding import Findings
from kuulo.deploy.portal_check.ruby import Rendered, Task
from kuulo.deploy.portal_check.sandbox import BESIDE, CANARY, Ran, Sandbox
from kuulo.deploy.portal_check.source import Source

WORD = "kuuloword"
"""A value that harms nobody, and that no form offers."""

TOUCH = f"touch ${CANARY}"
HOSTILE: tuple[str, ...] = (
    "two  spaces",
    "it's",
    'say "hi"',
    f"$({TOUCH})",
    f"`{TOUCH}`",
    f"'; {TOUCH}; '",
    f'"; {TOUCH}; "',
    f"x; {TOUCH} #",
    f"x\n{TOUCH}\nx",
    "é\\n\\x",
    "-rf *",
    "a: b #c",
    "[x",
    "*x",
)


@dataclass(frozen=True)
class Field:
    """A field of the form that a person can change: its value when the form is opened, and whether it is a path."""

    name: str
    value: str
    is_path: bool = False


@dataclass(frozen=True)
class App:
    """What is looked at: the app's folder, the fields, the values of those that are fixed, and its `submit.yml`."""

    folder: Path
    fields: tuple[Field, ...]
    fixed: Mapping[str, str]
    submit: Source | None

    def values(self, **changed: str) -> dict[str, str]:
        """The form's values, with some changed."""
        return {**self.fixed, **{f.name: f.value for f in self.fields}, **changed}


def check(app: App, findings: Findings) -> None:
    """Look where hostile values go. Needs Ruby. Raises CannotRun and OSError."""
    with tempfile.TemporaryDirectory(prefix="kuulo-portal-") as place:
        looking = _Look(app, Path(place).resolve(), findings)
        looking.submit()
        if (app.folder / "template").is_dir():
            looking.scripts()


class _Look:
    """One look at an app, in a folder of its own."""

    def __init__(self, app: App, place: Path, findings: Findings) -> None:
        self.app, self.place, self.findings = app, place, findings
        self.files = place / "files"
        self.files.mkdir()
        self.number = 0
        self.refused: set[tuple[str, str]] = set()
        """Values, by field, of which the portal makes no session."""
        for field in app.fields:
            if field.is_path and not field.value:
                changed = replace(field, value=str(self._path("recording")))
                self.app = replace(self.app, fields=tuple(changed if f == field else f for f in self.app.fields))

    def _path(self, name: str) -> Path:
        """A file of this name, which is there."""
        path = self.files / name
        path.touch()
        return path

    def _value(self, field: Field, text: str) -> str:
        return str(self._path(text)) if field.is_path else text

    # ------------------------------------------------------------------ submit.yml

    def submit(self) -> None:
        """Whether a value changes what `submit.yml` says beside that value."""
        source = self.app.submit
        if source is None or not source.is_erb:
            return
        texts = (WORD, *HOSTILE)
        cases = [(field, text) for field in self.app.fields for text in texts]
        tasks = [self._submit_task(**{f.name: self._value(f, text)}) for f, text in cases]
        made = dict(zip([(f.name, text) for f, text in cases], ruby.render(tasks), strict=True))
        shapes = {case: _shape(one) for case, one in made.items()}
        self.refused = {case for case, shape in shapes.items() if shape in (REFUSED, BROKEN)}
        for field in self.app.fields:
            for text in HOSTILE:
                self._compare(source, field.name, shapes[field.name, WORD], shapes[field.name, text])

    def _submit_task(self, **changed: str) -> Task:
        file = self.app.folder / (self.app.submit.name if self.app.submit else "")
        return Task(file, ruby.SUBMIT, self.app.values(**changed), {"staged_root": str(self.place / "staged")})

    def _compare(self, source: Source, name: str, usual: Any, shape: Any) -> None:
        if shape in (REFUSED, usual) or (usual == REFUSED and shape != BROKEN):
            return
        how = "makes it no YAML" if shape == BROKEN else "changes what else it says"
        self.findings.add(
            source.name,
            _use(source, name),
            f"the form's value {name!r} is written into YAML as it is: one with a quote or a line break {how}",
            f"<%= {name}.to_json %>, without quotes around it",
        )

    # ------------------------------------------------------------------ scripts

    def scripts(self) -> None:
        """Run the session's script with the usual values, then with hostile ones."""
        usual = self._ran({})
        if usual is None:
            return
        self._truth(usual)
        for text in HOSTILE:
            changed = {f.name: self._value(f, text) for f in self.app.fields if (f.name, text) not in self.refused}
            if self._harm(changed) is None:
                continue
            for field in self.app.fields:
                if field.name in changed and not self._is_known(field.name):
                    harmed = self._harm({field.name: changed[field.name]})
                    if harmed is not None:
                        self._tell(field.name, *harmed)

    def _is_known(self, name: str) -> bool:
        return any(scripts.flows(name) == found.what for found in self.findings.findings)

    def _harm(self, changed: Mapping[str, str]) -> tuple[str, str] | None:
        """What hostile values do: ("executed", "") or ("broken", file)."""
        made = self._made(changed)
        if made is None:
            return None
        folder, script, environment = made
        for path in [script, *_scripts(folder)]:
            if sandbox.is_bash(path) and sandbox.syntax(path):
                return "broken", str(path.relative_to(folder))
        return ("executed", "") if self._run(folder, script, environment).canary else None

    def _tell(self, name: str, how: str, file: str) -> None:
        where, line = self._where(name)
        said = scripts.flows(name)
        if how == "broken" and where == "template":
            where = f"template/{file}"
        self.findings.add(where, line, said, scripts.DATA)

    def _where(self, name: str) -> tuple[str, int | None]:
        """Where a field's value is written into a script."""
        for path in sorted((self.app.folder / "template").rglob("*.erb")):
            source = Source(str(path.relative_to(self.app.folder)), path.read_text(encoding="utf-8", errors="replace"))
            line = source.line_of(rf"\bcontext(\.|\[:?[\"']?){name}\b")
            if line:
                return source.name, line
        if self.app.submit and (line := _use(self.app.submit, name)):
            return self.app.submit.name, line
        return "template", None

    def _ran(self, changed: Mapping[str, str]) -> tuple[Path, Path, dict[str, str]] | None:
        """A session with the usual values, staged, whose scripts bash understands."""
        made = self._made(changed)
        if made is None:
            return None
        folder, script, _ = made
        fine = True
        for path in _scripts(folder):
            wrong = sandbox.syntax(path) if sandbox.is_bash(path) else None
            if wrong:
                fine = False
                name = self._source_name(folder, path)
                self.findings.add(name, wrong[0], f"bash does not understand it: {wrong[1]}", "correct the line")
        main = folder / "script.sh"
        if main.exists() and not sandbox.is_bash(main):
            self.findings.note("template/script.sh is no script of bash: it was not executed")
            return None
        return (folder, script, made[2]) if fine else None

    def _source_name(self, folder: Path, path: Path) -> str:
        name = f"template/{path.relative_to(folder)}"
        return name if (self.app.folder / name).exists() else f"{name}.erb"

    def _made(self, changed: Mapping[str, str]) -> tuple[Path, Path, dict[str, str]] | None:
        """A session staged with these values: its folder, its job's script, and what the job has in its environment.
        None when the app refuses them."""
        said: Any = {}
        if self.app.submit is not None:
            one = ruby.render([self._submit_task(**changed)])[0]
            if one.text is None:
                return None
            try:
                said = yaml.safe_load(one.text) or {}
            except yaml.YAMLError:
                return None
        said = said if isinstance(said, dict) else {}
        self.number += 1
        folder = self.place / f"session{self.number}"
        rendered = session.staged(self.app.folder, folder, self.app.values(**changed), {})
        for name, made in rendered.items():
            if made.text is None and not changed:
                self._not_rendered(f"template/{name}", made)
        batch_connect, script = (said.get(part) if isinstance(said.get(part), dict) else {} for part in
                                 ("batch_connect", "script"))  # fmt: skip
        job = folder / "kuulo-job.sh"
        job.write_text(session.job_script(batch_connect or {}, folder), encoding="utf-8")
        environment = (script or {}).get("job_environment")
        told = {str(k): str(v) for k, v in environment.items()} if isinstance(environment, dict) else {}
        return folder, job, told

    def _not_rendered(self, name: str, made: Rendered) -> None:
        if made.asks_the_portal:
            self.findings.note(f"{name} asks the portal for {made.name}: it was not rendered")
        else:
            self.findings.add(name, made.line, f"Ruby cannot render it: {made.error}", "correct the Ruby in it")

    def _run(self, folder: Path, script: Path, environment: Mapping[str, str], fails: str = "") -> Ran:
        box = Sandbox(self.place / f"box{self.number}{fails and '-fails'}")
        box.prepare([script, *[p for p in _scripts(folder) if sandbox.is_bash(p)]])
        return box.run(script, environment, fails)

    # ------------------------------------------------------------------ the exit code

    def _truth(self, usual: tuple[Path, Path, dict[str, str]]) -> None:
        """Whether the job fails when what does its work fails: the last command that is no preparing and no tidying."""
        folder, script, environment = usual
        ran = self._run(folder, script, environment)
        if ran.code is None:
            self.findings.note("the session's script waits for something: it was stopped after some seconds")
            return
        works = [name for name in ran.calls if name not in BESIDE]
        if ran.code != 0 or not works:
            return
        failed = self._run(folder, script, environment, fails=works[-1])
        if failed.code == 0:
            for path in _scripts(folder):
                source = Source(self._source_name(folder, path), path.read_text(encoding="utf-8", errors="replace"))
                line = source.line_of(rf"^[^#\n]*\b{re.escape(works[-1])}\b")
                if line:
                    self.findings.add(
                        source.name, line,
                        f"when {works[-1]} fails, the job ends with code 0: the scheduler and its mail call it done",
                        f"end with its code: `{works[-1]} ... || exit`, or `exec {works[-1]} ...` as the last line",
                    )  # fmt: skip
                    return


REFUSED, BROKEN = "refused", "broken"


def _shape(one: Rendered) -> Any:
    """What YAML says without its texts: keys, lengths of lists, kinds of values."""
    if one.text is None:
        return REFUSED
    try:
        return _bare(yaml.safe_load(one.text))
    except yaml.YAMLError:
        return BROKEN


def _bare(said: Any) -> Any:
    if isinstance(said, dict):
        return {str(key): _bare(value) for key, value in said.items()}
    if isinstance(said, list):
        return [_bare(value) for value in said]
    return "value"


def _use(source: Source, name: str) -> int | None:
    """The line where Ruby in a file uses a field."""
    return source.line_of(rf"<%(?!#)[^%]*\b{name}\b") or source.line_of(rf"^(?!\s*#).*\b{name}\b")


def _scripts(folder: Path) -> Sequence[Path]:
    """The shell scripts of a staged session."""
    return [
        path for path in sorted(folder.rglob("*")) if path.is_file() and (path.suffix == ".sh" or path.name == "script")
        and path.name != "kuulo-job.sh"
    ]  # fmt: skip
