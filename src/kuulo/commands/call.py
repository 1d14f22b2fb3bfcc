"""One call of another program, done by Kuulo: its options resolved, its recordings heard, its files written.

The recordings go through `run.Run` as those of `kuulo transcribe`, into a scratch folder; what was heard is taken
from there at full precision, written as the program writes it, and printed in the order of the command line.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kuulo import atomic, audio, naming, options, plan, report, site, survey
from kuulo.commands import writers
from kuulo.commands.base import Common, Heard, Program, Raw, Stop, Wanted
from kuulo.errors import CannotRun, OptionRefused
from kuulo.plan import Facts, Plan
from kuulo.site import Site
from kuulo.work import Work

OURS = frozenset({"output", "format", "max_line_width", "max_line_count", "max_words_per_line", "highlight_words"})
"""Common options that are about files, which the program's own writer makes."""

KEPT = ("engine", "scratch")
"""Settings of the site, the user and the environment that hold here too; the others would change what the program
does."""


def call(program: Program, words: Sequence[str], engine: str | None) -> int:
    """Do what the program would do with these words, on an engine, and give its exit code. Raises SystemExit as its
    parser does, and KuuloError for what Kuulo refuses or cannot find."""
    files = site.load()
    facts = survey.facts(files)
    try:
        given = program.parse(words, lambda name: has_model(files, name))
        wanted = program.look(program.understand(given))
        if refused := program.refused(given):
            raise Stop(2, "".join(f"{program.name}: {a.flag}: refused: {a.becomes.note}\n" for a in refused))
        resolved = resolve(program, wanted, files, facts, engine)
    except Stop as stop:
        _say(stop.stdout, stop.stderr)
        return stop.code
    return _carry_out(program, wanted, resolved)


def has_model(files: Site, name: str) -> bool:
    """Whether a store has a model of that name, or Kuulo brings it."""
    from kuulo import miniature

    return name == miniature.NAME or any(ref.name == name for ref in files.model_stores().list())


def resolve(program: Program, wanted: Wanted, files: Site, facts: Facts, engine: str | None) -> Plan:
    """The plan for what is wanted. Raises as `plan.resolve`, and OptionRefused for an option that the engine has
    nothing like."""
    flags = asked(program, wanted)
    settings = _settle(files, flags)
    chosen = engine or settings.values["engine"]
    if not chosen and (facts.installed.get(program.engine) or program.engine in facts.broken):
        chosen = program.engine
    if chosen:
        flags["engine"] = chosen
    spec, _, _ = plan.choose(_settle(files, flags), facts)
    flags |= for_engine(program, wanted, spec.name, flags)
    return plan.resolve(_settle(files, flags), facts, max(1, len(wanted.audio)))


def asked(program: Program, wanted: Wanted) -> dict[str, Any]:
    """The common options for the plan: those that were typed, and those that are not Kuulo's default."""
    typed = {
        a.becomes.option for a in program.arguments if isinstance(a.becomes, Common) and a.name in wanted.given.typed
    }
    return {
        name: value
        for name, value in wanted.options.items()
        if name not in OURS and (name in typed or options.parse(options.BY_NAME[name], value) != _default(name))
    }


def _default(name: str) -> Any:
    option = options.BY_NAME[name]
    return options.parse(option, option.default)


def for_engine(program: Program, wanted: Wanted, engine: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The options that only some engines have, for this engine. Raises OptionRefused."""
    raw: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for argument, value in wanted.raw:
        assert isinstance(argument.becomes, Raw)
        if engine in argument.becomes.names:
            convert = argument.becomes.values.get(engine, lambda same: same)
            raw[argument.becomes.names[engine]] = convert(value)
        elif argument.becomes.instead:
            more[argument.becomes.instead] = value
        else:
            able = ", ".join(argument.becomes.names) or "no engine of Kuulo's"
            raise OptionRefused(
                f"{program.name} {argument.flag} {value!r}: {engine} has nothing like it ({able} can)",
                do=f"kuulo as {program.name} --engine NAME -- ..., or leave {argument.flag} out",
            )
    raw |= wanted.always_raw.get(engine, {})
    return {**more, "engine_option": {**flags.get("engine_option", {}), **raw}} if raw else more


def _settle(files: Site, flags: Mapping[str, Any]) -> site.Settings:
    """Settings of the program's own: of what site, user and environment say, engine and scratch alone."""
    bare = dataclasses.replace(
        files,
        defaults={k: v for k, v in files.defaults.items() if k in KEPT},
        user={k: v for k, v in files.user.items() if k in KEPT},
    )
    environment = {options.BY_NAME[name].variable: os.environ.get(options.BY_NAME[name].variable, "") for name in KEPT}
    return site.settle(bare, flags, environment)


def _carry_out(program: Program, wanted: Wanted, resolved: Plan) -> int:
    from kuulo import run

    for warning in (*wanted.warnings, *resolved.notes):
        _say("", f"{program.name}: {warning}\n")
    with tempfile.TemporaryDirectory(prefix="kuulo-as-", dir=resolved.options["scratch"]) as scratch:
        settled = {**resolved.options, "output": scratch, "format": (), "existing": "overwrite"}
        teller = Teller(program, wanted)
        recordings = [audio.Recording(Path(path)) for path in wanted.audio]
        job = run.Run(dataclasses.replace(resolved, options=settled), recordings, [], teller)
        try:
            _make_folder(wanted.folder)
            _say(program.opening(wanted))
            job.go()
        except CannotRun as error:
            _say("", f"{program.name}: {error}\n")
            return program.cannot_run
        finally:
            shutil.rmtree(Path(scratch) / ".kuulo", ignore_errors=True)
    text, code = program.closing(wanted, teller.failed)
    _say(text)
    return code


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - any name
    except OSError as error:
        raise CannotRun(
            f"the output folder cannot be made: {error.strerror}", looked_at=naming.shown(folder)
        ) from error


class Teller:
    """Hears how the run goes, and says it as the program does: recording by recording, in the order in which they
    were named, as soon as it is known. Writes each recording's files when it ends."""

    def __init__(self, program: Program, wanted: Wanted) -> None:
        self.program = program
        self.wanted = wanted
        self.failed = 0
        self._works: Sequence[Work] = ()
        self._at = 0
        self._begun = self._told_language = False
        self._said = 0

    def begins(self, works: Sequence[Work]) -> None:
        self._works = works

    def ready(self, device: str, compute_type: str | None) -> None: ...

    def hears(self, work: Work) -> None: ...

    def note(self, text: str) -> None:
        _say("", f"{self.program.name}: {text}\n")

    def progress(self, work: Work) -> None:
        if work is self._works[self._at]:
            self._tell(work)

    def ends(self, work: Work) -> None:
        """Tell what is known of this recording and of those after it that waited."""
        while self._at < len(self._works) and self._works[self._at].outcome.state != report.STOPPED:
            one, path = self._works[self._at], self.wanted.audio[self._at]
            if one.outcome.state == report.FAILED:
                self._begin(path)
                self._fail(path, one.outcome.why or "")
            else:
                self._tell(one, to_the_end=True)
                self._write(one, path)
            self._at, self._said = self._at + 1, 0
            self._begun = self._told_language = False

    def _begin(self, path: str) -> None:
        if not self._begun:
            self._begun = True
            _say(self.program.begins(self.wanted, path))

    def _tell(self, work: Work, *, to_the_end: bool = False) -> None:
        self._begin(self.wanted.audio[self._at])
        if work.language is None:
            return
        if not self._told_language:
            self._told_language = True
            _say(self.program.language(self.wanted, work.language, work.confidence))
        if to_the_end and self._said and work.turns is not None:
            return  # all of it was said before the speakers were known; they have cut the segments since
        segments = _segments(work, self.wanted)
        if to_the_end and self._said == 0:
            segments = sorted(segments, key=lambda s: s.start_ms)
        path = self.wanted.audio[self._at]
        _say("".join(self.program.says(self.wanted, path, s) for s in segments[self._said :]))
        self._said = len(segments)

    def _write(self, work: Work, path: str) -> None:
        heard = Heard(
            path=path,
            language=work.language or "en",
            probability=work.confidence,
            segments=tuple(sorted(_segments(work, self.wanted), key=lambda s: s.start_ms)),
            length_ms=work.offset_ms + work.length_ms,
        )
        try:
            for name, content in self.program.files(self.wanted, heard, self._at).items():
                if name == "-":
                    sys.stdout.flush()
                    sys.stdout.buffer.write(content)
                else:
                    atomic.write_bytes(Path(name), content)
        except OSError as error:
            self._fail(path, f"its results cannot be written: {error.strerror or error}")
        else:
            if work.outcome.warning:
                self.note(f"{path}: {work.outcome.warning}")
            _say(self.program.ends(self.wanted, path))

    def _fail(self, path: str, why: str) -> None:
        self.failed += 1
        _say(*self.program.fails(self.wanted, path, why))


def _segments(work: Work, wanted: Wanted) -> list[Any]:
    """A recording's segments on its own clock, with words where they are wanted."""
    found = []
    for segment in work.segments:
        one = segment.shifted(work.offset_ms)
        if one.decoding and work.offset_ms:
            seek = one.decoding.seek + work.offset_ms // 10
            one = dataclasses.replace(one, decoding=dataclasses.replace(one.decoding, seek=seek))
        if not wanted.options.get("word_times"):
            one = dataclasses.replace(one, words=())
        if wanted.hundredths:
            one = dataclasses.replace(one, end_ms=round(one.end_ms / 10) * 10)
        found.append(writers.to_its_end(one, work.offset_ms + work.length_ms))
    return found


def _say(stdout: str = "", stderr: str = "") -> None:
    """Text on both streams, at once, whatever characters it has."""
    if stdout:
        sys.stdout.write(stdout)
        sys.stdout.flush()
    if stderr:
        sys.stderr.write(stderr)
        sys.stderr.flush()
