"""`manifest.yml` and `form.yml`: what the portal does not understand in them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kuulo.deploy.portal_check import facts
from kuulo.deploy.portal_check.finding import Findings
from kuulo.deploy.portal_check.source import PLACEHOLDER, Source


def near(word: str, words: Iterable[str]) -> str:
    """`did you mean ...?`, or what else to do about a key that nobody reads."""
    found = difflib.get_close_matches(word, sorted(words), n=1)
    return f"did you mean {found[0]}?" if found else "leave it out"


def has_keys(source: Source, said: Any, known: Collection[str], do: str, findings: Findings) -> bool:
    """Whether a file is a map of keys. Those that are not `known` are told of; `do`: what to write where it is none."""
    if not isinstance(said, dict):
        findings.add(source.name, 1, "it is not a map of keys", do)
        return False
    for key in said:
        if key not in known:
            line = source.line_of_key(str(key))
            findings.add(source.name, line, f"the portal reads no key {key!r}", near(str(key), known))
    return True


def check_manifest(source: Source, said: Any, findings: Findings) -> None:
    if not has_keys(source, said, facts.MANIFEST, "write name, category and role", findings):
        return
    role = said.get("role")
    if role != facts.ROLE:
        what = f"the role is {role!r}" if role else "it has no role"
        findings.add(
            source.name,
            source.line_of_key("role") or 1,
            f"{what}: the portal takes it for no batch-connect app",
            f"role: {facts.ROLE}",
        )
    if not said.get("name"):
        findings.add(source.name, 1, "it has no name: the menu shows the folder's", "name: ...")


def check_form(source: Source, said: Any, findings: Findings) -> None:
    if not has_keys(source, said, facts.FORM, "write cluster, attributes and form", findings):
        return
    items, attributes = said.get("form", []), said.get("attributes", {})
    if not isinstance(items, list):
        findings.add(
            source.name, source.line_of_key("form"), "form is not a list: the portal refuses the app", "- one on a line"
        )
        items = []
    if not isinstance(attributes, dict):
        findings.add(
            source.name,
            source.line_of_key("attributes"),
            "attributes is not a map: the portal refuses the app",
            "write `name:` and below it what belongs to it",
        )
        attributes = {}
    for item in items:
        _check_item(source, item, attributes, findings)
    for name, attribute in attributes.items():
        _check_attribute(source, str(name), attribute, findings)


def is_predefined(name: str) -> bool:
    """Whether the portal knows it by itself."""
    return name in facts.PREDEFINED or facts.PREDEFINED_PATTERN.fullmatch(name) is not None


def _check_item(source: Source, item: Any, attributes: Mapping[Any, Any], findings: Findings) -> None:
    if not isinstance(item, str):
        findings.add(
            source.name, source.line_of_key("form"), f"{item!r} in form is no name", "one name on each line, in quotes"
        )
        return
    if item == PLACEHOLDER:
        return
    line = source.line_of(rf"""^\s*-\s*["']?{item}\b""") or source.line_of_key(item)
    if item in facts.METHODS:
        findings.add(
            source.name, line, f"{item!r} is a method of Ruby's objects: the portal refuses the form", "another name"
        )
    if not is_predefined(item) and item not in attributes:
        known = [*map(str, attributes), *facts.PREDEFINED]
        findings.add(
            source.name,
            line,
            f"{item!r} is neither predefined nor in attributes: it becomes an empty text field",
            near(item, known).replace("leave it out", "describe it in attributes"),
        )
    if item != item.lower() and not facts.PREDEFINED_PATTERN.fullmatch(item):
        findings.add(
            source.name, line, f"{item!r} has capitals: the portal calls it {item.lower()!r}", "small letters alone"
        )


def _check_attribute(source: Source, name: str, said: Any, findings: Findings) -> None:
    if not isinstance(said, dict):
        return  # a fixed value
    line = source.line_of(rf"""^\s*["']?{name}["']?\s*:""") or source.line_of_key(name)
    for key in said:
        if str(key) not in facts.ATTRIBUTE and not facts.ATTRIBUTE_PATTERN.fullmatch(str(key)):
            findings.add(
                source.name,
                _line_below(source, line, str(key)),
                f"{name}: the portal reads no key {key!r}",
                near(str(key), facts.ATTRIBUTE),
            )
    widget = said.get("widget", "text_field")
    if widget not in facts.WIDGETS and widget != PLACEHOLDER:
        findings.add(
            source.name,
            _line_below(source, line, "widget"),
            f"{name}: there is no widget {widget!r}",
            near(str(widget), facts.WIDGETS),
        )
    if widget in ("select", "radio", "radio_button") and not is_predefined(name):
        _check_options(source, name, said, _line_below(source, line, "options"), findings)


def _check_options(source: Source, name: str, said: Mapping[str, Any], line: int | None, findings: Findings) -> None:
    options = said.get("options")
    if isinstance(options, dict):
        options = [list(pair) for pair in options.items()]
    if not isinstance(options, list):
        findings.add(
            source.name, line, f"{name}: it has nothing to choose from", "options: a list of values, or [text, value]"
        )
        return
    if any(option is None for option in options):
        findings.add(
            source.name, line, f"{name}: an option is empty (nil): the portal refuses the form", 'write "" for none'
        )
    for option in options:
        if option is not None and not isinstance(option, (str, list)):
            findings.add(
                source.name,
                line,
                f"{name}: the option {option!r} is neither text nor a list: the portal refuses the form",
                f'"{option}"',
            )
    values = [str(o[1] if isinstance(o, list) and len(o) > 1 else o[0] if isinstance(o, list) and o else o)
              for o in options]  # fmt: skip
    value = said.get("value")
    if value is not None and PLACEHOLDER not in values and str(value) not in values and str(value) != PLACEHOLDER:
        findings.add(
            source.name, line, f"{name}: its value {value!r} is none of its options: the first is chosen", "one of them"
        )


def _line_below(source: Source, line: int | None, key: str) -> int | None:
    """The line of a key in the block that begins at `line`."""
    if line is None:
        return source.line_of_key(key)
    below = Source(source.name, "\n".join(source.text.splitlines()[line - 1 :]))
    found = below.line_of(rf"""^\s*["']?{key}["']?\s*:""")
    return line - 1 + found if found else line
