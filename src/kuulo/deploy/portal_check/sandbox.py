"""An app's scripts, executed: in an empty folder, with an empty home, where every command but a few harmless ones is a
stub that does nothing, notes that it was called, and ends as it is told.

What a form's value makes the shell do shows as a canary: a file that only a command in that value could have made.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 15
SECONDS_OF_ONE_THAT_WAITS = 3
CANARY = "STUB_CANARY"
"""The variable that has the canary's path."""

REAL = (
    "awk", "basename", "bash", "cat", "cut", "date", "dirname", "env", "expr", "grep", "head", "id", "mktemp", "paste",
    "readlink", "realpath", "seq", "sh", "sort", "stat", "tail", "tr", "uname", "uniq", "wc",
)  # fmt: skip
"""Commands that are what they are called."""

GUARDED = ("mkdir", "sed", "tee", "touch")
"""Commands that are what they are called inside of the sandbox, and do nothing outside of it."""

GUARD = """\
#!/bin/bash
name="${{0##*/}}"
for word; do
  case "$word" in
    {place}/*|/dev/*) ;;
    /*) [[ "$name" != sed || " $* " == *" -i"* ]] && exit 0 ;;
  esac
done
exec {program} "$@"
"""

BESIDE = frozenset(
    {"chmod", "cp", "curl", "echo", "hostname", "kill", "ln", "logger", "mail", "mailx", "ml", "module", "mv",
     "nvidia-smi", "openssl", "pkill", "printf", "rm", "rmdir", "sendmail", "shuf", "sleep", "ulimit", "xset"}
)  # fmt: skip
"""Commands that prepare and tidy up: that one of them fails need not mean that the job has failed."""

STUB = """\
#!/bin/bash
if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then return 0; fi
name="${0##*/}"
printf '%s\\n' "$name" >> "$STUB_CALLS"
case "$name" in
  hostname) echo node1 ;;
  find_port) echo 12345 ;;
  create_passwd) echo secret ;;
esac
[[ "$name" == "$STUB_FAILS" ]] && exit 9
exit 0
"""

BEGIN = """\
readonly PATH
kill () { printf 'kill\\n' >> "$STUB_CALLS"; }
command_not_found_handle () {
  printf '%s\\n' "$1" >> "$STUB_CALLS"
  [[ "$1" != "$STUB_FAILS" ]] || return 9
}
"""
"""What every bash reads first: nothing beyond the stubs can be found."""

PROGRAM = re.compile(
    r"(?P<before>(?:^|[;&|({`]|\b(?:exec|then|do|else|command|eval|nohup|source|srun|sudo|time)\s|(?<=\s)\.\s)\s*)"
    r"(?P<path>(?:/[\w.+@-]+){2,})(?=[\s;&|)`]|$)",
    re.M,
)
"""A program that is called by its whole path."""


WRITTEN = re.compile(r"(?P<before>(?:^|[^<>])>{1,2}\|?\s*[\"']?)(?P<path>/(?!dev/)[\w.+@-]+(?:/[\w.+@-]+)*)")
"""A file that is written to by its whole path."""


@dataclass(frozen=True)
class Ran:
    """How it went: the exit code, None when it did not come to its end in time; the commands that were called, in
    order; whether the canary is there."""

    code: int | None
    calls: tuple[str, ...]
    canary: bool


class Sandbox:
    """A folder with the stubs, beside the sessions' folders."""

    def __init__(self, place: Path) -> None:
        self.place, self.seconds = place, SECONDS
        self.bin, self.programs = place / "bin", place / "programs"
        self.stub, self.begin = place / "stub", place / "begin"
        for folder in (self.bin, self.programs):
            folder.mkdir(parents=True)
        self.stub.write_text(STUB, encoding="utf-8")
        self.stub.chmod(0o755)
        self.begin.write_text(BEGIN, encoding="utf-8")
        for name in REAL:
            found = shutil.which(name)
            if found:
                (self.bin / name).symlink_to(found)
        for name in GUARDED:
            found = shutil.which(name)
            if found:
                (self.bin / name).write_text(GUARD.format(place=place.parent, program=found), encoding="utf-8")
                (self.bin / name).chmod(0o755)

    def prepare(self, scripts: Sequence[Path]) -> None:
        """Make these scripts, rendered, safe to run: stubs for all that they may call."""
        for path in scripts:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
            text = re.sub(r"\A#!\s*(/usr/bin/env )?(/\S*/)?bash\b[^\n]*", f"#!{shutil.which('bash')}", text)
            text = WRITTEN.sub(self._inside, PROGRAM.sub(self._beside, text))
            path.write_text(text, encoding="utf-8", errors="surrogateescape")
            for word in set(re.findall(r"[A-Za-z_][\w.+-]*", text)):
                self._stub(self.bin / word)

    def _inside(self, match: re.Match[str]) -> str:
        """The same file in the sandbox."""
        path = match["path"]
        if path.startswith(str(self.place.parent)):
            return match[0]
        target = self.place / "written" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        return f"{match['before']}{target}"

    def _beside(self, match: re.Match[str]) -> str:
        """The same program in the sandbox."""
        path = match["path"]
        if path.startswith((str(self.place.parent), "/dev/")):
            return match[0]
        target = self.programs / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._stub(target)
        return f"{match['before']}{target}"

    def _stub(self, path: Path) -> None:
        if not path.exists() and len(path.name) < 100:
            path.symlink_to(self.stub)

    def run(self, script: Path, environment: Mapping[str, str], fails: str = "") -> Ran:
        """The job's script, with the command `fails` failing."""
        home, calls, canary = self.place / "home", self.place / "calls", self.place / "canary"
        home.mkdir(exist_ok=True)
        calls.write_text("")
        canary.unlink(missing_ok=True)
        told = {
            **environment,
            "BASH_ENV": str(self.begin),
            CANARY: str(canary),
            "HOME": str(home),
            "STUB_CALLS": str(calls),
            "STUB_FAILS": fails,
            "LANG": "C.UTF-8",
            "PATH": str(self.bin),
            "SLURM_JOB_ID": "4711",
            "TMPDIR": str(home),
            "USER": "anna",
        }
        limits = 'ulimit -t 20 -f 100000; exec bash --noprofile --norc "$1"'
        bash = shutil.which("bash") or "bash"
        code = _wait(
            subprocess.Popen(
                [bash, "--noprofile", "--norc", "-c", limits, "job", os.fspath(script)],
                cwd=script.parent,
                env={name: value for name, value in told.items() if "\0" not in value},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ),
            self.seconds,
        )
        lines = calls.read_text(encoding="utf-8", errors="replace").splitlines()
        return Ran(code, tuple(lines), canary.exists())


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its exit code, None when it does not come to its end in time; nothing of it is there afterwards."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_bash(path: Path) -> bool:
    """Whether a file is a script of bash or sh, by its first line or its name."""
    with path.open("rb") as file:
        first = file.readline(200)
    if first.startswith(b"#!"):
        return re.search(rb"\b(ba)?sh\b", first) is not None
    return path.suffix == ".sh"


def syntax(path: Path) -> tuple[int | None, str] | None:
    """What bash says of a script that it does not understand: the line, and what."""
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-n", path.name],
        cwd=path.parent,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    if done.returncode == 0:
        return None
    found = re.search(r": line (\d+): (.*)", done.stderr)
    return (int(found[1]), found[2]) if found else (None, done.stderr.strip().splitlines()[0] if done.stderr else "")
