"""A summary that quotes times. Each time in it is looked up: one at which no line of the transcript begins is marked.

A transcript that is longer than the model's context is summarised in parts, and the summaries are summarised.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from kuulo import naming
from kuulo.llm.asking import Asker
from kuulo.llm.tasks.base import Result, Task, Work, encoded
from kuulo.llm.templates import Template
from kuulo.llm.transcripts import Material

TASK = Task("summary", (".summary.md",))

SHARE = 0.65
"""How much of the context is for the transcript; the rest is for the answer."""

NOT_THERE = "time not in the transcript"
_CLOCK = re.compile(r"(?<![\d:.])(?:(\d{1,3}):)?(\d{1,2}):(\d{2})(?:[.,]\d{1,3})?(?![\d:])")


def run(work: Work) -> Result:
    """The summary, and what became of its times."""
    parts = work.parts(SHARE, numbered=False)
    texts = [work.asker.text(*work.prompt(part.lines, numbered=False)) for part in parts]
    marked, right, wrong = checked_times("\n\n".join(texts), work.material)
    if len(texts) > 1:
        together = merged(
            work.asker, work.template, work.variables, [checked_times(t, work.material)[0] for t in texts]
        )
        marked, right, wrong = checked_times(together, work.material)
    notes = [f"{wrong} of the {right + wrong} times that it quotes are not in the transcript: marked"] if wrong else []
    if not any(line.clock for line in work.material.lines):
        notes.append("the transcript has no times")
    elif not right + wrong:
        notes.append("it quotes no times: nothing says where its statements come from")
    return Result(
        {"text": marked},
        files={".summary.md": encoded(f"# {naming.shown(work.material.name)}\n\n{marked.strip()}\n")},
        checks={"parts": len(parts), "times": right + wrong, "times_not_in_transcript": wrong},
        notes=notes,
    )


def checked_times(text: str, material: Material) -> tuple[str, int, int]:
    """The text with the mark after each time at which no line begins, how many times are right and how many not. What
    somebody says in the transcript, as "at 10:30", is no time to look up."""
    begins = {line.start_ms // 1000 for line in material.lines if line.start_ms is not None}
    said = " ".join(line.text for line in material.lines)
    counts = {True: 0, False: 0}

    def mark(match: re.Match[str]) -> str:
        if text[match.end() :].startswith(f" ({NOT_THERE})"):
            counts[False] += 1
            return match[0]
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        is_there = (hours * 60 + minutes) * 60 + seconds in begins
        if not is_there and re.search(rf"(?<![\d:]){re.escape(match[0])}(?![\d:])", said):
            return match[0]
        counts[is_there] += 1
        return match[0] if is_there else f"{match[0]} ({NOT_THERE})"

    return _CLOCK.sub(mark, text), counts[True], counts[False]


def merged(asker: Asker, template: Template, variables: Mapping[str, str], texts: Collection[str]) -> str:
    """One answer from several, in as many rounds as the context needs. Raises NoAnswer."""
    found = list(texts)
    while len(found) > 1:
        system, prompt = template.filled(variables, "", merging=True)
        room = asker.room(system, prompt, SHARE)
        groups = grouped(found, room, asker)
        found = [
            asker.text(*template.filled(variables, "\n\n".join(group), merging=True)) if len(group) > 1 else group[0]
            for group in groups
        ]
    return found[0]


def grouped(texts: Collection[str], room: int, asker: Asker) -> list[list[str]]:
    """Texts in groups that fit; never fewer than two in the first one, so that there are always fewer groups."""
    groups: list[list[str]] = []
    size = 0
    for text in texts:
        tokens = asker.counter(text) + 2
        if groups and (size + tokens <= room or len(groups[-1]) < 2):
            groups[-1].append(text)
            size += tokens
        else:
            groups.append([text])
            size = tokens
    return groups
