"""Tasks on transcripts, one after the other: what `kuulo llm task` and `kuulo transcribe --then` do.

    Chain (names, parameters, templates: every refusal that needs no model) --go(files, asker)--> Report

Results lie beside the transcript. NAME.TASK.json says how they were made, and what was checked; a task whose record
says the same transcript, template, model, options and parameters is not done again. A file that Kuulo did not write, or
that was changed since, is left alone: then the task has failed, unless results may be overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kuulo
from kuulo import atomic, naming
from kuulo.errors import CannotRun, InputFailed, KuuloError, UsageError
from kuulo.llm import tasks, templates, together, transcripts
from kuulo.llm.asking import Asker
from kuulo.llm.client import PromptTooLong
from kuulo.llm.tasks.base import Result, Task, Work
from kuulo.llm.templates import Template
from kuulo.llm.transcripts import Material

DONE, SKIPPED, PARTLY, FAILED = "done", "skipped", "partly", "failed"

Name = tuple[str, str]
"""What a result is known by: its transcript, as it is shown, and its task."""


@dataclass(frozen=True)
class Link:
    """One task of a chain, ready to be done. `variables` are the template's."""

    task: Task
    module: Any
    template: Template
    values: Mapping[str, str]
    variables: Mapping[str, str]

    @property
    def suffix(self) -> str:
        """What its record's name ends with: `.summary.json`, `.translation-fi.json`."""
        variant = f"-{self.values[self.task.variant]}" if self.task.variant else ""
        return f".{self.task.name}{variant}.json"

    def record(self, source: Path) -> str:
        """The name of its record of a transcript, which lies beside it."""
        return source.name.removesuffix(source.suffix) + self.suffix

    @property
    def is_together(self) -> bool:
        """Whether it works on all transcripts together, and not on one after the other."""
        return hasattr(self.module, "run_all")

    @property
    def files(self) -> list[str]:
        """What the names of its files end with."""
        return [suffix.format(**self.values) for suffix in self.task.files]

    def digests(self) -> dict[str, str]:
        """Of the files that its parameters name, by the parameters' names."""
        named = {p.name: Path(self.values[p.name]).expanduser() for p in self.task.parameters if p.file}
        return {name: _digest(path) for name, path in named.items()}

    def key(self, sha256: str, note: Mapping[str, Any]) -> str:
        """Digest of all that decides the result."""
        files = list(self.digests().values())
        told = [
            sha256,
            self.task.name,
            self.template.digest,
            dict(self.variables),
            dict(self.values),
            files,
            dict(note),
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode("ascii")).hexdigest()


@dataclass
class Outcome:
    """What became of one task on one transcript."""

    source: str
    task: str
    state: str = FAILED
    outputs: list[str] = field(default_factory=list)
    checks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    why: str | None = None
    do: str | None = None

    @property
    def name(self) -> Name:
        return self.source, self.task

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if v not in (None, [], {})}


def ended(outcomes: Sequence[Outcome], error: KuuloError | None = None) -> list[dict[str, Any]]:
    """What became of a chain, for reports; `error`: why it asked no further."""
    told = [one.to_json() for one in outcomes]
    return [*told, {"state": FAILED, "why": error.what, "do": error.do}] if error else told


Watch = Callable[[Outcome], None]


@dataclass(frozen=True)
class Chain:
    """Tasks to be done on each of some transcripts."""

    links: tuple[Link, ...]

    @property
    def is_together(self) -> bool:
        """Whether one of them works on all transcripts together."""
        return any(link.is_together for link in self.links)

    def records(self, sources: Iterable[Path]) -> dict[Path, list[str]]:
        """The names of the records that are made of transcripts, by their folders."""
        found: dict[Path, list[str]] = {}
        for source in sources:
            found.setdefault(source.parent, []).extend(link.record(source) for link in self.links)
        return found

    def go(
        self,
        paths: Sequence[Path],
        asker: Asker,
        note: Mapping[str, Any],
        *,
        overwrite: bool = False,
        but: Container[Name] = (),
        at_once: int = 1,
        watch: Watch = lambda outcome: None,
    ) -> list[Outcome]:
        """Do all; what became of each, in order. `note`: how the model is asked, for records; `but`: results that are
        not overwritten, since who goes on with this has made them; `at_once`: on how many transcripts a task works at a
        time; `watch` is told of each as it ends. A transcript or a task that fails does not stop the others. Raises
        CannotRun when the model cannot be asked any more."""

        def over(outcome: Outcome) -> bool:
            return overwrite and outcome.name not in but

        materials: list[tuple[Path, Material | KuuloError]] = [(path, _read(path)) for path in paths]
        outcomes: list[Outcome] = []
        for link in self.links:
            asker.model.tell(link.template.options)
            found: dict[int, Outcome] = {}
            ready: dict[int, Material] = {}
            for number, (path, material) in enumerate(materials):
                if isinstance(material, KuuloError):
                    found[number] = _failed(Outcome(naming.shown(path), link.task.name), material)
                    watch(found[number])
                else:
                    ready[number] = material
            for number, outcome in _done(link, ready, asker, note, over, at_once):
                found[number] = outcome
                watch(outcome)
            outcomes += [found[number] for number in range(len(materials))]
        return outcomes


# ------------------------------------------------------------------ what is asked


def chain(names: Iterable[str], given: Mapping[str, str], named: Mapping[str, str] | None = None) -> Chain:
    """The chain of these tasks. `given`: parameters of tasks and variables of templates, as -p has them. `named`:
    another template for a task. Raises UsageError for what is not known, missing or not understood."""
    used: set[str] = set()
    links = tuple(_link(name, given, (named or {}).get(name, name), used) for name in names)
    if stray := sorted(set(given) - used):
        known = sorted({n for link in links for n in (*_parameters(link.task), *link.template.variables)})
        raise UsageError(
            f"{', '.join(link.task.name for link in links)}: nothing is called {stray[0]!r}",
            do=f"-p takes {', '.join(known)}" if known else "leave -p out",
        )
    return Chain(links)


def _link(name: str, given: Mapping[str, str], template_name: str, used: set[str]) -> Link:
    module = tasks.module(name)
    task: Task = module.TASK
    template = templates.find(template_name)
    if template.model:
        raise UsageError(
            f"the template {template.name} names a model, and tasks share one",
            looked_at=template.source,
            do="take model out of it, and name the model with -m",
        )
    values: dict[str, str] = {}
    for parameter in task.parameters:
        if parameter.name not in given and parameter.default is None:
            raise UsageError(f"{name} needs -p {parameter.name}: {parameter.help}", do=f"-p {parameter.name} VALUE")
        values[parameter.name] = given.get(parameter.name, parameter.default or "")
        if parameter.file:
            values[parameter.name] = str(Path(values[parameter.name]).expanduser().absolute())
    values = module.check(values) if hasattr(module, "check") else values
    own = module.variables(values) if hasattr(module, "variables") else {}
    variables = {n: v for n, v in {**values, **given, **own}.items() if n in template.variables}
    template.checked(variables)
    used |= {n for n in given if n in values or n in template.variables}
    return Link(task, module, template, values, variables)


def _parameters(task: Task) -> list[str]:
    return [parameter.name for parameter in task.parameters]


def sources(paths: Sequence[Path]) -> list[Path]:
    """The transcripts in files and folders. In a folder: master copies, without those that a task made. Raises
    UsageError when a folder has none."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        below = [p for p in sorted(path.rglob("*.json")) if not _is_hidden(p, path) and transcripts.is_transcript(p)]
        masters = [p for p in below if not _is_made(p)]
        if not masters:
            raise UsageError(
                "this folder has no master copy of a transcript",
                looked_at=naming.shown(path),
                do="name the folder that `kuulo transcribe` wrote to",
            )
        found += masters
    return list(dict.fromkeys(found))


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _is_made(path: Path) -> bool:
    """Whether a master copy was made by a task from another one."""
    try:
        steps = json.loads(path.read_bytes())["provenance"]["steps"]
        return any(step.get("task") in tasks.TASKS for step in steps)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


# ------------------------------------------------------------------ one task


def read(path: Path) -> Material:
    """A transcript to work on. Raises KuuloError, also when nothing is said in it."""
    material = transcripts.read(path)
    if not material.lines:
        raise InputFailed("nothing is said in the transcript", looked_at=naming.shown(path))
    return material


def _read(path: Path) -> Material | KuuloError:
    try:
        return read(path)
    except KuuloError as error:
        return error


def _done(
    link: Link,
    materials: Mapping[int, Material],
    asker: Asker,
    note: Mapping[str, Any],
    over: Callable[[Outcome], bool],
    at_once: int,
) -> Iterator[tuple[int, Outcome]]:
    """Do the task on each, or on all together where it wants that; what became of it, as it ends. Raises CannotRun."""
    if link.is_together:
        yield from _all(link, materials, asker, note, over)
        return
    if at_once == 1:
        for number, material in materials.items():
            yield number, _one(link, material, asker, note, over)
        return

    def ask(one: tuple[int, Material], stop: threading.Event) -> tuple[Asker, Outcome]:
        branch = asker.branch()
        return branch, _one(link, one[1], branch, note, over)

    for (number, _), (branch, outcome) in together.answers([*materials.items()], ask, at_once):
        asker.joined(branch)
        yield number, outcome


def _one(
    link: Link, material: Material, asker: Asker, note: Mapping[str, Any], over: Callable[[Outcome], bool]
) -> Outcome:
    outcome = Outcome(naming.shown(material.path), link.task.name)
    record = _Record(link, material, note)
    try:
        if not over(outcome) and record.is_done():
            outcome.state, outcome.outputs = SKIPPED, record.outputs()
            return outcome
        record.check_free(link.files, over(outcome))
    except KuuloError as error:
        return _failed(outcome, error)
    work = Work(link.task, material, link.template, asker, link.values, link.variables, note)
    return _finished(outcome, record, _result(link, work), over(outcome))


def _all(
    link: Link,
    materials: Mapping[int, Material],
    asker: Asker,
    note: Mapping[str, Any],
    over: Callable[[Outcome], bool],
) -> Iterator[tuple[int, Outcome]]:
    waiting = []
    for number, material in materials.items():
        outcome, record = Outcome(naming.shown(material.path), link.task.name), _Record(link, material, note)
        try:
            record.check_free(link.files, over(outcome))
        except KuuloError as error:
            yield number, _failed(outcome, error)
            continue
        work = Work(link.task, material, link.template, asker, link.values, link.variables, note)
        waiting.append((number, outcome, record, work))
    if not waiting:
        return
    works = [work for *_, work in waiting]
    try:
        results = _fitting(asker, lambda: link.module.run_all(works))
    except CannotRun:
        raise
    except KuuloError as error:
        results = [error] * len(waiting)
    for (number, outcome, record, _), result in zip(waiting, results, strict=True):
        yield number, _finished(outcome, record, result, over(outcome))


def _result(link: Link, work: Work) -> Result | KuuloError:
    cut = work.asker.cut
    try:
        result: Result = _fitting(work.asker, lambda: link.module.run(work))
    except CannotRun:
        raise
    except KuuloError as error:
        return error
    if cut := work.asker.cut - cut:
        result.notes.append(f"{cut} answers were cut: --max-tokens or the context was reached")
    return result


def _fitting(asker: Asker, do: Callable[[], Any]) -> Any:
    """What `do` gives. When the context is smaller than was assumed, and the server says so, it is done once more."""
    before = asker.context
    try:
        return do()
    except PromptTooLong:
        if asker.context >= before:
            raise
        return do()


def _finished(outcome: Outcome, record: _Record, result: Result | KuuloError, overwrite: bool) -> Outcome:
    if isinstance(result, KuuloError):
        return _failed(outcome, result)
    try:
        record.write(result, overwrite)
    except KuuloError as error:
        return _failed(outcome, error)
    outcome.outputs = [naming.shown(path) for path in record.written]
    outcome.checks, outcome.notes = result.checks, result.notes
    outcome.state = PARTLY if result.failed else DONE
    outcome.why = "; ".join(result.failed) or None
    return outcome


def _failed(outcome: Outcome, error: KuuloError) -> Outcome:
    outcome.state, outcome.do = FAILED, error.do
    outcome.why = f"{error.what} ({error.looked_at})" if error.looked_at else error.what
    return outcome


class _Record:
    """NAME.TASK.json of a task on a transcript, and the files that it tells of."""

    def __init__(self, link: Link, material: Material, note: Mapping[str, Any]) -> None:
        self._link, self._material, self._note = link, material, note
        self._stem = material.path.name.removesuffix(material.path.suffix)
        self.path = material.path.with_name(link.record(material.path))
        self._key = link.key(material.sha256, note)
        self._before = self._read()
        self.written: list[Path] = []

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) and data.get("task") == self._link.task.name else {}

    def _digests(self) -> dict[str, str]:
        files = self._before.get("files", {})
        return files if isinstance(files, dict) else {}

    def is_done(self) -> bool:
        """Whether the results of the same are there, all of them, and whole."""
        if self._before.get("key") != self._key or self._before.get("incomplete"):
            return False
        return all(self._file(suffix).is_file() for suffix in self._digests())

    def outputs(self) -> list[str]:
        return [naming.shown(path) for path in (self.path, *(self._file(suffix) for suffix in self._digests()))]

    def _file(self, suffix: str) -> Path:
        return self.path.with_name(self._stem + suffix)

    def check_free(self, suffixes: Iterable[str], overwrite: bool) -> None:
        """Raises UsageError when a file is in the way that we did not write, or that was changed since. The record
        itself, and what it tells of, are always looked at."""
        if overwrite:
            return
        if self.path.exists() and not self._before:
            raise _in_the_way(self.path)
        for suffix in {*suffixes, *self._digests()}:
            path = self._file(suffix)
            if os.path.lexists(path) and _digest(path) != self._digests().get(suffix):
                raise _in_the_way(path)

    def write(self, result: Result, overwrite: bool) -> None:
        """The files, then the record. Raises KuuloError."""
        self.check_free(result.files, overwrite)
        record = {
            "schema": 1,
            "task": self._link.task.name,
            "key": self._key,
            "source": {"name": naming.shown(self._material.path.name), "sha256": self._material.sha256},
            "result": result.data,
            "checks": result.checks,
            "notes": result.notes,
            "incomplete": result.failed,
            "files": {suffix: hashlib.sha256(content).hexdigest() for suffix, content in result.files.items()},
            "provenance": {
                "kuulo": kuulo.__version__,
                "template": {"name": self._link.template.name, "sha256": self._link.template.digest},
                "parameters": {k: v for k, v in self._link.values.items() if k != "key"},
                **self._note,
            },
        }
        try:
            for suffix, content in result.files.items():
                atomic.write_bytes(self._file(suffix), content)
                self.written.append(self._file(suffix))
            atomic.write_json(self.path, record)
        except OSError as error:
            raise KuuloError(
                f"a result cannot be written: {error.strerror or error}", looked_at=naming.shown(self.path)
            ) from error
        self.written.append(self.path)


def _digest(path: Path) -> str:
    """sha256 of a file; empty when it cannot be read or is no plain file, which may have no end."""
    try:
        if not path.is_file():
            return ""
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _in_the_way(path: Path) -> UsageError:
    return UsageError(
        "a file is in the way that was not written by this task, or was changed since",
        looked_at=naming.shown(path),
        do="move it away, or give --overwrite",
    )
