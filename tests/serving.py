"""`kuulo serve` as a process, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
READY_S = 60.0


def home(folder: Path) -> dict[str, str]:
    """Variables for a user with an empty home, as the fixture `kuulo_environment`, for servers of several tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KUULO_", "XDG_", "SLURM_", "HF_"))}
    folders = {"HOME": "home", "XDG_CONFIG_HOME": "config", "XDG_DATA_HOME": "data", "XDG_CACHE_HOME": "cache",
               "XDG_STATE_HOME": "state", "TMPDIR": "tmp"}  # fmt: skip
    for name in folders.values():
        (folder / name).mkdir()
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), kept.get("PYTHONPATH", "")]))
    named = {variable: str(folder / name) for variable, name in folders.items()}
    return {**kept, **named, "KUULO_STORE": str(folder / "models"), "PYTHONPATH": path, "NO_COLOR": "1"}


@dataclass
class Serving:
    """A server that runs. `key` and `url` are a client's; `folder` is its own in the registry."""

    process: subprocess.Popen[str]
    name: str
    url: str
    key: str
    folder: Path
    said: Path
    process_environ: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def record(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / "server.json").read_text())
        return read

    def end(self, how: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(how)
        return self.process.wait(seconds)


@contextlib.contextmanager
def serving(
    command: Sequence[str], environ: Mapping[str, str], folder: Path, *words: str, name: str = "s1"
) -> Iterator[Serving]:
    """A server that is ready, and ends with the block."""
    said = folder / f"{name}.txt"
    with said.open("w") as errors:
        process = subprocess.Popen(
            [*command, "serve", *words, "--name", name],
            env=dict(environ),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], READY_S)
        line = process.stdout.readline() if ready else ""
        assert line.startswith(f"{name} is ready"), f"{line}{said.read_text()}"
        own = Path(environ["XDG_STATE_HOME"]) / "kuulo" / "servers" / name
        record = json.loads((own / "server.json").read_text())
        url = f"http://{record['bind']}:{record['port']}/v1" if record["port"] else ""
        yield Serving(process, name, url, (own / "key").read_text().strip(), own, said, environ)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)
    return found
