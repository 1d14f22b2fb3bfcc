"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: in which file of the app, in which line (None: nowhere in it), what, and what to do."""

    file: str
    line: int | None
    what: str
    do: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.what}. To do: {self.do}"

    def to_json(self) -> dict[str, Any]:
        return vars(self)


@dataclass
class Findings:
    """All of them. `notes`: what could not be looked at, and why."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, file: str, line: int | None, what: str, do: str) -> None:
        found = Finding(file, line, what, do)
        if found not in self.findings:
            self.findings.append(found)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
