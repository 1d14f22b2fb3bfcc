"""What every test has: no network, the command line in a home of its own, folders with names that break programs.

`make test` runs pytest in a network namespace (tools/no_network.py), which holds for every process. The guard here is
for where no namespace can be made and for pytest called by itself; it holds for Python in this process alone.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    # A script that starts the tests with & has them ignore Ctrl-C, and so would all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if importlib.util.find_spec("models_fixture"):
    pytest_plugins = ["imagined_gpu", "models_fixture", "slurm_cluster"]

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYANNOTE_METRICS_ENABLED": "0",
}


class OutsideConnection(OSError):
    """A test wanted to leave this machine."""


def stays_inside(family: int, address: Any) -> bool:
    """Whether a connection to `address` ends on this machine."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = str(address[0]).partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Python's sockets refuse to connect or send to anywhere but loopback."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        yield


def _guarded(original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if not stays_inside(self.family, address):
            raise OutsideConnection(f"tests do not leave this machine: {address!r}")
        return original(self, *arguments)

    return guarded


Kuulo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def kuulo_command() -> list[str]:
    """What starts the command line: the installed script beside this Python, or the module."""
    script = Path(sys.executable).with_name("kuulo")
    return [str(script)] if script.exists() else [sys.executable, "-m", "kuulo.cli"]


@pytest.fixture
def kuulo_environment(tmp_path: Path) -> dict[str, str]:
    """Variables for a user with an empty home: no settings, no models, no KUULO_* of whoever runs the tests."""
    home = tmp_path / "home"
    folders = {
        "HOME": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local" / "share",
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_STATE_HOME": home / ".local" / "state",
        "KUULO_STORE": home / "models",
        "TMPDIR": tmp_path / "tmp",
    }
    for name, folder in folders.items():
        if name != "KUULO_STORE":
            folder.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KUULO_", "XDG_", "SLURM_", "HF_"))}
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), kept.get("PYTHONPATH", "")]))
    return {
        **kept,
        **OFFLINE,
        **{name: str(folder) for name, folder in folders.items()},
        "PYTHONPATH": path,
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "LANG": "C.UTF-8",
    }


@pytest.fixture
def kuulo(kuulo_command: list[str], kuulo_environment: dict[str, str], tmp_path: Path) -> Kuulo:
    """Runs the command line and gives what it said, as text: `kuulo("transcribe", path, "-o", out)`.

    `cwd` (default: `tmp_path`), `env` (added to that of `kuulo_environment`), `timeout` in seconds, `input` text for
    its standard input (default: none at all). Bytes of its output that are not UTF-8 come as surrogates."""

    def run(
        *arguments: str | os.PathLike[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*kuulo_command, *(os.fspath(argument) for argument in arguments)],
            cwd=cwd or tmp_path,
            env={**kuulo_environment, **(env or {})},
            timeout=timeout,
            text=True,
            errors="surrogateescape",
            capture_output=True,
            check=False,
            **({"input": input} if input is not None else {"stdin": subprocess.DEVNULL}),
        )

    return run


WEIRD_NAMES: dict[str, str] = {
    "spaces": "two  spaces ",
    "quotes": 'it\'s "quoted" `here`',
    "semicolon": "a; touch owned; $(touch owned) & b",
    "backslash": "back\\slash\\n",
    "newline": "first line\nsecond line",
    "umlaut": "Hyvää yötä, Ängström 日本",
    "dash": "-rf",
    "not-utf8": os.fsdecode(b"caf\xe9 \xff"),
    "glob": "[a-z]*?{1,2}",
}
"""Names that a file may have and that a careless program trips over."""


@pytest.fixture(params=WEIRD_NAMES.values(), ids=WEIRD_NAMES.keys())
def weird_name(request: pytest.FixtureRequest) -> str:
    """A file name from WEIRD_NAMES."""
    name: str = request.param
    return name


@pytest.fixture
def weird_tmp_path(weird_name: str, tmp_path: Path) -> Path:
    """An empty folder with a name from WEIRD_NAMES."""
    folder = tmp_path / weird_name
    try:
        folder.mkdir()
    except (OSError, UnicodeError) as error:
        pytest.skip(f"this file system has no such name: {error}")
    return folder


@pytest.fixture
def needs_program() -> Callable[[str], str]:
    """Path of a program; skips the test where it is not installed."""

    def path_of(program: str) -> str:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"needs the program {program}, which is not installed here")
        return found

    return path_of
