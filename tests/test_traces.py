"""What a run really does, seen from outside: no connection, nothing changed outside the output folder and scratch.

Engines that are not beside Kuulo are traced in environments of their own where there are any, gigabytes each:

KUULO_ENVIRONMENTS=/tmp/e kuulo engines install pyannote --unchecked
make test PYTEST=tests/test_traces.py ENVIRONMENTS=/tmp/e

whisper-diarization also needs $KUULO_TEST_WHISPER_DIARIZATION, a folder with its clone in `repository` and its models
in `hf` and `nemo` (docs/engines/whisper-diarization.md).
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

import kuulo
from kuulo import caches, engines
from models_fixture import Miniature
from own_environments import ENVIRONMENTS, IN_ENVIRONMENTS

MODELS = {"faster-whisper": "ct2", "whisper-cpp": "ggml", "openai-whisper": "pt", "transformers": "hf"}
MODELS |= {"sherpa-onnx": "onnx", "whisperx": "ct2", "insanely-fast-whisper": "hf", "whisper-diarization": "ct2"}
WITHOUT = {"insanely-fast-whisper": {"--beam-size"}, "whisper-diarization": {"--beam-size", "--word-times"}}
"""Options that an engine refuses."""
PIPELINES = {
    "sherpa-speakers": "sherpa_folder(folder)", "pyannote": "pyannote_folder(folder)", "nemo": "sortformer(folder)",
}  # fmt: skip
"""What makes the models that tell speakers apart, in speaker_models.py."""
CHAT = {
    "llama-cpp": Path(kuulo.__file__).parent / "llm" / "tiny.gguf",
    "transformers-chat": Path(__file__).parent / "llm" / "tiny",
}

MAKES = {
    "chmod", "chown", "creat", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fsetxattr", "ftruncate",
    "lchown", "link", "linkat", "lsetxattr", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2",
    "rmdir", "setxattr", "symlink", "symlinkat", "truncate", "unlink", "unlinkat", "utime", "utimensat", "utimes",
}  # fmt: skip
"""System calls that change a file system by themselves; opening does where it is for writing."""

ON_DESCRIPTORS = {"fchmod", "fchown", "fsetxattr", "ftruncate"}
OPENS = {"open", "openat", "openat2"}
SENDS = {"connect", "sendto", "sendmsg", "sendmmsg"}

FINISHED = re.compile(r"^(\d+) +(\w+)\((.*)\) += (.*)$")
UNFINISHED = re.compile(r"^(\d+) +(\w+\(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
AT = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")


@dataclass(frozen=True)
class Call:
    """One system call of one process, with the paths of its descriptors (strace -y)."""

    name: str
    arguments: str
    result: str

    @property
    def failed(self) -> bool:
        return self.result.startswith("-1 ")

    @property
    def changes(self) -> bool:
        """Whether something may have been written, made, renamed or removed."""
        if self.failed:
            return False
        return self.name in MAKES or (
            self.name in OPENS and bool(re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)", self.arguments))
        )

    def paths(self) -> Iterable[str]:
        """The absolute paths that it is about, as the kernel has them where it says so."""
        opened = DESCRIPTOR.match(self.result) if self.name in OPENS else None
        own = DESCRIPTOR.match(self.arguments) if self.name in ON_DESCRIPTORS else None
        if opened or own:
            return [plain((opened or own)[1])]
        named = [(plain(folder), plain(path)) for folder, path in AT.findall(self.arguments)]
        if self.name.startswith("symlink"):  # where it leads to is no place that is changed
            named = named[1:]
        return [os.path.normpath(os.path.join(folder or "/?", path)) for folder, path in named]  # noqa: PTH118


def plain(text: str) -> str:
    """What strace wrote as C does: `\\n`, and bytes beyond ASCII in octal."""
    return (
        text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1").decode(errors="replace")
    )


def calls(log: Path) -> list[Call]:
    """The calls of a trace by `strace -f -y`, those too that were interrupted by another process's."""
    begun: dict[str, str] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        if half := UNFINISHED.match(line):
            begun[half[1]] = half[2]
            continue
        if rest := RESUMED.match(line):
            line = f"{rest[1]} {begun.pop(rest[1], '')}{rest[2]}"
        if whole := FINISHED.match(line):
            found.append(Call(whole[2], whole[3], whole[4]))
    return found


Traced = Callable[..., list[Call]]


@pytest.fixture(scope="session")
def compiled() -> None:
    """Kuulo's own modules are compiled, as by pip, so that no run has to."""
    compileall.compile_dir(str(Path(kuulo.__file__).parent), quiet=2)


@pytest.fixture
def traced(
    kuulo_command: list[str],
    kuulo_environment: dict[str, str],
    needs_program: Callable[[str], str],
    compiled: None,
    tmp_path: Path,
) -> Traced:
    """Runs the command line under strace, in a home and with every variable of the table of caches leading to `traps`,
    as if for other tools; checks what holds for every run, and gives the calls."""
    strace = needs_program("strace")
    home, scratch, traps = Path(kuulo_environment["HOME"]), Path(kuulo_environment["TMPDIR"]), tmp_path / "traps"

    def run(*arguments: str | Path, written: Path) -> list[Call]:
        log = tmp_path / "trace"
        leading = {name for cache in caches.CACHES for name in (cache.variable, *cache.older) if name}
        leading -= {*kuulo_environment, *caches.TEMPORARY}
        ours = caches.OFFLINE.keys()  # what Kuulo has to set is not set for it
        environment = {name: value for name, value in kuulo_environment.items() if name not in ours}
        environment |= {name: str(traps / name) for name in leading} | IN_ENVIRONMENTS
        environment |= dict.fromkeys(caches.SECRETS, "secret-of-the-user")
        names = ",".join(sorted("?" + name for name in MAKES | OPENS | SENDS))
        trace = [strace, "-f", "--seccomp-bpf", "-qq", "-y", "-s", "4096", "-o", str(log), "-e", f"trace={names}", "--"]
        command = [*trace, *kuulo_command, *map(str, arguments)]
        before = sorted(home.rglob("*"))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        if "ptrace" in done.stderr and not log.exists():
            pytest.skip(f"strace may not trace here: {done.stderr[:200]}")
        assert done.returncode == 0, done.stderr
        made = calls(log)
        assert len(made) > 100 and any(call.changes for call in made)
        changed = {path for call in made if call.changes for path in call.paths()}
        allowed = tuple(f"{folder}/" for folder in (written, scratch, "/proc", "/dev", "/sys/fs/cgroup"))
        assert {path for path in changed if not path.startswith(allowed) and path != str(written)} == set()
        assert outside(made) == []
        assert list(scratch.iterdir()) == [], "scratch is empty in the end"
        assert sorted(home.rglob("*")) == before, "the home is as it was"
        assert not traps.exists(), "no library follows variables that are for other tools"
        seen = {path for call in made for path in call.paths() if str(traps) in path}
        assert seen == set(), "nor looks there"
        return made

    return run


def outside(made: Iterable[Call]) -> list[Call]:
    """Calls that would reach another machine, also those that failed."""
    reaching = [call for call in made if call.name in SENDS and re.search(r"AF_INET6?\b", call.arguments)]
    return [call for call in reaching if "htons(0)" not in call.arguments]


def opened(made: Iterable[Call], model: Path) -> bool:
    """Whether the model, or something in its folder, was opened."""
    paths = (path for call in made if call.name in OPENS and not call.failed for path in call.paths())
    return any(path.startswith(str(model)) for path in paths)


def needs_engine(name: str) -> Path | None:
    """The Python of the engine's environment where it has one; skips the test where the engine is nowhere."""
    if found := ENVIRONMENTS.find(name):
        return found.interpreter
    if not engines.installed(engines.spec(name)):
        pytest.skip(f"{name} is neither beside Kuulo nor in $KUULO_TEST_ENVIRONMENTS")
    return None


def made_by(interpreter: Path | None, code: str, folder: Path) -> None:
    """Has Python, an environment's where there is one, make something in `folder` with the tests' modules."""
    python, here = str(interpreter or sys.executable), Path(__file__).parent
    paths = os.pathsep.join([str(here), str(Path(kuulo.__file__).parents[1])])
    whole = f"import sys; from pathlib import Path; folder = Path(sys.argv[1]); {code}"
    environment = {**os.environ, "PYTHONPATH": paths, "HOME": str(folder.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([python, "-c", whole, str(folder)], env=environment, check=True)


ON_CPU = """\
import sys
if any(word.endswith("insanely-fast-whisper") for word in sys.orig_argv):
    import torch
    from transformers import pipelines
    made = pipelines.pipeline
    pipelines.pipeline = lambda *a, **kw: made(*a, **{**kw, "device": "cpu", "torch_dtype": torch.float32})
else:
    import torch
    torch.cuda.is_available = lambda: True
"""
"""For a program that asks for a GPU, whatever there is: each Python of its environment runs this when it starts. All
but the device stays the program's own."""


@contextmanager
def without_gpu(interpreter: Path | None) -> Iterator[None]:
    """insanely-fast-whisper goes on as if there were a GPU, and computes on the CPU."""
    if interpreter is None:
        pytest.skip("insanely-fast-whisper without a GPU needs an environment that may be changed")
    (packages,) = interpreter.parents[1].glob("lib/python3*/site-packages")
    begun = [packages / "kuulo_on_cpu.py", packages / "kuulo_on_cpu.pth"]
    try:
        begun[0].write_text(ON_CPU)
        begun[1].write_text("import kuulo_on_cpu\n")
        yield
    finally:
        for path in begun:
            path.unlink(missing_ok=True)


def given(raw: Mapping[str, str]) -> list[str]:
    return [word for name, value in raw.items() for word in ("--engine-option", f"{name}={value}")]


def marked(names: Iterable[str]) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.engine(name)) for name in names]


@pytest.mark.parametrize("engine", marked(spec.name for spec in engines.specs()))
def test_a_run_stays_on_the_machine_and_in_its_folders(
    engine: str, miniature: Miniature, traced: Traced, tmp_path: Path
) -> None:
    interpreter = needs_engine(engine)
    out = tmp_path / "out $(touch x) 'ä'"
    options = [["--word-times"], ["--speech-detection"]]
    if engine in MODELS:
        options += [["-m", miniature.path(MODELS[engine])], ["--beam-size", "1"]]
    command = ["transcribe", miniature.clip("three_children").path, "-e", engine, "-o", out, "-f", "all"]
    command += [word for option in options if option[0] not in WITHOUT.get(engine, ()) for word in option]
    if engine == "whisperx":
        folder = tmp_path / "aligners"
        made_by(interpreter, "import aligners; aligners.both(folder)", folder)
        command += given({"align_model": f"{folder}/wav2vec2", "nltk_data": f"{folder}/nltk"})
    if engine == "whisper-diarization":
        if not (there := os.environ.get("KUULO_TEST_WHISPER_DIARIZATION")):
            pytest.skip("needs whisper-diarization's clone and models in $KUULO_TEST_WHISPER_DIARIZATION")
        command += given({"repository": f"{there}/repository", "hf_home": f"{there}/hf", "nemo_cache": f"{there}/nemo"})
    with without_gpu(interpreter) if engine == "insanely-fast-whisper" else nullcontext():
        made = traced(*command, written=out)
    assert engine not in MODELS or opened(made, miniature.path(MODELS[engine])), "the trace sees the worker"


@pytest.mark.parametrize("engine", marked(spec.name for spec in engines.specs("diarize")))
def test_so_does_one_that_tells_speakers_apart(
    engine: str, miniature: Miniature, traced: Traced, tmp_path: Path
) -> None:
    interpreter = needs_engine(engine)
    command = ["transcribe", miniature.clip("three_children").path, "-o", tmp_path / "out", "--speech-detection"]
    command += ["-m", miniature.path("ct2"), "--speaker-engine", engine]
    pipeline = tmp_path / "pipeline.nemo"
    if engine in PIPELINES:
        made_by(interpreter, f"import speaker_models; speaker_models.{PIPELINES[engine]}", pipeline)
        command += ["--speaker-model", pipeline]
    if engine == "channels":
        command[1] = Path(__file__).parent / "audio" / "stereo_diarization.flac"
    made = traced(*command, "--speakers", "channels" if engine == "channels" else "auto", written=tmp_path / "out")
    assert any("silero" in path for call in made for path in call.paths()), "speech was looked for"
    assert engine not in PIPELINES or opened(made, pipeline), "the trace sees the worker"


@pytest.mark.parametrize("engine", marked(CHAT))
def test_so_does_a_language_model(engine: str, traced: Traced, tmp_path: Path) -> None:
    """It answers in a server that is there for one question and listens to a file, not to a port."""
    needs_engine(engines.spec(engine).environment or engine)
    model = CHAT[engine]
    made = traced("ask", "-e", engine, "-m", model, "What is it?", written=tmp_path / "nothing")
    assert [call for call in made if call.name == "connect" and "sun_path" in call.arguments], "a server was asked"
    assert opened(made, model), "the trace sees it"


def test_what_a_trace_is_read_for_is_found(needs_program: Callable[[str], str], tmp_path: Path) -> None:
    """The reader of traces itself: relative names, descriptors, odd names, failures, threads."""
    code = """
import os, socket, threading
os.mkdir("a b"); os.chdir("a b")
fd = os.open(".", os.O_RDONLY)
os.close(os.open("made \\n'ä'", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
os.symlink("/nowhere", "link"); os.rename("link", "moved", src_dir_fd=fd, dst_dir_fd=fd)
for call in (lambda: os.mkdir("/proc/no"), lambda: os.unlink("none")):
    try: call()
    except OSError: pass
open("/dev/null").close()
with socket.socket() as s:
    s.setblocking(False)
    try: s.connect(("192.0.2.1", 9))
    except OSError: pass
"""
    log = tmp_path / "log"
    names = ",".join("?" + name for name in MAKES | OPENS | SENDS)
    trace = [needs_program("strace"), "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={names}", "--"]
    done = subprocess.run([*trace, shutil.which("python3") or "python3", "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == 0
    made = calls(log)
    changed = {path for call in made if call.changes for path in call.paths()}
    inside = tmp_path / "a b"
    assert {"/?/a b", "/?/link", str(inside / "moved")} <= changed, "a name without a folder is nowhere that is allowed"
    assert len([path for path in changed if path.startswith(f"{inside}/made")]) == 1
    assert not [path for path in changed if path.startswith("/proc") or path.endswith("/none")]
    assert len(outside(made)) == 1
