"""A file of an app, and what YAML is in it, with the lines where it stands.

YAML is read as the portal reads it (Ruby's `YAML.safe_load`): no aliases, no dates, no symbols, no objects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from kuulo.deploy.portal_check.finding import Findings

TAG = re.compile(r"<%(?!%)(=|-|#)?(.*?)-?%>", re.S)
"""A piece of Ruby in an ERB file; its first group is `=` where its value is written."""

PLACEHOLDER = "erb-value"
DATES = "tag:yaml.org,2002:timestamp"


@dataclass(frozen=True)
class Source:
    """A file: its path in the app, and its text."""

    name: str
    text: str

    @property
    def is_erb(self) -> bool:
        return self.name.endswith(".erb")

    def line_of(self, pattern: str) -> int | None:
        """The first line that has it (a regular expression)."""
        found = re.search(pattern, self.text, re.M)
        return self.text.count("\n", 0, found.start()) + 1 if found else None

    def line_of_key(self, key: str) -> int | None:
        """The line where a key of YAML, or an item of a list, stands."""
        quoted = re.escape(key)
        return self.line_of(rf"""^\s*(?:-\s+)?["']?{quoted}["']?\s*(?::|$)""") or self.line_of(rf"\b{quoted}\b")


def read(app: Path, name: str, findings: Findings) -> Source | None:
    """A file, if it is there and can be read as text."""
    try:
        return Source(name, (app / name).read_bytes().decode("utf-8"))  # with its line ends as they are
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        findings.add(name, None, f"it is not UTF-8 ({error.reason})", "save it as UTF-8")
    except OSError as error:
        findings.add(name, None, f"it cannot be read: {error.strerror}", "check its mode")
    return None


def without_ruby(source: Source) -> str:
    """The text with a word for each value that Ruby writes and nothing for the rest; its lines are the file's."""
    if not source.is_erb:
        return source.text

    def replaced(match: re.Match[str]) -> str:
        lines = "\n" * match[0].count("\n")
        return (PLACEHOLDER if match[1] == "=" else "") + lines

    text = TAG.sub(replaced, source.text).replace("<%%", "<%").replace("%%>", "%>")
    return re.sub(r"^[ \t]+$", "", text, flags=re.M)


def parse(source: Source, text: str, findings: Findings) -> Any:
    """The YAML in `text`, which is what `source` becomes; None when it is none. What the portal refuses is found."""
    same = text.count("\n") == source.text.count("\n")

    def at(mark: Any, key: str = "") -> int | None:
        if same and mark is not None:
            return int(mark.line) + 1
        return source.line_of_key(key) if key else None

    try:
        events = list(yaml.parse(text, Loader=yaml.SafeLoader))
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        findings.add(source.name, at(mark), f"it is not YAML: {said}", "correct the line")
        return None
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            findings.add(
                source.name, at(event.start_mark), f"the alias *{event.anchor}: the portal refuses aliases",
                "write out what it stands for",
            )  # fmt: skip
            return None
    before = len(findings.findings)
    _look_at(node, source, at, findings)
    if len(findings.findings) > before and _refused_by_loader(node):
        return None
    return yaml.safe_load(text)


def _look_at(node: Any, source: Source, at: Any, findings: Findings) -> None:
    """Find dates, symbols, objects, and keys that are there twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name and name in seen:
                findings.add(
                    source.name, at(key.start_mark, name), f"the key {name!r} is there twice: the last one counts",
                    "leave one out",
                )  # fmt: skip
            seen.add(name)
            _look_at(key, source, at, findings)
            _look_at(value, source, at, findings)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _look_at(item, source, at, findings)
    elif isinstance(node, yaml.ScalarNode):
        line = at(node.start_mark, node.value)
        if node.tag == DATES:
            findings.add(source.name, line, f"{node.value} is a date: the portal refuses dates", "put it in quotes")
        elif node.style is None and re.fullmatch(r":\w[\w?!]*", node.value):
            findings.add(
                source.name, line, f"{node.value} is a symbol of Ruby: the portal refuses symbols", "put it in quotes"
            )
        elif not node.tag.startswith("tag:yaml.org,2002:"):
            findings.add(source.name, line, f"the tag {node.tag}: the portal refuses objects", "leave the tag out")


def _refused_by_loader(node: Any) -> bool:
    """Whether there is a tag that a safe loader does not know."""
    if isinstance(node, yaml.ScalarNode):
        return not node.tag.startswith("tag:yaml.org,2002:")
    if isinstance(node, yaml.MappingNode):
        return any(_refused_by_loader(k) or _refused_by_loader(v) for k, v in node.value)
    return any(_refused_by_loader(item) for item in getattr(node, "value", ()))
