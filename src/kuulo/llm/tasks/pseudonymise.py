"""Names, places, dates and numbers replaced, alike in all transcripts of a project.

Two passes find what is to be replaced: rules (`rules.py`), and the model, which is asked for names and places in every
part. What either finds in one transcript is replaced in all that are given together, and in later runs of the project:
its key (`pseudonyms.py`) remembers. Nothing is written of a transcript when the model's pass failed on a part of it.

The result holds nothing else from which the words could be read: no tokens, no prompts, no name of the recording. What
the report says are counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import kuulo
from kuulo import atomic, naming
from kuulo.errors import InputFailed, KuuloError, UsageError
from kuulo.llm import pseudonyms, rules
from kuulo.llm.asking import NoAnswer
from kuulo.llm.pseudonyms import Entry, Key
from kuulo.llm.tasks.base import Parameter, Result, Task, Work, needs_times, occurs, step, times_of
from kuulo.llm.transcripts import Line, Part
from kuulo.transcript import Provenance, Segment, Speaker, Transcript, Word

TASK = Task(
    "pseudonymise",
    (".pseudonymised.json",),
    (
        Parameter("project", "What belongs together: one key, one pseudonym for a name.", default="default"),
        Parameter(
            "key", "The file with the key. Without it: one of the project's in your own data folder.", default=""
        ),
        Parameter("region", "Country whose telephone numbers are found, as FI; without it those with +.", default=""),
        Parameter(
            "keep", "Kinds that stay, by commas: contact, date, number, organisation, other, person, place.", default=""
        ),
    ),
)

SHARE, MOST_LINES = 0.5, 60
ALIKE = 4
"""Letters that a word shares with a replaced name when it is counted as alike."""

BY_RULE = (rules.CONTACT, rules.DATE, rules.NUMBER)
FOUND_BY_MODEL = ("person", "place", "organisation", "date", "number", "other")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "found": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "minLength": 1},
                    "kind": {"enum": list(FOUND_BY_MODEL)},
                    "base": {"type": "string"},
                },
                "required": ["text", "kind", "base"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["found"],
    "additionalProperties": False,
}
_GENERIC = re.compile(r"(?:unknown \()?(?:S|SPEAKER_?|Speaker )\d+\)?|unknown|left|right|mono|\W*", re.IGNORECASE)


def check(values: Mapping[str, str]) -> dict[str, str]:
    """The parameters; raises UsageError, and EngineMissing without the libraries of the rules."""
    rules.check()
    kept = [part.strip() for part in values["keep"].split(",") if part.strip()]
    if unknown := [kind for kind in kept if kind not in pseudonyms.KINDS]:
        raise UsageError(f"there is no kind {unknown[0]!r} to keep", do=f"known: {', '.join(pseudonyms.KINDS)}")
    path = Path(values["key"]).expanduser() if values["key"] else pseudonyms.default_path(values["project"])
    return {**values, "region": rules.check_region(values["region"]), "key": str(path)}


@dataclass
class _Reading:
    """A transcript, and what the model found in it."""

    work: Work
    transcript: Transcript
    names: list[dict[str, str]] = field(default_factory=list)
    invented: int = 0
    failed: list[Part] = field(default_factory=list)


def run_all(works: Sequence[Work]) -> list[Result | KuuloError]:
    """The results of transcripts that are given together: first all are read, then all are written."""
    first = works[0]
    with pseudonyms.opened(Path(first.value("key")), first.value("project")) as key:
        known, earlier = len(key.entries), set(key.found) - {work.material.sha256 for work in works}
        readings = [_read(work, key) for work in works]
        for reading in readings:
            if isinstance(reading, _Reading):
                _enter(reading, key)
        key.write()
        grown = earlier and any(entry.kind not in BY_RULE for entry in key.entries[known:])
        replacer = Replacer(key, first)
        results = [r if isinstance(r, KuuloError) else _result(r, replacer) for r in readings]
        key.write()  # with what the rules found
    for result in results:
        if grown and isinstance(result, Result):
            result.notes.append(f"{len(earlier)} other transcripts of the project may have its new names: do all again")
    return results


def _read(work: Work, key: Key) -> _Reading | KuuloError:
    """What the model finds, asked or remembered."""
    try:
        transcript = needs_times(work)
        parts = work.parts(SHARE, numbered=False, most=MOST_LINES)
    except KuuloError as error:
        return error
    reading = _Reading(work, transcript)
    by = [work.template.digest, work.note.get("model_sha256") or work.note.get("model"), work.note.get("options")]
    known = key.found.get(work.material.sha256)
    if known and known["by"] == by:
        reading.names, reading.invented = known["names"], known["invented"]
        return reading
    for part in parts:
        try:
            data = work.asker.data(*work.prompt(part.lines, numbered=False), SCHEMA)
        except NoAnswer:
            reading.failed.append(part)
            continue
        text = " ".join(f"{line.speaker} {line.text}" for line in part.lines)
        there = [one for one in data["found"] if occurs(one["text"], text)]
        reading.invented += len(data["found"]) - len(there)
        reading.names += [one for one in there if one not in reading.names]
    if not reading.failed:
        key.found[work.material.sha256] = {"by": by, "names": reading.names, "invented": reading.invented}
    return reading


def _enter(reading: _Reading, key: Key) -> None:
    """What the model found, and the speakers' names, into the key. A name of one word is that of the person in the
    transcript whose full name has it, where there is one alone."""
    kept = _kept(reading.work)
    found = [(one["kind"], _one_space(one["text"]), _one_space(one["base"])) for one in reading.names]
    labels = [speaker.label for speaker in reading.transcript.speakers if not _GENERIC.fullmatch(speaker.label)]
    found += [("person", _one_space(label), "") for label in labels]
    full = dict.fromkeys(base or text for kind, text, base in found if kind == "person" and " " in (base or text))
    for kind, text, base in sorted(found, key=lambda one: " " not in (one[2] or one[1])):
        owners = [name for name in full if (base or text).casefold() in name.casefold().split()]
        if kind == "person" and len(owners) == 1:
            base = owners[0]
        if kind not in kept:
            key.entry(kind, text, base)
    for label in labels if "person" not in kept else ():
        entry = key.entry("person", _one_space(label))
        for word in label.split():
            if len(word) > 2 and word[:1].isupper():
                key.entry("person", word.strip(".,"), entry.base)


def _one_space(text: str) -> str:
    return " ".join(text.split())


def _kept(work: Work) -> set[str]:
    return {part.strip() for part in work.value("keep").split(",") if part.strip()}


class Replacer:
    """Replaces what is in the key and what rules find. Forms are replaced as they were found, and in capitals."""

    def __init__(self, key: Key, work: Work) -> None:
        self._key, self._kept = key, _kept(work)
        self._region = work.value("region")
        self._forms: dict[str, Entry] = {}
        for entry in key.entries:
            if entry.kind not in self._kept:
                for form in entry.forms:
                    self._forms.setdefault(form, entry)
                    self._forms.setdefault(form.upper(), entry)
        longest = sorted(self._forms, key=len, reverse=True)
        shown = "|".join(r"\s+".join(map(re.escape, form.split())) for form in longest)
        self._pattern = re.compile(rf"(?<!\w)(?:{shown})(?!\w)") if shown else None

    def spans(self, text: str, language: str) -> list[tuple[int, int, Entry]]:
        """What is replaced in a text, in order and without overlap."""
        found: list[tuple[int, int, str]] = [
            (s.start, s.end, s.kind) for s in rules.spans(text, language, self._region)
        ]
        by_rule = [one for one in found if one[2] != rules.NUMBER]
        numbers = [one for one in found if one[2] == rules.NUMBER]
        by_key = [(m.start(), m.end(), "") for m in self._pattern.finditer(text)] if self._pattern else []
        chosen: list[tuple[int, int, str]] = []
        for start, end, kind in [*by_rule, *by_key, *numbers]:
            if kind not in self._kept and all(end <= a or start >= b for a, b, _ in chosen):
                chosen.append((start, end, kind))
        return [(start, end, self._entry(text[start:end], kind)) for start, end, kind in sorted(chosen)]

    def _entry(self, form: str, kind: str) -> Entry:
        form = " ".join(form.split())
        return self._key.entry(kind, form) if kind else self._forms[form]

    def text(self, text: str, language: str, counts: Counter[str]) -> str:
        """The text with pseudonyms."""
        pieces, at = [], 0
        for start, end, entry in self.spans(text, language):
            pieces += [text[at:start], entry.shown]
            counts[entry.kind] += 1
            at = end
        return "".join([*pieces, text[at:]])

    def segment(self, segment: Segment, language: str, counts: Counter[str]) -> Segment:
        """The segment with pseudonyms: words that one covers become one word, with their time. Nothing of the
        decoder stays."""
        words = segment.words
        if "".join(word.text for word in words) != segment.text:
            words = ()
        text = self.text(segment.text, language, counts)
        bare = replace(segment, text=text, decoding=None, words=())
        if not words:
            return bare
        return replace(bare, words=tuple(_words(words, self.spans(segment.text, language))))

    def alike(self, text: str) -> bool:
        """Whether a word that is left begins as a name that is replaced: another form of it, perhaps."""
        rest = re.sub(r"\[[^\]]*\]", " ", text)
        words = {w.casefold() for w in re.findall(r"\w+", rest) if w[:1].isupper()}
        names = {e.base.casefold() for e in self._key.entries if e.kind in ("person", "place", "organisation")}
        starts = {part[: max(ALIKE, len(part) - 2)] for name in names for part in name.split() if len(part) >= ALIKE}
        return any(word.startswith(start) for word in words for start in starts)


def _words(words: Sequence[Word], spans: Sequence[tuple[int, int, Entry]]) -> list[Word]:
    """Words of which those that a span touches are one, with what of them is outside of the span around it."""
    made: list[Word] = []
    at = 0
    ends: list[tuple[int, int, Word]] = []
    for word in words:
        ends.append((at, at + len(word.text), word))
        at += len(word.text)
    waiting = list(spans)
    index = 0
    while index < len(ends):
        begin, end, word = ends[index]
        if not waiting or waiting[0][0] >= end:
            made.append(word)
            index += 1
            continue
        last, text, text_at = index, "", begin
        while waiting and waiting[0][0] < ends[last][1]:
            start, stop, entry = waiting.pop(0)
            while ends[last][1] < stop:
                last += 1
            text += _between(ends, text_at, start) + entry.shown
            text_at = stop
        text += _between(ends, text_at, ends[last][1])
        made.append(Word(text, word.start_ms, ends[last][2].end_ms, speaker=word.speaker))
        index = last + 1
    return made


def _between(ends: Sequence[tuple[int, int, Word]], start: int, stop: int) -> str:
    return "".join(w.text[max(0, start - a) : max(0, stop - a)] for a, b, w in ends if a < stop and b > start)


def _result(reading: _Reading, replacer: Replacer) -> Result | KuuloError:
    """The transcript with pseudonyms; the failure when a part was not read."""
    work = reading.work
    if reading.failed:
        return InputFailed(
            f"names were not looked for in {len(reading.failed)} parts: the model gave no answer that fits",
            looked_at=", ".join(part.span for part in reading.failed),
            do="nothing was written: give the same command again, or take another model",
        )
    before, counts = reading.transcript, Counter[str]()
    segments = []
    for segment in before.segments:
        segments.append(replacer.segment(segment, segment.language or before.language or "", counts))
    labels = {
        s.id: s.label if _GENERIC.fullmatch(s.label) else replacer.text(s.label, "", Counter()) for s in before.speakers
    }
    after = Transcript(
        audio=replace(before.audio, name="recording", bytes=None, modified_ns=None),
        segments=tuple(segments),
        language=before.language,
        speakers=tuple(Speaker(s.id, labels[s.id]) for s in before.speakers),
        turns=before.turns,
        provenance=Provenance(kuulo.__version__, "", (replace(step(work), options={}),)),
    )
    left = [line for line, s in _lines(work, segments) if replacer.alike(s.text)]
    notes = [f"replaced: {', '.join(f'{kind} {n}' for kind, n in sorted(counts.items())) or 'nothing'}"]
    if reading.invented:
        notes.append(f"{reading.invented} names that the model gave are not in the transcript: not used")
    if left:
        notes.append(f"to look at, words begin as names that were replaced: {times_of(left)}")
    if not work.value("region"):
        notes.append("telephone numbers without + count as numbers: -p region FI finds those of a country")
    if replacer.text(work.material.name, "", Counter()) != work.material.name:
        notes.append("the file's own name has a name in it that was replaced: give it another one")
    return Result(
        {"replaced": dict(sorted(counts.items()))},
        files={".pseudonymised.json": atomic.encode_json(after.to_json())},
        checks={
            "replaced": sum(counts.values()),
            "not_in_transcript": reading.invented,
            "lines_to_look_at": len(left),
        },
        notes=[*notes, f"the key: {naming.shown(work.value('key'))}"],
    )


def _lines(work: Work, segments: Sequence[Segment]) -> list[tuple[Line, Segment]]:
    return [(line, segments[work.material.segment_of(line)]) for line in work.material.lines]
