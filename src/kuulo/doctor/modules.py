"""Modules: the command, the folder in users' MODULEPATH, the files of what is deployed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kuulo.doctor.asking import Answer, ask
from kuulo.doctor.finding import OK, PROBLEM, UNKNOWN, WARNING, Finding, Looking, some

NAME = "kuulo"
LOGIN = ("bash", "--login", "-c")
"""As a user's shell begins: where `module` and MODULEPATH come from."""


def check(looking: Looking) -> Iterator[Finding]:
    """What `module load kuulo` needs."""
    centre = looking.site.centre
    said = centre.deploy.get("modules")
    if not said:
        yield Finding("modules", OK, "the site's file has no `modules` in [deploy]: none are made")
        return
    folder = Path(said)
    command = _login('type -t module >/dev/null && printf %s "${LMOD_VERSION:-${MODULES_VERSION:-unknown}}"')
    yield _command(command)
    yield from _path(folder)
    names = [centre.module.get("name", NAME), *filter(None, [centre.module.get("diarization")])]
    for name in names:
        yield from _files(folder, name, centre.deploy.get("folder"))
        if command.ok:
            yield _seen(name, folder)


def _command(answer: Answer) -> Finding:
    if answer.ok:
        return Finding("module command", OK, f"version {_last(answer)}", "bash --login")
    do = "install Lmod or Environment Modules; does a login shell read /etc/profile.d?"
    return Finding("module command", PROBLEM, "a login shell has none", "type module, in bash --login", do)


def _path(folder: Path) -> Iterator[Finding]:
    answer = _login('printf %s "$MODULEPATH"')
    if not answer.ok:
        yield Finding("MODULEPATH", UNKNOWN, answer.why, answer.command, "echo $MODULEPATH, in a login shell")
        return
    parts = _last(answer).split(os.pathsep)
    real = {os.path.realpath(part) for part in parts if part}
    if os.path.realpath(folder) in real:
        yield Finding("MODULEPATH", OK, f"has {folder}", "bash --login")
    else:
        do = f"module use {folder}; for all: in Lmod's MODULEPATH_INIT, or a file in /etc/profile.d"
        yield Finding("MODULEPATH", PROBLEM, f"has not {folder}", some([p for p in parts if p]) or "it is empty", do)


def _files(folder: Path, name: str, deployed: str | None) -> Iterator[Finding]:
    """The module's files, and that of the version that is in use."""
    home = folder / name
    found = sorted(p.name for p in home.glob("*") if not p.name.startswith(".")) if home.is_dir() else []
    if not found:
        yield Finding(f"module {name}", PROBLEM, "it has no file", str(home), "kuulo deploy apply")
        return
    versions = [f.removesuffix(".lua") for f in found]
    current = Path(deployed, "current") if deployed else None
    if current and current.is_symlink():
        version = current.readlink().name
        if version not in versions:
            what = f"{version} is in use, and has no file; there are {some(versions)}"
            yield Finding(f"module {name}", PROBLEM, what, str(home), "kuulo deploy apply")
            return
    yield Finding(f"module {name}", OK, some(versions), str(home))


def _seen(name: str, folder: Path) -> Finding:
    """Whether the module system itself lists it."""
    script = 'module use "$2"; module --terse avail "$1" 2>&1; true'
    answer = ask([*LOGIN, script, "bash", name, str(folder)])
    lines = [line.strip() for line in answer.out.splitlines() if line.strip().startswith(f"{name}/")]
    versions = [line for line in lines if not line.endswith("/")]
    if versions:
        return Finding(f"module avail {name}", OK, some(versions))
    if not answer.ok:
        return Finding(f"module avail {name}", UNKNOWN, answer.why, f"module avail {name}", "try it in a login shell")
    do = f"module show {name} may say what is wrong with its files"
    return Finding(f"module avail {name}", WARNING, "the module system does not list it", str(folder), do)


def _login(script: str) -> Answer:
    return ask([*LOGIN, script])


def _last(answer: Answer) -> str:
    """What our command printed, after what a profile may have said."""
    return (answer.out.splitlines() or [""])[-1]
