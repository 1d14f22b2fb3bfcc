"""The table of tasks on transcripts. A task's module is imported when it is first asked for.

A task is a module with

    TASK: Task                      # base.py: its name, parameters, files
    def run(work: Work) -> Result   # raises KuuloError when nothing came of it

Its prompt is the template of its name, which the user's own may replace.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from kuulo.errors import UsageError

TASKS: dict[str, tuple[str, str]] = {
    "cleanup": ("kuulo.llm.tasks.cleanup", "Without false starts and fillers, as a difference to review."),
    "coding": ("kuulo.llm.tasks.coding", "Passages coded by a code book, with quotes that are looked up."),
    "pseudonymise": ("kuulo.llm.tasks.pseudonymise", "Names, places, dates and numbers replaced, alike in a project."),
    "summary": ("kuulo.llm.tasks.summary", "What was said, shortly, with times that are looked up."),
    "topics": ("kuulo.llm.tasks.topics", "What was talked about, and when."),
    "translation": ("kuulo.llm.tasks.translation", "In another language, segment by segment."),
}
"""Name -> its module, and its line in the help."""


def module(name: str) -> ModuleType:
    """The task's module; raises UsageError for an unknown name."""
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r} on transcripts", do=f"known: {', '.join(TASKS)}")
    return importlib.import_module(TASKS[name][0])


def names(text: str) -> tuple[str, ...]:
    """`summary,coding` -> their names, each once; raises UsageError for an unknown one and for none."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in found:
        module(name)
    if not found:
        raise UsageError("no task is named", do=f"known: {', '.join(TASKS)}")
    return found
