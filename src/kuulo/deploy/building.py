"""Makes an engine's container image: whole and heard, or not at all.

    IMAGES/ENGINE/state.json       written last (environments/installed.py)
    IMAGES/ENGINE/BUILD/           image.sif or image.squashfs, and what it was made from: image.def, image.json

Apptainer makes it where it is found. Else we do what it would: the base unpacked into a folder, the definition's %post
in it with charliecloud, and the folder as a squashfs file, which both start; or in a SIF, by siftool.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kuulo
from kuulo import atomic, runtimes
from kuulo.deploy import definition as definitions
from kuulo.deploy.definition import DEBOOTSTRAP, DOCKER, FILES, INCLUDED, LOCALIMAGE, TOP, Definition
from kuulo.environments import installed
from kuulo.environments.bundle import Bundle
from kuulo.environments.installed import Environment
from kuulo.errors import CannotRun, KuuloError, UsageError
from kuulo.runtimes import image_file
from kuulo.runtimes.container import ENVIRONMENTS, Container, own, unpack

HealthCheck = Callable[[Environment], str]
LABELS = "image.json"
LAST_LINES = 20
SIF_ARCHITECTURES = {"x86_64": "2", "aarch64": "4", "ppc64le": "5"}
"""siftool's --partarch. (sylabs/sif, arch.go)"""

LEVEL = "6"
"""Of gzip, which every Apptainer reads. The default, 9, takes four times as long for one part in a hundred."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Contents:
    """What is copied into an image: its locks (`engine` and `kuulo`), and the wheels of a bundle."""

    locks: Mapping[str, str]
    programs: Mapping[str, str]
    wheels: Sequence[Path] = ()


def wheels(bundles: Sequence[Bundle]) -> list[Path]:
    """The wheels that the locks of these bundles name."""
    locks = "".join(one.lock.read_text(encoding="utf-8") for one in bundles)
    pinned = {f"{name}-{version}" for name, version in re.findall(r"(?m)^(\S+)==(\S+)", locks)}
    return [path for path in sorted(bundles[0].wheels.iterdir()) if _pinned(path) in pinned]


def _pinned(wheel: Path) -> str:
    """As in a lock. (The name of a wheel: NAME-VERSION-..., PEP 427.)"""
    name, _, rest = wheel.name.partition("-")
    return f"{re.sub('[-_.]+', '-', name).lower()}-{rest.partition('-')[0]}"


def lay_out(folder: Path, definition: Definition, contents: Contents) -> None:
    """The definition file and what it copies, in a folder: `apptainer build IMAGE image.def` in it makes the image.
    Raises OSError."""
    top = folder / FILES / "kuulo"
    (top / "bin").mkdir(parents=True)
    shutil.copytree(Path(kuulo.__file__).parent, top / "src" / "kuulo", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in contents.programs.items():
        (top / "bin" / name).write_text(text, encoding="utf-8")
    for name, text in contents.locks.items():
        (top / f"{name}.lock").write_text(text, encoding="utf-8")
    atomic.write_json(top / LABELS, dict(definition.labels))
    (top / "wheels").mkdir()
    for wheel in contents.wheels:
        shutil.copyfile(wheel, top / "wheels" / wheel.name)
    (folder / "image.def").write_text(definition.text(), encoding="utf-8")


def build(
    images: Path,
    definition: Definition,
    contents: Contents,
    check: HealthCheck | None,
    *,
    format_: str | None = None,
    starter: str | None = None,
    shown: bool = True,
) -> Environment:
    """The image, in use. `images`: the folder of images; `check`: None where the engine cannot run; `format_`: SIF or
    SQUASHFS, without it what the builder makes best. Raises KuuloError; an older image stays in use then."""
    home = images / definition.engine
    folder = home / f"{definition.labels['kuulo.lock.sha256'][:12]}-{secrets.token_hex(3)}"
    try:
        installed.sweep(home)
        installed.begin(folder)
        made = _made(folder, definition, contents, format_, starter, shown)
        if check:
            made = dataclasses.replace(made, heard=check(made))
        installed.put_in_use(made)
    except OSError as error:
        _undo(folder)
        raise CannotRun(
            f"the image cannot be made: {error.strerror or error}",
            looked_at=str(error.filename or home),
            do="name another folder with `images` in the site's file, or a file with -o",
        ) from error
    except BaseException:
        _undo(folder)
        raise
    return made


def build_file(
    output: Path,
    definition: Definition,
    contents: Contents,
    check: HealthCheck | None,
    *,
    format_: str | None = None,
    starter: str | None = None,
    shown: bool = True,
) -> Environment:
    """The image in a file of its own, which no site's file knows of. Raises KuuloError; an older file stays then."""
    format_ = format_ or (image_file.SIF if output.suffix == ".sif" else image_file.SQUASHFS if output.suffix else None)
    try:
        with tempfile.TemporaryDirectory(prefix=".kuulo-image-", dir=output.absolute().parent) as folder:
            made = _made(Path(folder), definition, contents, format_, starter, shown)
            if check:
                made = dataclasses.replace(made, heard=check(made))
            assert made.image_path is not None
            made.image_path.replace(output)
    except OSError as error:
        raise CannotRun(
            f"the image cannot be made: {error.strerror or error}", looked_at=str(error.filename or output)
        ) from error
    return dataclasses.replace(made, folder=output.absolute().parent, image=output.name)


def _undo(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def _made(
    folder: Path, definition: Definition, contents: Contents, format_: str | None, starter: str | None, shown: bool
) -> Environment:
    """The image in the folder, and what is in it."""
    apptainer = shutil.which("apptainer") or shutil.which("singularity")
    with tempfile.TemporaryDirectory(prefix="kuulo-image-") as scratch:
        staged = Path(scratch)
        if apptainer and format_ != image_file.SQUASHFS:
            name = "image.sif"
            _by_apptainer(apptainer, staged, folder / name, definition, contents, shown)
        else:
            name = _by_ourselves(staged, folder, definition, contents, format_ or image_file.SQUASHFS, shown)
        (folder / "image.def").write_text(definition.text(), encoding="utf-8")
        atomic.write_json(folder / LABELS, dict(definition.labels))
    found = Environment(definition.engine, folder, definition.variant, "", "", image=name)
    return _described(found, starter)


def _described(image: Environment, starter: str | None) -> Environment:
    """What the image says of itself."""
    path = f"{ENVIRONMENTS}/{image.engine}/{definitions.STATE}"
    said = json.loads(inside(image, ["/bin/cat", path], starter))
    names = set(Environment.__dataclass_fields__) - {"folder", "image", "engine"}
    return dataclasses.replace(image, **{name: value for name, value in said.items() if name in names})


def inside(image: Environment, words: Sequence[str], starter: str | None) -> str:
    """What a program in the image writes. Raises CannotRun."""
    runtime = Container(image, starter)
    with tempfile.TemporaryDirectory(prefix="kuulo-inside-") as folder:
        scratch = Path(folder)
        runtimes.make_room(runtime, scratch)
        command = runtime.start(scratch, words, [own(scratch)], scratch)
        done = subprocess.run(
            command, capture_output=True, check=False, cwd=folder, env=runtime.environment(scratch, os.environ)
        )
    if done.returncode:
        raise CannotRun(
            f"{words[0]} failed in the image (exit code {done.returncode})",
            looked_at=f"{image.image_path}: {done.stderr.decode('utf-8', 'replace').strip()[-2000:]}",
        )
    return done.stdout.decode("utf-8", "replace")


# ---------------------------------------------------------------------- by Apptainer


def _by_apptainer(
    program: str, staged: Path, image: Path, definition: Definition, contents: Contents, shown: bool
) -> None:
    base = definition.base
    if base.bootstrap == LOCALIMAGE and Path(base.source).is_file() and not _is_image(Path(base.source)):
        _unpack_archive(Path(base.source), staged / "base")  # Apptainer takes images and folders alone
        definition = dataclasses.replace(definition, base=dataclasses.replace(base, source=str(staged / "base")))
    lay_out(staged, definition, contents)
    # We have it transcribe ourselves, as a run would.
    _run([program, "build", "--notest", str(image), "image.def"], "the image cannot be built", cwd=staged, shown=shown)


# ---------------------------------------------------------------------- by ourselves


def _by_ourselves(
    staged: Path, folder: Path, definition: Definition, contents: Contents, format_: str, shown: bool
) -> str:
    needed = ["ch-run", "mksquashfs", *(["siftool"] if format_ == image_file.SIF else [])]
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        raise CannotRun(
            f"an image cannot be built here: there is no apptainer, and no {' and no '.join(missing)}",
            looked_at=os.environ.get("PATH"),
            do="apt-get install charliecloud squashfs-tools siftool, or build where Apptainer is",
        )
    root = staged / "root"
    _say(shown, f"base: {definition.base.bootstrap} {definition.base.source}")
    _unpack_base(definition.base, root, shown)
    lay_out(staged, definition, contents)
    shutil.copytree(staged / FILES / "kuulo", root / TOP.lstrip("/"), dirs_exist_ok=True)
    post = root / TOP.lstrip("/") / "post.sh"
    post.write_text("\n".join([*definition.post, ""]), encoding="utf-8")
    _say(shown, "packages")
    _run(
        ["ch-run", "--write", "--private-tmp", "--unset-env=*", f"--set-env=PATH={PATH}", "--set-env=HOME=/tmp",
         str(root), "--", "/bin/sh", f"{TOP}/post.sh"],
        "the packages cannot be put into the image", cwd=staged, shown=shown,
    )  # fmt: skip
    post.unlink()
    _metadata(root, definition)
    _say(shown, "squashfs")
    squashfs = (folder if format_ == image_file.SQUASHFS else staged) / "image.squashfs"
    _run(["mksquashfs", str(root), str(squashfs),
          "-comp", "gzip", "-Xcompression-level", LEVEL, "-all-root", "-noappend", "-no-progress", "-quiet"],
         "the image cannot be written", cwd=staged, shown=shown)  # fmt: skip
    if format_ == image_file.SQUASHFS:
        return squashfs.name
    write_sif(folder / "image.sif", staged / "image.def", squashfs)
    return "image.sif"


def write_sif(image: Path, definition: Path, squashfs: Path) -> None:
    """A SIF file of a squashfs file, by siftool. Raises CannotRun."""
    architecture = SIF_ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise CannotRun(f"a SIF for {platform.machine()} cannot be made", do="--format squashfs")
    add = ["siftool", "add", "--datatype"]
    for command in (
        ["siftool", "new", str(image)],
        [*add, "1", str(image), str(definition)],
        [*add, "4", "--parttype", "2", "--partfs", "1", "--partarch", architecture, str(image), str(squashfs)],
    ):
        _run(command, "the SIF file cannot be written", cwd=image.parent, shown=False)


def _unpack_base(base: definitions.Base, root: Path, shown: bool) -> None:
    """Raises KuuloError."""
    if base.bootstrap == DOCKER:
        raise CannotRun(
            "an image of a registry can be taken as base by Apptainer alone, which is not found here",
            looked_at=base.source,
            do="--bootstrap debootstrap, or --bootstrap localimage with a folder, a tar, SIF or squashfs file",
        )
    if base.bootstrap == DEBOOTSTRAP:
        archive = root.with_name("base.tar")
        if shutil.which("mmdebstrap") is None:
            raise CannotRun("a Debian cannot be fetched: there is no mmdebstrap", do="apt-get install mmdebstrap")
        _run(["mmdebstrap", "--variant=apt", f"--include={','.join(INCLUDED)}", base.source, str(archive)],
             f"the Debian {base.source} cannot be fetched", cwd=root.parent, shown=shown)  # fmt: skip
        _unpack_archive(archive, root)
        archive.unlink()
        return
    path = Path(base.source)
    if path.is_dir():
        _run(["cp", "-a", "--no-preserve=ownership", "--", f"{path}/.", str(root)],
             "the base cannot be copied", cwd=root.parent, shown=False)  # fmt: skip
    elif not path.is_file():
        raise UsageError("there is no such base", looked_at=str(path), do="--base FOLDER, TAR, SIF or SQUASHFS")
    elif _is_image(path):
        unpack(path, root)
    else:
        _unpack_archive(path, root)
    if not (root / "bin" / "sh").exists():
        raise UsageError("the base is no root file system: it has no /bin/sh", looked_at=str(path))


def _is_image(path: Path) -> bool:
    with contextlib.suppress(KuuloError):
        return image_file.kind(path) in (image_file.SQUASHFS, image_file.SIF)
    return False


def _unpack_archive(archive: Path, root: Path) -> None:
    """Without devices, which ordinary users cannot make and no container needs."""
    root.mkdir(exist_ok=True)
    _run(["tar", "--extract", "--file", str(archive), "--directory", str(root), "--no-same-owner", "--exclude=./dev/*",
          "--exclude=dev/*"], "the base cannot be unpacked", cwd=root.parent, shown=False)  # fmt: skip


def _metadata(root: Path, definition: Definition) -> None:
    """What Apptainer reads of an image, where it did not make it."""
    top = root / ".singularity.d"
    (top / "env").mkdir(parents=True, exist_ok=True)
    exports = "".join(f'export {name}="{value}"\n' for name, value in definition.environment.items())
    texts = {
        "Singularity": definition.text(),
        "labels.json": json.dumps(dict(definition.labels), indent=1),
        "runscript": definition.runscript,
        "runscript.help": definition.help + "\n",
        "startscript": "#!/bin/sh\n",
        "test": definition.test,
        "env/90-environment.sh": f"#!/bin/sh\n{exports}",
    }
    for name, text in texts.items():
        path = top / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    for link, target in (
        ("singularity", ".singularity.d/runscript"),
        ("environment", ".singularity.d/env/90-environment.sh"),
    ):
        with contextlib.suppress(FileExistsError):
            (root / link).symlink_to(target)
    for folder in ("dev", "proc", "sys", "tmp", "root", "home", "mnt", "run", "var/tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)


def _say(shown: bool, text: str) -> None:
    if shown:
        os.write(2, f"{text}\n".encode("utf-8", "replace"))


def _run(command: Sequence[str], failed: str, *, cwd: Path, shown: bool) -> None:
    """Raises CannotRun with its last words. `shown`: they are copied to standard error as they come."""
    lines: list[bytes] = []
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environ()
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines = [*lines[-LAST_LINES:], line]
                if shown:
                    os.write(2, line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        said = b"".join(lines).decode("utf-8", "replace").strip()
        raise CannotRun(f"{failed}: {command[0]} ended with {process.returncode}", looked_at=said or None)


def _environ() -> dict[str, str]:
    return {"USER": str(os.getuid()), **os.environ}  # ch-run wants one


# ---------------------------------------------------------------------- of images that are there


def of_file(engine: str, path: Path, starter: str | None) -> Environment:
    """An image in a file of its own. Raises KuuloError."""
    path = path.absolute()
    return _described(Environment(engine, path.parent, "", "", "", image=path.name), starter)


def told(image: Environment) -> dict[str, Any]:
    """What `kuulo image inspect` says. Raises CannotRun."""
    path = image.image_path
    assert path is not None
    image_file.kind(path)
    try:
        labels = json.loads((image.folder / LABELS).read_text(encoding="utf-8"))
        digest, size = "", 0
        if path.is_file():
            with path.open("rb") as file:
                digest, size = hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    except (OSError, ValueError) as error:
        raise CannotRun(
            f"what the image is made from cannot be read: {error}",
            looked_at=str(image.folder),
            do=f"kuulo image build {image.engine}",
        ) from error
    return {**image.to_json(), "image": str(path), "bytes": size, "sha256": digest, "labels": labels}
