"""What is wrong in a script as it is written, without running it."""

from __future__ import annotations

import re

from kuulo.deploy.portal_check.finding import Findings
from kuulo.deploy.portal_check.source import TAG, Source

NOTHING = re.compile(r"(echo|printf|date|sleep|true|:|cd|export|module|ml|logger|rm|touch)\b")
"""Commands after which `$?` says nothing of what was done before them."""

ASKS = re.compile(r"\$\?|\$\{\?\}")
WRITES = re.compile(r"^[ \t]*(?:\d?>>?|[\w./${}\"-]+=)")
SAFE = re.compile(r"\.(to_i|to_f|to_sym\.inspect|shellescape)\b|Shellwords\.(shell)?escape|\?\s*[^:]+:|==|!=|\.blank\?")
"""Ruby whose value is no text of a person's: numbers, quoted words, the choice between two texts."""


def check_text(source: Source, findings: Findings) -> None:
    """A script's pitfalls."""
    if "\r\n" in source.text:
        findings.add(
            source.name, source.line_of(r"\r$"), "its lines end as on Windows: bash takes the return for a letter",
            "save it with Unix line ends",
        )  # fmt: skip
    before: tuple[int, str] | None = None
    depth = 0
    for number, line in _lines(source.text):
        if ASKS.search(line) and before and NOTHING.match(before[1]) and not ASKS.search(before[1]):
            command = NOTHING.match(before[1])
            assert command is not None
            findings.add(
                source.name,
                number,
                f"$? is that of `{command[1]}` in line {before[0]}, and not of the command before it",
                "keep the code at once: `command; code=$?`, or write `if command; then`",
            )
        if re.match(r"sbatch\b|.*\$\(\s*sbatch\b|.*[;&|]\s*sbatch\b", line) and not depth:
            findings.add(
                source.name,
                number,
                "sbatch in a job: the session is over at once, and its card knows nothing of the other job",
                "do the work in this job",
            )
        before = (number, line)


def check_flow(source: Source, fields: frozenset[str], findings: Findings) -> None:
    """Where a form's value is written into shell text: for when nothing can be rendered."""
    for match in TAG.finditer(source.text):
        if match[1] != "=" or SAFE.search(match[2]):
            continue
        names = [name for name in re.findall(r"\bcontext\.(\w+)", match[2]) if name in fields]
        for name in names:
            findings.add(
                source.name,
                source.text.count("\n", 0, match.start()) + 1,
                flows(name),
                DATA,
            )


def flows(name: str) -> str:
    """What is found of a field whose value becomes shell text."""
    return f"the form's value {name!r} becomes shell text: what somebody writes there is executed"


DATA = "hand it over as data: in job_environment of submit.yml.erb, or in a JSON file (`<%= JSON.generate(...) %>`)"


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that are commands, with their numbers: no comments, no empty ones, no bodies of here-documents."""
    found, end = [], None
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if end is not None:
            end = None if bare == end else end
            continue
        here = re.search(r"<<-?\s*[\"']?(\w+)[\"']?", bare)
        if here and "<<<" not in bare:
            end = here[1]
        if bare and not bare.startswith(("#", "<%")):
            found.append((number, bare))
    return found
