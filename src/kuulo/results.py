"""The results of recordings in the output folder: what is there already, and writing what is new.

The master copy is written first and the formats after it, each whole or not at all. A format that is missing or older
than its master is one that a killed run did not come to: it is rendered from the master by the next. A file that Kuulo
did not write, or that was changed since, is replaced by `--overwrite` alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import kuulo
from kuulo import atomic, audio, formats, naming
from kuulo.environments.installed import Environment
from kuulo.errors import CannotRun, InputFailed, KuuloError
from kuulo.formats import json as master
from kuulo.note import Note
from kuulo.plan import DIARIZE, Plan
from kuulo.transcript import Audio, Provenance, Speaker, Step, Transcript, Word
from kuulo.work import Work


class Results:
    """The output folder of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.folder = Path(plan.options["output"])
        self.layout = formats.Layout.from_options(plan.options)
        names = formats.expand(plan.options["format"])
        self.formats = tuple(f for f in names if f != "json")
        # Turns without words never lie where a transcript would.
        self._mark = naming.SPEAKERS if plan.job == DIARIZE else ""

    def make_folder(self) -> None:
        """Raises CannotRun."""
        try:
            (self.folder / ".kuulo").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotRun(
                f"the output folder cannot be made: {error.strerror}",
                looked_at=naming.shown(self.folder),
                do="name another with --output",
            ) from error
        if not os.access(self.folder, os.W_OK):
            raise CannotRun(
                "the output folder cannot be written to",
                looked_at=naming.shown(self.folder),
                do="name another with --output",
            )

    def target(self, work: Work, format_: str) -> Path:
        """Where a format of a recording's transcript is."""
        return self._target(work.stem, format_)

    def master(self, stem: PurePath) -> Path:
        """Where the master copy of a recording's transcript is."""
        return self._target(stem, "json")

    def _target(self, stem: PurePath, format_: str) -> Path:
        return self.folder / stem.with_name(stem.name + self._mark + formats.spec(format_).extension)

    def belongs_to_another(self, stem: PurePath, path: Path) -> bool:
        """Whether the results of `stem` are there and another recording's: of another name, or of another place and
        another content. (A recording that was edited where it is, or moved as it is, is the same.)"""
        try:
            found = master.read_master(self.folder / stem.with_name(f"{stem.name}{self._mark}.json")).audio
            facts = path.stat()
        except (KuuloError, OSError):
            return False
        if found.name != naming.shown(path.name):
            return True
        if (found.bytes, found.modified_ns) == (facts.st_size, facts.st_mtime_ns):
            return False
        place = Note.read(self._note(stem)).place
        return place is not None and place != _place(path) and audio.sha256(path) != found.sha256

    def _note(self, stem: PurePath) -> Path:
        """The file of the Note about the results of `stem`."""
        name = hashlib.sha256(os.fsencode(f"{stem}{self._mark}")).hexdigest()[:24]
        return self.folder / ".kuulo" / "sources" / name

    def is_done(self, work: Work, *, look_only: bool = False) -> bool:
        """Whether the recording's results are there, from this plan; a format that is missing or older than the
        master is rendered from it, unless `look_only`. Raises InputFailed when a file that is not ours is in the way,
        and OSError."""
        existing = self.plan.options["existing"]
        target = self.target(work, "json")
        if existing == "overwrite":
            return False
        note = Note.read(self._note(work.stem))
        if not target.exists():
            for name in self.formats:
                if not self._is_free(work, name, note):
                    raise _in_the_way(self.target(work, name))
            return False
        try:
            transcript = master.read_master(target)
        except KuuloError as error:
            raise _in_the_way(target) from error
        if existing != "skip" and not self._same(work, transcript):
            if not self._is_free(work, "json", note):
                raise _in_the_way(target)
            return False
        if look_only:
            return True
        if note.place != _place(work.path):  # it may have been moved since
            note.extended(_place(work.path), {}).write(self._note(work.stem))
        written = target.stat().st_mtime_ns
        stale = [name for name in self.formats if not _is_since(self.target(work, name), written)]
        self._render(work, transcript, stale)
        return True

    def _is_free(self, work: Work, name: str, note: Note, content: bytes | None = None) -> bool:
        """Whether a format's file may be written: none is there, or one that Kuulo wrote, or one with this content."""
        target = self.target(work, name)
        if self.plan.options["existing"] == "overwrite" or not target.exists():
            return True
        found = target.read_bytes()
        return found == content or note.wrote(name, found)

    def _same(self, work: Work, transcript: Transcript) -> bool:
        """Whether a master copy is of this recording under this plan. Size and time of change stand for the content,
        as in make and rsync; when they differ the content is read."""
        if transcript.provenance is None:
            return False
        sha256 = transcript.audio.sha256
        if (transcript.audio.bytes, transcript.audio.modified_ns) != (work.bytes, work.modified_ns):
            sha256 = work.sha256 = audio.sha256(work.path)
        return transcript.provenance.key == self.plan.key_for(sha256)

    def write(self, work: Work, transcript: Transcript) -> None:
        """The master, and every format. Raises KuuloError or OSError."""
        self.target(work, "json").parent.mkdir(parents=True, exist_ok=True)
        self._put(work, {"json": formats.render("json", transcript, self.layout)})
        self._render(work, transcript, self.formats)

    def _render(self, work: Work, transcript: Transcript, names: Sequence[str]) -> None:
        if names:
            self._put(work, {name: formats.render(name, transcript, self.layout) for name in names})

    def _put(self, work: Work, contents: Mapping[str, bytes]) -> None:
        """Write files by format, and note it before. One that is in the way is left alone, with a warning; a master
        copy in the way was changed while the recording was heard: raises InputFailed."""
        note = Note.read(self._note(work.stem))
        free = {name: content for name, content in contents.items() if self._is_free(work, name, note, content)}
        if "json" in contents and "json" not in free:
            raise _in_the_way(self.target(work, "json"))
        note.extended(_place(work.path), free).write(self._note(work.stem))
        for name, content in free.items():
            atomic.write_bytes(self.target(work, name), content)
            work.outcome.outputs.append(naming.shown(self.target(work, name)))
        if len(free) < len(contents):
            work.outcome.warn(_left_alone([self.target(work, name) for name in contents if name not in free]))

    def transcript(self, work: Work, device: str | None, compute: str | None) -> Transcript:
        """The transcript of a recording that was heard to its end, on the recording's own clock."""
        segments = [s.shifted(work.offset_ms) for s in work.segments]
        with_words = self.plan.options["word_times"]
        segments = [dataclasses.replace(s, words=_rounded(s.words) if with_words else ()) for s in segments]
        turns = tuple(t.shifted(work.offset_ms) for t in work.turns or ()) if self.plan.job == DIARIZE else ()
        who = [*(s.speaker for s in segments), *(turn.speaker for turn in turns)]
        return Transcript(
            audio=Audio(
                name=naming.shown(work.path.name),
                sha256=work.sha256,
                duration_ms=work.offset_ms + work.length_ms,
                bytes=work.bytes,
                modified_ns=work.modified_ns,
            ),
            segments=tuple(segments),
            language=work.language,
            language_confidence=work.confidence,
            speakers=tuple(self._speaker(work, id_) for id_ in dict.fromkeys(name for name in who if name)),
            provenance=Provenance(
                kuulo=kuulo.__version__,
                key=work.key,
                steps=(self._step(work, device, compute), *self._diarize_step(work)),
                host=socket.gethostname(),
                started=work.outcome.started,
                elapsed_ms=round((time.monotonic() - work.began) * 1000),
                resumed=work.outcome.resumed_at_ms,
            ),
            turns=turns,
        )

    def _speaker(self, work: Work, id_: str) -> Speaker:
        """A speaker, called as the channel, or as the roster has it where that is sure."""
        match = work.known.get(id_)
        if match is None:
            return Speaker(id_, work.called.get(id_, id_) if self.plan.by_channel else id_)
        return Speaker(id_, match.name if match.sure else f"unknown ({id_})", round(match.distance, 3))

    def _diarize_step(self, work: Work) -> tuple[Step, ...]:
        """How the speakers were told apart."""
        hello, chosen = work.told_apart_by, self.plan.diarizer
        if not hello or chosen is None:
            return ()
        return (
            Step(
                task=DIARIZE,
                engine=hello["engine"],
                engine_version=hello["engine_version"],
                model=chosen.model_name,
                model_revision=chosen.model.revision if chosen.model else None,
                model_sha256=chosen.model.digest if chosen.model else None,
                environment=_environment(_where(chosen.environment), hello),
                why=chosen.why,
                options={n: self.plan.options[n] for n in ("speakers", "speaker_option") if self.plan.options[n]},
                packages=hello["packages"],
            ),
        )

    def _step(self, work: Work, device: str | None, compute: str | None) -> Step:
        plan, model = self.plan, self.plan.model
        hello = work.heard_by or {}
        shaping = {n: plan.options[n] for n in ("from", "to", "speech_detection", "pack") if plan.options[n]}
        smaller = {"batch_size": work.batch_size} if work.batch_size else {}
        if plan.raw:
            shaping["engine_option"] = dict(plan.raw)
        return Step(
            task=plan.job,
            engine=plan.engine,
            engine_version=hello["engine_version"],
            model=plan.model_name,
            model_revision=model.revision if model else None,
            model_sha256=model.digest if model else None,
            device=device,
            compute_type=compute,
            environment=_environment(_where(plan.environment), hello),
            why=plan.why,
            options={**plan.engine_options(), **shaping, **smaller},
            packages=hello["packages"],
            elapsed_ms=work.outcome.engine_ms,
        )


def _rounded(words: Sequence[Word]) -> tuple[Word, ...]:
    """The words with as much of their confidence as means anything."""
    return tuple(
        w if w.confidence is None else dataclasses.replace(w, confidence=round(w.confidence, 4)) for w in words
    )


def _where(environment: Environment | None) -> str:
    return f"{environment.kind} ({environment.variant})" if environment else "beside Kuulo"


def _environment(where: str, hello: Mapping[str, Any]) -> str:
    """In which environment a worker was."""
    return f"{where}, Python {hello['python']}, sha256:{hello['environment']}"


def _place(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _is_since(path: Path, ns: int) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= ns


def _in_the_way(path: Path) -> InputFailed:
    return InputFailed(
        f"{naming.shown(path)} is there and was not written by Kuulo, or was changed since",
        do="choose another --output, or --overwrite to replace it",
    )


def _left_alone(paths: Sequence[Path]) -> str:
    return (
        f"left alone, not written by Kuulo or changed since: {', '.join(naming.shown(p) for p in paths)}. "
        "To have it written anew, move it away and give the same command again"
    )
