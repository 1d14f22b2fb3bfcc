"""The whole check of an app."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from kuulo.deploy.portal_check import facts, form, hostile, ruby, scripts, source, submit
from kuulo.deploy.portal_check.finding import Findings
from kuulo.deploy.portal_check.ruby import Rendered, Task
from kuulo.deploy.portal_check.source import PLACEHOLDER, Source
from kuulo.errors import UsageError

VIEWS = {
    "view.html.erb": ruby.CONNECT,
    "info.html.erb": ruby.SESSION,
    "info.md.erb": ruby.SESSION,
    "completed.html.erb": ruby.SESSION,
    "completed.md.erb": ruby.SESSION,
}
CONNECTION = {"host": "node1", "port": "12345", "password": "secret"}


def check(app: Path, *, run: bool = True) -> Findings:
    """What is wrong with the app in this folder; without `run`, none of its scripts is executed. Raises UsageError when
    there is no such folder, and CannotRun."""
    if not app.is_dir():
        raise UsageError("there is no such folder", looked_at=str(app), do="name the app's folder")
    return _Check(app, run=run).all()


class _Check:
    def __init__(self, app: Path, *, run: bool) -> None:
        self.app, self.run = app, run
        self.findings = Findings()
        self.ruby = ruby.found()

    def all(self) -> Findings:
        found = self.findings
        if self.ruby is None:
            found.note("there is no ruby: what is ERB was read without rendering it, and no script was executed")
        self._manifest()
        said = self._form()
        submitted = self._submit(said)
        self._cluster(said, submitted)
        self._template(submitted)
        self._views(submitted)
        names = frozenset(_names(said))
        for each in self._sources("template"):
            if _is_script(each.name):
                scripts.check_text(each, found)
                if self.ruby is None or not self.run:
                    scripts.check_flow(each, names, found)
        if self.ruby is not None and self.run:
            hostile.check(self._hostile(said), found)
        shell = {(one.file, one.line) for one in found.findings if one.do == scripts.DATA}
        # What is shell text in a block of YAML breaks the YAML too: one cause, one finding.
        found.findings = [
            one for one in found.findings if "into YAML" not in one.what or (one.file, one.line) not in shell
        ]
        found.findings.sort(key=lambda one: (one.file, one.line or 0, one.what))
        return found

    # ------------------------------------------------------------------ files of YAML

    def _manifest(self) -> None:
        manifest = source.read(self.app, "manifest.yml", self.findings)
        if manifest is None:
            self.findings.add("manifest.yml", None, "it is missing", f"write name, category and role: {facts.ROLE}")
            return
        before = len(self.findings.findings)
        said = source.parse(manifest, manifest.text, self.findings)
        if said is not None or len(self.findings.findings) == before:
            form.check_manifest(manifest, said, self.findings)

    def _form(self) -> dict[str, Any]:
        found = self._first("form.yml.erb", "form.yml")
        if found is None:
            self.findings.add(
                "form.yml", None, "it is missing: the portal has no app here", "write cluster, attributes and form"
            )
            return {}
        if found.name == "form.yml.erb" and (self.app / "form.yml").exists():
            self.findings.add("form.yml", None, "the portal reads form.yml.erb and not this one", "remove one of them")
        before = len(self.findings.findings)
        said = source.parse(found, self._text(found, ruby.FORM, {}), self.findings)
        if said is not None or len(self.findings.findings) == before:
            form.check_form(found, said, self.findings)
        return said if isinstance(said, dict) else {}

    def _submit(self, said: dict[str, Any]) -> dict[str, Any]:
        found = self._first("submit.yml.erb", "submit.yml")
        if found is None:
            return {}
        submit.check_text(found, self.findings)
        text = self._text(found, ruby.SUBMIT, self._hostile(said).values())
        made = source.parse(found, text, self.findings)
        submit.check_submit(found, made, self.findings)
        return made if isinstance(made, dict) else {}

    def _text(self, found: Source, sees: str, values: dict[str, str]) -> str:
        """What an ERB file becomes; without Ruby, or where it asks the portal, with a word for each value."""
        if not found.is_erb or self.ruby is None:
            return source.without_ruby(found)
        task = Task(self.app / found.name, sees, values, {"staged_root": "/home/anna/ondemand/session"})
        made = ruby.render([task], self.ruby)[0]
        for name in made.missing:
            self.findings.add(
                found.name,
                found.line_of(rf"<%(?!#)[^\n]*\b{name}\b") or found.line_of_key(name),
                f"{name!r} is no field of the form: it is nothing (nil) here, without a word",
                "name a field of the form",
            )
        if made.text is not None:
            return made.text
        self._not_rendered(found.name, made)
        return source.without_ruby(found)

    def _not_rendered(self, name: str, made: Rendered) -> None:
        if made.asks_the_portal:
            self.findings.note(f"{name} asks the portal for {made.name}: it was read without rendering it")
        else:
            self.findings.add(name, made.line, f"Ruby cannot render it: {made.error}", "correct the Ruby in it")

    def _first(self, *names: str) -> Source | None:
        for name in names:
            found = source.read(self.app, name, self.findings)
            if found is not None:
                return found
        return None

    def _cluster(self, said: dict[str, Any], submitted: dict[str, Any]) -> None:
        items = said.get("form")
        chosen = isinstance(items, list) and {"cluster", "auto_batch_clusters"} & {str(item) for item in items}
        if said and not (said.get("cluster") or submitted.get("cluster") or chosen):
            self.findings.add("form.yml", None, "no cluster is named: no session can be started", "cluster: ...")

    # ------------------------------------------------------------------ other files

    def _template(self, submitted: dict[str, Any]) -> None:
        batch_connect = submitted.get("batch_connect")
        told = batch_connect if isinstance(batch_connect, dict) else {}
        main = self._first("template/script.sh.erb", "template/script.sh")
        if main is None:
            if not {"run_script", "script_file"} & {*told}:
                self.findings.add(
                    "template/script.sh", None, "it is missing: the session does nothing", "write it, with mode 755"
                )
            return
        path = self.app / main.name
        if not path.stat().st_mode & stat.S_IXUSR:
            mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
            self.findings.add(
                main.name,
                None,
                f"its mode is {mode}: it cannot be executed, and the mode is kept",
                f"chmod 755 {main.name}",
            )
        if main.name.endswith(".erb") and (self.app / "template" / "script.sh").exists():
            self.findings.add("template/script.sh", None, "script.sh.erb takes its place", "remove one of them")

    def _views(self, submitted: dict[str, Any]) -> None:
        batch_connect = submitted.get("batch_connect")
        template = batch_connect.get("template", "basic") if isinstance(batch_connect, dict) else "basic"
        if template == "basic" and not (self.app / "view.html.erb").exists():
            self.findings.add(
                "view.html.erb",
                None,
                "it is missing: while the job runs, the card says that its connection is missing",
                "write what the card shows while the job runs",
            )
        if self.ruby is None:
            return
        params = batch_connect.get("conn_params") if isinstance(batch_connect, dict) else None
        connection = {**{str(name): WORD for name in params or [] if isinstance(params, list)}, **CONNECTION}
        names = [name for name in VIEWS if (self.app / name).exists()]
        told = {"connect": connection, "staged_root": "/nonexistent/session"}
        tasks = [
            Task(self.app / name, VIEWS[name], {}, {**told, "state": state})
            for name in names
            for state in ("queued", "running", "completed")
        ]
        for task, made in zip(tasks, ruby.render(tasks, self.ruby), strict=True):
            if made.text is None:
                self._not_rendered(task.file.name, made)

    def _sources(self, folder: str) -> list[Source]:
        files = sorted(path for path in (self.app / folder).rglob("*") if path.is_file() and not path.is_symlink())
        names = [os.fspath(path.relative_to(self.app)) for path in files if _is_script(path.name)]
        return [found for name in names if (found := source.read(self.app, name, self.findings)) is not None]

    # ------------------------------------------------------------------ values

    def _hostile(self, said: dict[str, Any]) -> hostile.App:
        """The app as hostile values see it."""
        attributes = said.get("attributes")
        known = attributes if isinstance(attributes, dict) else {}
        fields, fixed = [], {}
        for name in _names(said):
            attribute = known.get(name, {})
            if not isinstance(attribute, dict) or attribute.get("fixed"):
                value = attribute.get("value") if isinstance(attribute, dict) else attribute
                fixed[name.lower()] = _as_ruby(value)
                continue
            fields.append(
                hostile.Field(name.lower(), _usual(name, attribute), attribute.get("widget") == "path_selector")
            )
        fixed.setdefault("cluster", str(said.get("cluster") or ""))
        return hostile.App(self.app, tuple(fields), fixed, self._first("submit.yml.erb", "submit.yml"))


WORD = hostile.WORD


def _names(said: dict[str, Any]) -> list[str]:
    """The fields of a form."""
    items = said.get("form")
    return [item for item in items if isinstance(item, str) and item != PLACEHOLDER] if isinstance(items, list) else []


def _usual(name: str, attribute: dict[str, Any]) -> str:
    """What a field has when the form is opened and nobody changes it."""
    value = attribute.get("value")
    if value is None and attribute.get("widget") == "check_box":
        return str(attribute.get("unchecked_value", "0"))
    if value is None and isinstance(attribute.get("options"), list) and attribute["options"]:
        first = attribute["options"][0]
        value = (first[1] if len(first) > 1 else first[0]) if isinstance(first, list) and first else first
    if value is None and (name.startswith("bc_num_") or attribute.get("widget") == "number_field"):
        value = attribute.get("min", 1)
    return _as_ruby(value)


def _as_ruby(value: Any) -> str:
    """`to_s`."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_script(name: str) -> bool:
    return name.endswith((".sh", ".sh.erb"))
