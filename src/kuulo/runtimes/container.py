"""A worker in a container image, started by Apptainer, Singularity or charliecloud.

The image is seen as it is; of the machine the worker sees its scratch folder, which it writes to, and what it reads,
each at the path that it has outside. Of our environment it gets what is in PASSED, and the caches and HOME that every
worker has. Kuulo's own files are carried in scratch, as for a virtual environment: they are always those of the Kuulo
that started it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuulo import atomic
from kuulo.environments.installed import Environment
from kuulo.errors import CannotRun, EngineMissing, UsageError
from kuulo.runtimes import here, image_file, inside
from kuulo.runtimes.venv import CARRIED, HOSTS, carry

PROGRAMS = {"apptainer": "apptainer", "singularity": "singularity", "charliecloud": "ch-run"}
"""What starts an image, the best first, and the program of it."""

ENVIRONMENTS = "/opt/kuulo/environments"
"""Where an image has its engine: Kuulo's folder of environments (environments/installed.py) with one in it."""

BUILD = "venv"
HOST = "/opt/kuulo/host"
"""Where charliecloud shows the machine to inside.py, and to nobody else."""

WORKER_FILES = "/opt/kuulo/worker"
"""Where the worker finds Kuulo's files: the name of a scratch folder may have a colon, which PYTHONPATH cannot have."""

LAUNCHER = "inside.py"
WORKERS, PROGRAMS_OWN = "worker.json", "program.json"
"""Environments: of Kuulo's worker, and of an engine's own program."""

UNPACKED = "image"
MOUNT = "mount"

PASSED = re.compile(
    r"(CUDA|CT2|GGML|GPU|HIP|HSA|KMP|LC|MKL|NCCL|NVIDIA|OMP|OPENBLAS|PYTORCH|ROCR|SLURM|TORCH|ZE)_\w*"
    r"|COLUMNS|LANG|LANGUAGE|LINES|LOGNAME|NO_COLOR|TERM|TZ|USER"
)
"""Variables of ours that a program in an image gets. Tokens and passwords are in none of them."""

SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")

SYSTEM = ("/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/opt/kuulo", "/proc", "/root", "/run", "/sbin",
          "/sys", "/usr", "/var")  # fmt: skip
"""Folders that are the image's own: the machine's cannot be in their place."""

DRIVER = re.compile(
    r"^\s+(lib(?:cuda|nvidia-\w[\w-]*|nvcuvid|cudadebugger)\.so\.1) .*(?:x86-64|AArch64).* => (\S.*)$", re.M
)
"""NVIDIA's driver among the libraries that `ldconfig -p` lists. The rest of CUDA comes with the engine."""


@dataclass(frozen=True)
class Bind:
    """A file or folder of the machine, `source`, at the path `target` inside."""

    source: Path
    target: Path
    writable: bool = False


class Container:
    """The Python of an environment that is an image. `starter`: one of PROGRAMS; None for the first that is found."""

    def __init__(self, environment: Environment, starter: str | None = None) -> None:
        assert environment.image_path is not None
        self._environment = environment
        self._image = environment.image_path
        self._starter = starter

    @property
    def interpreter(self) -> str:
        """The engine's Python, in the image."""
        return f"{ENVIRONMENTS}/{self._environment.engine}/{BUILD}/bin/python"

    def command(self, scratch: Path, reads: Sequence[Path]) -> list[str]:
        return self.python(scratch, ["-m", "kuulo.worker"], reads)

    def python(self, scratch: Path, arguments: Sequence[str], reads: Sequence[Path] = ()) -> list[str]:
        """The engine's Python with these arguments."""
        words = [self.interpreter, *arguments]
        carried = Bind(own(scratch).source / CARRIED, Path(WORKER_FILES))
        return self.start(scratch, words, [own(scratch), carried, *readable(reads)], scratch, WORKERS)

    def server(
        self,
        scratch: Path,
        words: Sequence[str],
        reads: Sequence[Path],
        variables: Mapping[str, str],
        socket: Path | None = None,
    ) -> list[str]:
        """A server of the engine in the image, which has what a worker has, and these variables, which no command line
        shows. `socket`: the folder of its socket, where that is not scratch. It needs `prepare`."""
        path = scratch / CARRIED / WORKERS
        mixed = {**json.loads(path.read_bytes()), **variables}
        atomic.write_bytes(path, json.dumps(mixed).encode("ascii"), mode=0o600)
        carried = Bind(own(scratch).source / CARRIED, Path(WORKER_FILES))
        binds = [own(scratch), carried, *readable(reads), *([own(socket)] if socket else [])]
        return self.start(scratch, words, binds, scratch, WORKERS)

    def start(
        self, scratch: Path, words: Sequence[str], binds: Sequence[Bind], folder: Path, environment: str = PROGRAMS_OWN
    ) -> list[str]:
        """A program of the image, standing in `folder`; `environment`: WORKERS or PROGRAMS_OWN. It needs `prepare`.
        Raises CannotRun, UsageError."""
        name, program = found(self._starter)
        image = self._image
        gpu = gpu_kind()
        launcher = str(scratch / CARRIED / LAUNCHER)
        variables = str(scratch / CARRIED / environment)
        follow = [] if environment == WORKERS else ["--follow"]
        if name != "charliecloud":
            told = ["--environment", variables, *follow]
            image_words = [self.interpreter, "-I", launcher, *told, "--", *words]
            return [*_apptainer(program, image, binds, gpu, folder), *image_words]
        if gpu == "nv":
            binds = [*binds, *driver()]
        if _must_unpack(image):
            image = scratch / UNPACKED
        told = ["--environment", _from_host(variables), *follow, "--host", HOST]
        for bind in binds:
            told += ["--write" if bind.writable else "--read", str(bind.source), str(bind.target)]
        told += ["--cd", str(folder)]
        flags = ["--private-tmp", "--unset-env=*", f"--bind=/:{HOST}"]
        if image.is_file():  # a squashfs, which ch-run mounts
            flags.append(f"--mount={scratch / MOUNT}")
        return [program, *flags, str(image), "--", self.interpreter, "-I", _from_host(launcher), *told, "--", *words]

    def native(
        self, scratch: Path, program: str | None, arguments: Sequence[str], folder: Path, stores: Sequence[Path]
    ) -> list[str]:
        """The engine's own program with its own arguments, or a shell for None, standing in `folder`. It sees that, the
        `stores`, and the folders of arguments that are paths; what is written to them is written outside too."""
        words = [str(Path(self.interpreter).parent / program), *arguments] if program else list(SHELL)
        binds = tidy([own(scratch), *named(folder, arguments), *readable(p for p in stores if p.is_dir())])
        seen = any(folder.is_relative_to(bind.target) for bind in binds)
        return self.start(scratch, words, binds, folder if seen else scratch)

    def environment(self, scratch: Path, environ: Mapping[str, str]) -> dict[str, str]:
        """For the program that starts the image: what it binds and sets is ours to say."""
        kept = {k: v for k, v in environ.items() if not k.startswith(("APPTAINER", "SINGULARITY", "CH_", *HOSTS))}
        private = {f"{maker}_{which}DIR": str(scratch / here.CACHES["TMPDIR"])
                   for maker in ("APPTAINER", "SINGULARITY") for which in ("CACHE", "CONFIG", "TMP")}  # fmt: skip
        return {"USER": str(os.getuid()), **kept, **private}

    def inner_environment(self, scratch: Path, environ: Mapping[str, str], which: str) -> dict[str, str]:
        """For the program in the image: WORKERS or PROGRAMS_OWN."""
        passed = {name: value for name, value in environ.items() if PASSED.fullmatch(name)}
        private = {name: str(scratch / folder) for name, folder in here.CACHES.items()}
        own = {
            "PATH": f"{Path(self.interpreter).parent}:/opt/kuulo/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONNOUSERSITE": "1",
            "VIRTUAL_ENV": str(Path(self.interpreter).parent.parent),
        }
        if which == PROGRAMS_OWN:
            return {**here.for_program(scratch, passed), **private, **own}
        return {**here.worker_environment(scratch, passed), **own, "PYTHONPATH": WORKER_FILES}

    def prepare(self, scratch: Path) -> None:
        """Also finds out whether the image is whole. Raises EngineMissing."""
        image_file.kind(self._image)
        carry(scratch)
        (scratch / MOUNT).mkdir(exist_ok=True)
        atomic.write_bytes(scratch / CARRIED / LAUNCHER, Path(inside.__file__).read_bytes())
        for which in (WORKERS, PROGRAMS_OWN):
            variables = json.dumps(self.inner_environment(scratch, os.environ, which))
            atomic.write_bytes(scratch / CARRIED / which, variables.encode("ascii"), mode=0o600)
        if found(self._starter)[0] == "charliecloud" and _must_unpack(self._image):
            unpack(self._image, scratch / UNPACKED)


# ---------------------------------------------------------------------- what starts an image


def found(wanted: str | None) -> tuple[str, str]:
    """The name and the path of what starts images here. Raises CannotRun."""
    names = [wanted] if wanted else list(PROGRAMS)
    for name in names:
        path = shutil.which(PROGRAMS[name])
        if path:
            return name, path
    raise CannotRun(
        f"container images cannot be started here: there is no {' and no '.join(PROGRAMS[name] for name in names)}",
        looked_at=os.environ.get("PATH"),
        do="module load apptainer, or install one of them (Debian: apt-get install charliecloud)",
    )


def _apptainer(program: str, image: Path, binds: Iterable[Bind], gpu: str | None, folder: Path) -> list[str]:
    flags = ["--containall", *([f"--{gpu}"] if gpu else [])]
    for bind in binds:
        flags += ["--mount", mount(bind)]
    return [program, "exec", *flags, "--pwd", str(folder), str(image)]


def mount(bind: Bind) -> str:
    """The value of `--mount`, which is a line of CSV. Raises UsageError for a name that it cannot hold."""
    fields = ["type=bind", f"src={bind.source}", f"dst={bind.target}", *([] if bind.writable else ["ro"])]
    if "\r" in "".join(fields):  # Go's encoding/csv makes a line feed of a carriage return and one
        raise UsageError(
            "a folder whose name has a carriage return cannot be seen in a container image",
            looked_at=repr(str(bind.source)),
            do="rename it",
        )
    return ",".join(_quoted(field) if set(field) & set(',"\n') else field for field in fields)


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def gpu_kind(devices: Path = Path("/dev")) -> str | None:
    """`nv` or `rocm`, the flag for the GPU of this node; None without one."""
    if (devices / "nvidiactl").exists() or any(re.fullmatch(r"nvidia\d+", p.name) for p in devices.glob("nvidia*")):
        return "nv"
    return "rocm" if (devices / "kfd").exists() else None


def driver(listed: Callable[[], str] | None = None) -> list[Bind]:
    """NVIDIA's driver on this machine, in a folder of the image, as `--nv` does it."""
    text = (listed or _ldconfig)()
    return [Bind(Path(path), Path(inside.DRIVER, name)) for name, path in dict(DRIVER.findall(text)).items()]


def _from_host(path: str) -> str:
    """A path of the machine, where charliecloud shows it."""
    return f"{HOST}/{path.lstrip('/')}"


def _ldconfig() -> str:
    program = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        return subprocess.run([program, "-p"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def works_on_gpu(environment: Environment, starter: str | None = None) -> str:
    """What the GPU's driver says, asked inside the image; raises CannotRun when no GPU can be used there."""
    runtime = Container(environment, starter)
    flag = gpu_kind()
    with tempfile.TemporaryDirectory(prefix="kuulo-gpu-") as folder:
        scratch = Path(folder)
        runtime.prepare(scratch)
        command = runtime.python(scratch, ["-I", str(scratch / CARRIED / LAUNCHER), "--gpu"])
        environ = runtime.environment(scratch, os.environ)
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environ)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = {"works": False, "said": done.stderr.strip()[-500:] or "nothing was said"}
    if not said["works"]:
        raise CannotRun(
            f"no GPU can be used in the image of {environment.engine}: {said['said']}",
            looked_at=f"/dev: {f'a GPU for --{flag}' if flag else 'no GPU'}; in the image: {said['said']}",
            do="ask for a GPU (srun --gpus=1), or have the driver looked at" if flag is None else
               "nvidia-smi or rocminfo on this node: does the driver work there?",
        )  # fmt: skip
    return str(said["said"])


# ---------------------------------------------------------------------- what is seen inside


def own(scratch: Path) -> Bind:
    """The scratch folder."""
    return Bind(scratch.resolve() if scratch.is_absolute() else scratch, scratch, writable=True)


def readable(paths: Iterable[Path]) -> list[Bind]:
    """What makes these paths, and all in them, the same inside as outside: also links that lead out of them, as those
    of Hugging Face's caches. Raises UsageError."""
    binds: list[Bind] = []
    for given in paths:
        path = _absolute(given)
        if str(path) in SYSTEM:
            raise UsageError(
                f"{path} cannot be seen in a container image, which has a folder of that name",
                looked_at=str(given),
                do="move what is to be read into a folder of its own",
            )
        real = path.resolve()
        binds.append(Bind(real, path))
        for link in _links(real):
            target = Path(os.path.normpath(path / link.relative_to(real).parent / link.readlink()))
            if not target.is_relative_to(path) and link.exists():
                binds.append(Bind(link.resolve(), target))
    return tidy(binds)


def named(folder: Path, words: Iterable[str]) -> list[Bind]:
    """The folder, and those of the words (and of VALUE in --name=VALUE) that are paths, or are to become one."""
    folders = [folder]
    for word in words:
        for text in {word, word.partition("=")[2] if word.startswith("-") else word} - {""}:
            path = _absolute(folder / text)
            if path.is_dir():
                folders.append(path)
            elif path.exists() or (os.sep in text and path.parent.is_dir()):
                folders.append(path.parent)
    return [bind for path in dict.fromkeys(folders) if str(path) not in SYSTEM
            for bind in (Bind(path.resolve(), path.resolve(), True), Bind(path.resolve(), path, True))]  # fmt: skip


def tidy(binds: Iterable[Bind]) -> list[Bind]:
    """Without those that others show already, as they are or by a link; outer ones first, as they must be mounted."""
    kept: dict[Path, Bind] = {}
    for bind in sorted(binds, key=lambda b: (len(b.target.parts), not b.writable)):
        outer = [o for o in kept.values() if bind.target.is_relative_to(o.target)]
        if any((o.writable or not bind.writable) and _shown(o, bind) for o in outer):
            continue
        kept.setdefault(bind.target, bind)
    return list(kept.values())


def _shown(outer: Bind, bind: Bind) -> bool:
    return (outer.source / bind.target.relative_to(outer.target)).resolve() == bind.source


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - links stay


def _links(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.rglob("*")) if path.is_symlink()]


# ---------------------------------------------------------------------- images that must be unpacked


def _must_unpack(image: Path) -> bool:
    """Whether charliecloud cannot have the file as it is: it mounts squashfs files by FUSE, and no SIF."""
    if image.is_dir() or not image.exists():
        return False
    if image_file.kind(image) == image_file.SIF:
        return True
    return not (os.access("/dev/fuse", os.R_OK | os.W_OK) and shutil.which("fusermount3"))


def unpack(image: Path, folder: Path) -> None:
    """The image's files in a folder. Raises CannotRun, EngineMissing."""
    if folder.is_dir():
        return
    program = shutil.which("unsquashfs")
    if program is None:
        raise CannotRun(
            "the image must be unpacked, since it cannot be mounted here, and there is no unsquashfs",
            looked_at="/dev/fuse, and the PATH",
            do="apt-get install squashfs-tools fuse3, or name a folder as image",
        )
    staged = folder.with_name(f".{folder.name}-{os.getpid()}")
    offset = str(image_file.offset(image))
    done = subprocess.run(
        [program, "-no-progress", "-quiet", "-no-xattrs", "-offset", offset, "-dest", str(staged), str(image)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        shutil.rmtree(staged, ignore_errors=True)
        raise EngineMissing(
            "the container image cannot be unpacked", looked_at=f"{image}: {done.stderr.strip()[-500:]}"
        )
    staged.rename(folder)
