"""The documents say what is there: generated pages are fresh, links lead somewhere, commands in them are understood."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kuulo import engines, errors, formats, options
from kuulo.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_reference_is_what_the_code_says() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "reference.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `make docs`:\n{done.stdout}{done.stderr}"


def test_everything_has_its_place() -> None:
    for option in options.OPTIONS:
        assert f"### {option.name}\n" in text("docs/reference/options.md")
        assert f"`{option.variable}`" in text("docs/reference/options.md")
    for spec in engines.specs():
        assert (ROOT / "docs" / "engines" / f"{spec.name}.md").exists()
        assert f"docs/engines/{spec.name}.md" in text("README.md")
    for name in COMMANDS:
        assert f"## kuulo {name}\n" in text("docs/reference/commands.md")
    for name in formats.names():
        assert f"| {name} |" in text("docs/reference/formats.md")
    for name, code in vars(errors).items():
        if name.startswith("EXIT_"):
            assert f"| {code} |" in text("docs/reference/exit-codes.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            found = (page.parent / path).resolve() if path else page
            assert found.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.M)
                assert anchor in [h.lower().replace(" ", "-") for h in headings], target


def commands() -> list[tuple[str, str]]:
    """(page, line) of each `kuulo ...` line in a code block or in back quotes."""
    found = []
    for page in PAGES:
        if "reference" in page.parts:
            continue
        lines = page.read_text(encoding="utf-8")
        blocks = "\n".join(re.findall(r"^```\n(.*?)^```", lines, re.S | re.M))
        quoted = re.findall(r"`(kuulo [^`\n]+)`", lines)
        for line in [*re.findall(r"^(kuulo [^\n]+)$", blocks, re.M), *quoted]:
            found.append((str(page.relative_to(ROOT)), line))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_in_the_documents_are_understood(page: str, line: str) -> None:
    words = [w for w in shlex.split(line.partition("#")[0])[1:] if w != "..."]
    command: click.Command = cli
    context = click.Context(cli, info_name="kuulo")
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
        context = click.Context(command, parent=context)
    if "--help" in words or "..." in line or any(w.isupper() and "=" not in w for w in words) or not words:
        for word in words:
            if word.startswith("--"):
                flags = [o for p in command.params for o in [*p.opts, *p.secondary_opts]]
                assert word.partition("=")[0] in [*flags, "--help"], f"{word} in {line}"
        return
    command.make_context(command.name, list(words), parent=context)


def test_the_picture_is_of_a_real_run() -> None:
    picture = text("docs/img/demo.svg").replace("&#160;", " ")
    assert "kuulo transcribe jfk.flac" in picture and "country" in picture
