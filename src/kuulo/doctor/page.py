"""Findings for people, in as many columns as there are, and for machines."""

from __future__ import annotations

import socket
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import kuulo
from kuulo.doctor.finding import OK, PROBLEM, STATES, UNKNOWN, WARNING, Finding, Looking

SCHEMA = 1

COLOURS = {OK: "green", WARNING: "yellow", PROBLEM: "red", UNKNOWN: "cyan"}
SHOWN = {OK: "ok", WARNING: "warning", PROBLEM: "PROBLEM", UNKNOWN: "unknown"}
"""One word of at most seven letters each."""

NAME_WIDTH = 22
NARROW_NAME_WIDTH = 16
USUAL_WIDTH = 80
LEAST_WIDTH = 60

Style = Callable[..., str]


def lines(finding: Finding, width: int, style: Style) -> list[str]:
    """A finding: its state, its name, what was found, and below it, where something is to be done, where and what."""
    state = style(SHOWN[finding.state].ljust(9), fg=COLOURS[finding.state], bold=finding.state == PROBLEM)
    name = shown(finding.name)
    column = NAME_WIDTH if width >= USUAL_WIDTH else NARROW_NAME_WIDTH
    indent = " " * (11 + column)
    text = _wrapped(finding.found, width - len(indent))
    if len(name) < column:
        made = [f"  {state}{name.ljust(column)}{text[0]}", *(indent + line for line in text[1:])]
    else:
        made = [f"  {state}{name}", *(indent + line for line in text)]
    if finding.state == OK:
        where = shown(finding.looked_at)
        if where and len(indent) + len(text[-1]) + 2 + len(where) <= width:
            made[-1] += "  " + style(where, dim=True)
        elif where:
            made += [indent + style(line, dim=True) for line in _wrapped(where, width - len(indent))]
    else:
        for title, words in (("looked at: ", finding.looked_at), ("do: ", finding.do)):
            if words:
                body = _wrapped(words, width - len(indent) - len(title))
                made.append(indent + style(title, dim=True) + body[0])
                made += [indent + " " * len(title) + line for line in body[1:]]
    return made


def again(findings: Sequence[Finding], width: int, style: Style) -> list[str]:
    """The problems in short, for the end of a long page."""
    made = []
    for finding in findings:
        if finding.state == PROBLEM:
            what = f"{finding.area}, {finding.name}: {finding.found}"
            title = style("PROBLEM".ljust(9), fg=COLOURS[PROBLEM], bold=True)
            body = [*_wrapped(what, width - 11), *_wrapped(finding.do, width - 11)]
            made += [f"  {title}{body[0]}", *(" " * 11 + line for line in body[1:])]
    return made


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    counts = Counter(finding.state for finding in findings)
    said = [f"{counts[PROBLEM]} problem{'' if counts[PROBLEM] == 1 else 's'}" if counts[PROBLEM] else "no problem"]
    if counts[WARNING]:
        said.append(f"{counts[WARNING]} warning{'' if counts[WARNING] == 1 else 's'}")
    if counts[UNKNOWN]:
        said.append(f"{counts[UNKNOWN]} not looked at")
    return ", ".join([*said, f"{counts[OK]} ok"])


def to_json(findings: Sequence[Finding], looking: Looking) -> dict[str, Any]:
    """Documented in docs/doctor.md."""
    counts = Counter(finding.state for finding in findings)
    return {
        "schema": SCHEMA,
        "kuulo": kuulo.__version__,
        "host": socket.gethostname(),
        "site": str(looking.site.site_file) if looking.site.site_file else None,
        "looked_at": "site" if looking.for_site else "user",
        "deep": looking.deep,
        "ok": not counts[PROBLEM],
        "counts": {state: counts[state] for state in STATES},
        "findings": [finding.to_json() for finding in findings],
    }


def shown(text: str) -> str:
    """A text without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _wrapped(text: str, width: int) -> list[str]:
    plain = " ".join(shown(line).strip() for line in text.splitlines())
    return textwrap.wrap(plain, max(16, width), break_long_words=False, break_on_hyphens=False) or [""]
