"""The documents say what is there: generated pages are fresh, links lead somewhere, commands in them are understood."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from conftest import Kuulo
from kuulo import engines, errors, formats, options
from kuulo.cli import COMMANDS, cli
from kuulo.llm import options as llm_options

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


COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ +)*(?:\.venv/bin/)?(kuulo .+)$")
SOURCE_NAMES = re.compile(r"\b(KUULO_[A-Z_]*[A-Z])\b")


def shown(page: Path) -> list[str]:
    """The lines of a page's code blocks, fenced or indented, and what stands between back quotes."""
    lines, fenced = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip())
        else:
            lines += re.findall(r"`([^`]+)`", line)
    return lines


def commands() -> list[tuple[str, str]]:
    """(page, line) of each `kuulo ...` line that a page shows."""
    found = []
    for page in PAGES:
        if "reference" in page.parts:
            continue
        for line in shown(page):
            command = COMMAND.match(line)
            if command:  # what is far to the right explains the command
                found.append((str(page.relative_to(ROOT)), re.split(r"\s{3,}|\s#", command[1])[0]))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_in_the_documents_are_understood(page: str, line: str) -> None:
    words = [w for w in shlex.split(line)[1:] if w != "..."]
    command: click.Command = cli
    context = click.Context(cli, info_name="kuulo")
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
        context = click.Context(command, parent=context)
    if not words or "..." in line or {"NAME", "--help"} & {*words}:  # a command is spoken of, not shown
        flags = [o for p in command.params for o in [*p.opts, *p.secondary_opts]]
        assert {w.partition("=")[0] for w in words if w.startswith("--")} <= {*flags, "--help"}, line
        return
    parsed = command.make_context(command.name, list(words), parent=context).params
    for name, value in parsed.items():
        language = {o.name for o in llm_options.OPTIONS} - {o.name for o in options.OPTIONS}
        of_chat = any(f"option_{name}" in parsed for name in language)
        table = llm_options.BY_NAME if of_chat else options.BY_NAME
        option = table.get(name.removeprefix("option_"))
        if option and name.startswith("option_") and value not in (None, ()):
            typed = options.parse(option, value)
            if option.name == "format":
                formats.check(typed)
            if option.name == "engine":
                known = engines.specs("chat" if of_chat else "transcribe")
                assert typed in [name for s in known for name in (s.name, s.environment)], line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_makefile_extras_and_files_that_are_named_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", text("Makefile"), re.M)
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    for line in shown(page):
        if re.match(r"make [a-z]", line):
            named = re.match(r"make ([a-z ]+)", line.partition("#")[0].partition("  ")[0])
            assert named is not None
            assert set(named[1].split()) <= set(targets), line
        for extra in re.findall(r"pip install .*\.\[([^\]]+)\]", line):
            assert extra in extras, line
        if re.fullmatch(r"(src|tests|tools|bench|docs|examples)/[\w/.-]+", line) and "NAME" not in line:
            assert (ROOT / line).exists(), line


@pytest.mark.parametrize("name", [s.name for s in engines.specs()])
def test_an_engines_page_shows_its_native_call(name: str, kuulo: Kuulo) -> None:
    """What `kuulo explain` says where no model is, word for word, and every option that the engine refuses."""
    done = kuulo("explain", "--engine", name, "--language", "en")
    assert done.returncode == 0, done.stderr
    call = [line.removeprefix("  ") for line in done.stdout.partition("native call:\n")[2].splitlines()]
    page = text(f"docs/engines/{name}.md")
    assert f"`kuulo explain --engine {name} --language en`" in page
    assert "\n".join(["```python", *call, "```"]) in page, "\n".join(call)


@pytest.mark.parametrize("name", [s.name for s in engines.specs("diarize")])
def test_the_page_of_speakers_engines_shows_what_explain_says(name: str, kuulo: Kuulo) -> None:
    done = kuulo("explain", "--speaker-engine", name)
    assert done.returncode == 0, done.stderr
    said = re.sub(r"(looked at: ).*", r"\1STORE", done.stdout) if "no store" in done.stdout else done.stdout
    if engines.installed(engines.spec(name)):
        assert f"$ kuulo explain --speaker-engine {name}\n{said}```" in text("docs/engines/speakers.md"), said
    call = done.stdout.partition("native call:\n")[2]
    assert call and call in text("docs/engines/speakers.md")


def test_every_variable_has_its_place() -> None:
    """All that the sources read: those of options, and the others."""
    read = {
        node.value
        for path in (ROOT / "src" / "kuulo").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SOURCE_NAMES.fullmatch(node.value)
    }
    assert {"KUULO_SITE", "KUULO_STORE", "KUULO_OPENAI_URL"} <= read
    page = text("docs/reference/settings.md")
    assert [name for name in sorted(read) if f"`{name}`" not in page] == []


def test_every_dependency_has_its_reason_and_licence() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    wanted += [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    for path in ("requirements-dev.txt", "requirements-dev-bare.txt"):
        wanted += [line for line in text(path).splitlines() if line and not line.startswith("#")]
    rows = re.findall(r"^\| ([\w.-]+)(?: \([^|]*\))? \| [^|]+ \| [^|]+ \|$", text("CONTRIBUTING.md"), re.M)
    assert [line for line in wanted if re.split(r"[<>=]", line)[0] not in rows] == []


def test_the_picture_is_of_a_real_run() -> None:
    picture = text("docs/img/demo.svg").replace("&#160;", " ")
    assert "kuulo transcribe jfk.flac" in picture and "country" in picture
