"""Values that nobody should write into a form, and where they end up."""

from __future__ import annotations

import os
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
from kuulo.deploy.portal_check.source import TAG, Source

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
        self.box = Sandbox(place / "box")
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
        changes = [
            {f.name: self._value(f, text) for f in self.app.fields if (f.name, text) not in self.refused}
            for text in HOSTILE
        ]
        usual, *hostile = self._sessions([{}, *changes])
        if usual is None or not self._is_understood(usual):
            return
        signature = usual.signature()  # before it is made ready to run, which changes its files
        self._truth(usual)
        for changed, made in zip(changes, hostile, strict=True):
            unknown = {name: value for name, value in changed.items() if not self._is_known(name)}
            if unknown != changed:  # those that are known would do it again
                (made,) = self._sessions([unknown]) if unknown else [None]
            if made is None or not self._harms(signature, made):
                continue
            each = self._sessions([{name: value} for name, value in unknown.items()])
            for name, one in zip(unknown, each, strict=True):
                if one is not None and self._harms(signature, one):
                    self.findings.add(*self._where(name), scripts.flows(name), scripts.DATA)

    def _is_known(self, name: str) -> bool:
        return any(scripts.flows(name) == found.what for found in self.findings.findings)

    def _harms(self, usual: tuple[Any, ...], made: Made) -> bool:
        """Whether values make the shell do something, or make the script none that bash understands."""
        if made.signature() == usual:
            return False
        if any(sandbox.syntax(path) for path in made.scripts()):
            return True
        return self._run(made).canary

    def _where(self, name: str) -> tuple[str, int | None]:
        """Where a field's value is written into a script."""
        for path in sorted((self.app.folder / "template").rglob("*.erb")):
            source = self._source(path, str(path.relative_to(self.app.folder)))
            line = source.line_of(rf"\bcontext(\.|\[:?[\"']?){name}\b")
            if line:
                return source.name, line
        if self.app.submit and (line := _use(self.app.submit, name)):
            return self.app.submit.name, line
        return "template", None

    def _source(self, path: Path, name: str) -> Source:
        return Source(name, path.read_text(encoding="utf-8", errors="replace"))

    def _is_understood(self, made: Made) -> bool:
        """Whether the session, with the usual values, can be run."""
        for name, one in made.staged.rendered.items():
            if one.text is None:
                self._not_rendered(f"template/{name}", one)
        wrong = [(path, said) for path in made.scripts() if (said := sandbox.syntax(path))]
        for path, (line, what) in wrong:
            self.findings.add(self._name(made, path), line, f"bash does not understand it: {what}", "correct the line")
        main = made.staged.folder / "script.sh"
        if main.exists() and not sandbox.is_bash(main):
            self.findings.note("template/script.sh is no script of bash: it was not executed")
            return False
        return not wrong

    def _not_rendered(self, name: str, made: Rendered) -> None:
        if made.asks_the_portal:
            self.findings.note(f"{name} asks the portal for {made.name}: it was not rendered")
        else:
            self.findings.add(name, made.line, f"Ruby cannot render it: {made.error}", "correct the Ruby in it")

    def _name(self, made: Made, path: Path) -> str:
        """What a staged script is called in the app."""
        if path == made.job:
            return self.app.submit.name if self.app.submit else "submit.yml"
        name = f"template/{path.relative_to(made.staged.folder)}"
        return name if (self.app.folder / name).exists() else f"{name}.erb"

    def _sessions(self, changes: Sequence[Mapping[str, str]]) -> list[Made | None]:
        """Sessions staged with these values. None where the app or the portal refuses them."""
        submits = self._submits(changes)
        accepted = [n for n, said in enumerate(submits) if said is not None]
        folders = {n: self.place / f"session{self.number + n}" for n in accepted}
        self.number += len(changes)
        values = [(folders[n], self.app.values(**changes[n])) for n in accepted]
        made = dict(zip(accepted, session.staged(self.app.folder, values), strict=True))
        return [_made(made[n], submits[n] or {}) if n in made else None for n in range(len(changes))]

    def _submits(self, changes: Sequence[Mapping[str, str]]) -> list[dict[str, Any] | None]:
        if self.app.submit is None:
            return [{} for _ in changes]
        found: list[dict[str, Any] | None] = []
        for one in ruby.render([self._submit_task(**changed) for changed in changes]):
            try:
                said = yaml.safe_load(one.text) if one.text is not None else None
            except yaml.YAMLError:
                found.append(None)
            else:
                found.append(None if one.text is None else said if isinstance(said, dict) else {})
        return found

    def _run(self, made: Made, fails: str = "") -> Ran:
        self.box.prepare(made.scripts())
        return self.box.run(made.job, made.environment, fails)

    # ------------------------------------------------------------------ the exit code

    def _truth(self, usual: Made) -> None:
        """Whether the job fails when what does its work fails: the last command that is no preparing and no tidying."""
        ran = self._run(usual)
        if ran.code is None:
            self.findings.note("the session's script waits for something: it was stopped after some seconds")
            self.box.seconds = sandbox.SECONDS_OF_ONE_THAT_WAITS
            return
        works = [name for name in ran.calls if name not in BESIDE]
        if ran.code != 0 or not works or self._run(usual, fails=works[-1]).code != 0:
            return
        for path in usual.scripts():
            source = self._source(path, self._name(usual, path))
            name = re.escape(works[-1])
            called = rf"^[ \t]*(?:if |exec |time |srun )?(?:\S*/)?{name}\b"
            line = source.line_of(called) or source.line_of(rf"^[^#\n]*\b{name}\b")
            if line and path != usual.job:
                self.findings.add(
                    source.name,
                    line,
                    f"when {works[-1]} fails, the job ends with code 0: the scheduler and its mail call it done",
                    f"end with its code: `{works[-1]} ... || exit`, or `exec {works[-1]} ...` as the last line",
                )
                return


@dataclass(frozen=True)
class Made:
    """A session: its staged folder, its job's script, and what the job has in its environment."""

    staged: session.Staged
    job: Path
    environment: Mapping[str, str]

    def scripts(self) -> list[Path]:
        """The shell scripts of it."""
        files = sorted(self.staged.folder.rglob("*.sh"))
        return [path for path in files if path.is_file() and sandbox.is_bash(path)]

    def signature(self) -> tuple[Any, ...]:
        """What the values have changed: equal where they have changed nothing that runs."""
        place = os.fsencode(self.staged.folder)
        return (*(path.read_bytes().replace(place, b"") for path in self.scripts()), *sorted(self.environment.items()))


def _made(staged: session.Staged, said: Mapping[str, Any]) -> Made:
    """The session that `submit.yml` says so of."""
    batch_connect, script = ({**part} if isinstance(part := said.get(name), dict) else {}
                             for name in ("batch_connect", "script"))  # fmt: skip
    job = staged.folder / "kuulo-job.sh"
    job.write_text(session.job_script(batch_connect, staged.folder), encoding="utf-8")
    environment = script.get("job_environment")
    told = {str(k): str(v) for k, v in environment.items()} if isinstance(environment, dict) else {}
    return Made(staged, job, told)


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
    """The line where Ruby in a file uses a field: where it writes it as it is, else anywhere."""
    tags = [tag for tag in TAG.finditer(source.text) if re.search(rf"\b{name}\b", tag[2]) and tag[1] != "#"]
    written = [tag for tag in tags if tag[1] == "="]
    bare = [tag for tag in written if not re.search(rf"\b{name}\.to_(json|i|f)\b", tag[2])]
    for tag in (*bare, *written, *tags):
        return source.text.count("\n", 0, tag.start(2)) + 1
    return None
