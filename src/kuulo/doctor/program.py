"""Kuulo itself: the program, its Python, the files with its settings."""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import kuulo
from kuulo.doctor import folders
from kuulo.doctor.finding import OK, PROBLEM, WARNING, Finding, Looking

NEEDED = ("av", "click", "numpy", "platformdirs", "rich", "scipy", "yaml")
"""Modules without which nothing is transcribed."""


def check(looking: Looking) -> Iterator[Finding]:
    """The program, Python, the settings; that no network is needed."""
    yield _program()
    yield _python()
    if looking.for_site:  # what is deployed runs with it, on every node
        yield from _for_users()
    yield from _settings(looking)
    yield Finding("network", OK, "not needed, and not looked for")


def _program() -> Finding:
    folder = str(Path(kuulo.__file__).parent)
    own = [Path(sys.argv[0]), Path(kuulo.__file__).parents[2] / "bin" / "kuulo"]  # started with it; deployed
    command = next((str(p.absolute()) for p in own if p.name == "kuulo" and p.is_file()), shutil.which("kuulo"))
    found = f"{kuulo.__version__}, {f'the command is {command}' if command else 'no command kuulo in PATH'}"
    if command is None:
        do = f"{sys.executable} -m kuulo works too; or add its folder to PATH, or load its module"
        return Finding("kuulo", WARNING, found, folder, do)
    return Finding("kuulo", OK, found, folder)


def _python() -> Finding:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        do = "install Kuulo anew, with all that it needs: pip install kuulo"
        return Finding("python", PROBLEM, f"packages are missing: {', '.join(missing)}", sys.executable, do)
    return Finding("python", OK, platform.python_version(), sys.executable)


def _for_users() -> Iterator[Finding]:
    for finding in folders.readable("python for users", Path(sys.executable).resolve()):
        if finding.state == PROBLEM:
            do = "make Kuulo's environment with a Python that everybody can read, and deploy from that"
            finding = dataclasses.replace(finding, do=do)
        yield finding


def _settings(looking: Looking) -> Iterator[Finding]:
    site = looking.site
    if looking.trouble:
        do = looking.trouble.do or "correct the file; `kuulo doctor` went on with the built-in settings"
        yield Finding("settings", PROBLEM, looking.trouble.what, looking.trouble.looked_at or "", do)
        return
    if not looking.for_site:
        if site.site_file:
            centre = site.centre.name or "a centre"
            whom = f"; ask {site.centre.contact}" if site.centre.contact else ""
            yield Finding("site", OK, f"settings of {centre}{whom}", str(site.site_file))
        if site.user_file:
            said = sorted([*site.user, *(["jobs"] if site.user_jobs else [])])
            yield Finding("your settings", OK, ", ".join(said) or "nothing is set", str(site.user_file))
