"""The commands of a version: `bin/kuulo`, other programs' names, and what completes words at a shell. All are files,
since a function of a shell is seen neither by srun nor in a script."""

from __future__ import annotations

import shlex
from pathlib import Path

from kuulo import commands
from kuulo.commands.shims import MARK
from kuulo.deploy.base import Deployment, File, Files

COMPLETER = "libexec/complete"
"""Bash's `complete -C` starts it: words to choose from, one to a line."""

PROGRAM = """\
#!/bin/sh
# Kuulo {version}, made by `kuulo deploy`: what is changed here by hand is lost.
# No packages of the user's come in: neither those of other modules nor those in the home.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP
KUULO_SITE=${{KUULO_SITE:-{site}}}
export KUULO_SITE
exec {python} -sP -m kuulo "$@"
"""

COMPLETE = """\
#!/bin/bash
# What `complete -C` asks: the line is in COMP_LINE, and the cursor at COMP_POINT. Click answers `KIND,VALUE`.
line=${{COMP_LINE:0:COMP_POINT}}
set -f
# shellcheck disable=SC2206  # words as the shell has them, without carrying anything out
words=($line)
case $line in *[[:space:]]) words+=("") ;; esac
COMP_WORDS="${{words[*]}}" COMP_CWORD=$((${{#words[@]}} - 1)) _KUULO_COMPLETE=bash_complete {program} 2>/dev/null |
    while IFS=, read -r kind value; do
        case $kind in
        dir) compgen -d -- "$2" ;;
        file) compgen -f -- "$2" ;;
        *) printf '%s\\n' "$value" ;;
        esac
    done
"""


def render(deployment: Deployment, python: Path) -> Files:
    """The files, below the folder of the version. `python` has Kuulo. Raises UsageError for a name in `commands` of
    `[deploy]` that is no program's."""
    program = shlex.quote(str(deployment.program))
    files = {
        "bin/kuulo": File(
            PROGRAM.format(
                version=deployment.version,
                site=shlex.quote(str(deployment.folder / "site.toml")),
                python=shlex.quote(str(python)),
            ),
            0o755,
        ),
        COMPLETER: File(COMPLETE.format(program=program), 0o755),
    }
    for name in deployment.site.centre.deploy.get("commands", ()):
        known = commands.program(name).name
        files[f"bin/{known}"] = File(f'#!/bin/sh\n{MARK}\nexec {program} as {shlex.quote(known)} -- "$@"\n', 0o755)
    return files
