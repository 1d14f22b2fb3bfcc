"""The container image of an engine, as data, and as the text of an Apptainer definition file.

An image has the engine's locked packages in one virtual environment and Kuulo with what its command line needs in
another, so that their pins cannot contradict each other:

    /opt/kuulo/environments/ENGINE/   Kuulo's folder of environments, with this one in it (environments/installed.py)
    /opt/kuulo/venv/, src/            Kuulo
    /opt/kuulo/bin/                   `kuulo`, and the engine's own program; both are on the PATH
    /opt/kuulo/host/, root/, ...      empty: runtimes/container.py uses them
    /opt/kuulo/image.json             the labels

Models are not in it. What is run is decided by the first word (`runscript`), so that an image is an ordinary one for
`apptainer run` and for a centre's wrappers.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import kuulo
from kuulo.engines.base import EngineSpec
from kuulo.environments.recipe import ANY, Recipe, Variant
from kuulo.environments.sources import Sources
from kuulo.errors import UsageError
from kuulo.runtimes.container import BUILD, ENVIRONMENTS, HOST, WORKER_FILES
from kuulo.runtimes.inside import DRIVER, NEW_ROOT

DOCKER, LOCALIMAGE, DEBOOTSTRAP = "docker", "localimage", "debootstrap"
BASES = {DOCKER: "debian:12-slim", DEBOOTSTRAP: "bookworm"}
"""What a base is taken from, where nobody says."""

MIRROR = "http://deb.debian.org/debian"
INCLUDED = ("ca-certificates", "libgomp1", "libstdc++6", "python3", "python3-venv")
"""Debian's packages that an image needs."""

FILES = "files"
"""The folder beside a definition that has what is copied into the image."""

TOP = "/opt/kuulo"
KUULO = f"{TOP}/bin/kuulo"
STATE = "state.json"

FOLDER = Path(__file__).parent / "kuulo"
COMMAND_LINE = Recipe(
    "kuulo", ">=3.11,<3.14", {ANY: Variant(ANY, FOLDER / "requirements.in", FOLDER / f"{ANY}.lock")}, "kuulo"
)
"""Kuulo's own packages, as a recipe: they are locked and bundled as an engine's are."""


@dataclass(frozen=True)
class Base:
    """From what an image is made. `source`: a reference (docker), a path (localimage), a release (debootstrap)."""

    bootstrap: str
    source: str

    def __post_init__(self) -> None:
        if not self.source or any(ord(c) < 32 for c in self.source):
            raise UsageError(f"{self.source!r} is no base for an image", do="for example --base debian:12-slim")

    def header(self) -> str:
        """The first lines of a definition file."""
        if self.bootstrap != DEBOOTSTRAP:
            return f"Bootstrap: {self.bootstrap}\nFrom: {self.source}\n"
        included = " ".join(INCLUDED)
        return f"Bootstrap: debootstrap\nOSVersion: {self.source}\nMirrorURL: {MIRROR}\nInclude: {included}\n"


def base(bootstrap: str | None, source: str | None, *, apptainer: bool) -> Base:
    """The base that is asked for, and what nobody said. Raises UsageError."""
    if bootstrap is None:
        is_path = source is not None and (source.startswith(("/", ".")) or Path(source).exists())
        bootstrap = LOCALIMAGE if is_path else DOCKER if apptainer or source else DEBOOTSTRAP
    if source is None and bootstrap not in BASES:
        raise UsageError(f"--bootstrap {bootstrap} needs a --base", do="--base FOLDER, TAR, SIF or SQUASHFS")
    source = source or BASES[bootstrap]
    return Base(bootstrap, str(Path(source).absolute()) if bootstrap == LOCALIMAGE else source)


@dataclass(frozen=True)
class Definition:
    """An image, not yet made. `files`: (below FILES, in the image); `post`: lines for `sh -eu`; `shims`: programs in
    /opt/kuulo/bin and their texts; the scripts begin with `#!/bin/sh`."""

    engine: str
    variant: str
    base: Base
    files: tuple[tuple[str, str], ...]
    post: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    help: str
    runscript: str
    test: str

    def text(self) -> str:
        """The definition file, for `apptainer build` in the folder that has FILES."""
        sections = {
            "files": [f"{FILES}/{source} {target}" for source, target in self.files],
            "post": self.post,
            "environment": [f'export {name}="{value}"' for name, value in self.environment.items()],
            "labels": [f"{name} {value}" for name, value in self.labels.items()],
            "runscript": self.runscript.splitlines()[1:],
            "test": self.test.splitlines()[1:],
            "help": self.help.splitlines(),
        }
        return self.base.header() + "".join(
            f"\n%{name}\n" + textwrap.indent("\n".join(lines), "    ") + "\n" for name, lines in sections.items()
        )


def define(
    spec: EngineSpec,
    recipe: Recipe,
    variant: Variant,
    base: Base,
    sources: Sources,
    locks: Mapping[str, str],
    commands: Sequence[str],
) -> Definition:
    """The image of an engine. `sources`: a bundle or the network; `locks`: the text of the lock of `engine` and
    of `kuulo` that are used; `commands`: Kuulo's commands, which a first word may be."""
    from hashlib import sha256

    digest = sha256(locks["engine"].encode()).hexdigest()
    version = _version(locks["engine"], spec.package)
    labels = {
        "org.opencontainers.image.title": f"kuulo-{spec.name}",
        "org.opencontainers.image.version": kuulo.__version__,
        "org.opencontainers.image.url": spec.url,
        "kuulo.version": kuulo.__version__,
        "kuulo.engine": spec.name,
        "kuulo.engine.package": spec.package,
        "kuulo.engine.version": version,
        "kuulo.engine.licence": spec.licence,
        "kuulo.variant": variant.name,
        "kuulo.lock.sha256": digest,
        "kuulo.command_line.lock.sha256": sha256(locks["kuulo"].encode()).hexdigest(),
        "kuulo.base": f"{base.bootstrap} {base.source}",
    }
    return Definition(
        engine=spec.name,
        variant=variant.name,
        base=base,
        files=(("kuulo", TOP),),
        post=_post(spec.name, recipe, variant, sources, digest),
        environment={"PATH": f"{TOP}/bin:$PATH", "LANG": "${LANG:-C.UTF-8}", "PYTHONNOUSERSITE": "1"},
        labels={name: " ".join(value.split()) for name, value in labels.items() if value},
        help=_help(spec, recipe, version),
        runscript=runscript(spec.name, recipe.program, commands),
        test=f"#!/bin/sh\nexec {KUULO} engines check {spec.name}\n",
    )


def _version(lock: str, package: str) -> str:
    """The package's version in a lock; of several for several Pythons all."""
    name = re.sub("[-_.]+", "-", package).lower()
    return ", ".join(re.findall(rf"(?m)^{re.escape(name)}==([^\s;]+)", lock)) or "unknown"


def _post(engine: str, recipe: Recipe, variant: Variant, sources: Sources, digest: str) -> tuple[str, ...]:
    """With the files in place: the virtual environments, the folders, the state."""
    home = f"{ENVIRONMENTS}/{engine}"
    flags = ["--no-index", "--find-links", f"{TOP}/wheels"] if sources.bundle else sources.pip_flags(variant)
    told = shlex.join(flags)
    pip = f"{TOP}/venv/bin/python -I -m pip --quiet --disable-pip-version-check --no-cache-dir"
    install = f"install --no-deps --require-hashes {told} --requirement {TOP}"
    return (
        "set -eu",
        "umask 022",
        "if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then",
        "    apt-get update",
        f"    apt-get install -y --no-install-recommends {' '.join(INCLUDED)}",
        "    rm -rf /var/lib/apt/lists/*",
        "fi",
        f"mkdir -p {home} {HOST} {NEW_ROOT} {DRIVER} {WORKER_FILES}",
        f"chmod 755 {TOP}/bin/*",
        f"python3 -I -m venv {TOP}/venv",
        f"python3 -I -m venv --without-pip {home}/{BUILD}",
        f"{pip} {install}/kuulo.lock",
        f"{pip} --python {home}/{BUILD}/bin/python {install}/engine.lock",
        f"{pip} uninstall --yes pip setuptools",
        f"site=$({TOP}/venv/bin/python -I -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')",
        f'echo {TOP}/src > "$site/kuulo.pth"',
        f"{TOP}/venv/bin/python -I -m compileall -q {TOP}/src",
        f"{TOP}/venv/bin/python -I -m kuulo.deploy.described {engine} {variant.name} '{recipe.python}' {digest}",
        f"ln -sf {KUULO} /usr/local/bin/kuulo",
        f"rm -rf {TOP}/wheels",
    )


def runscript(engine: str, program: str | None, commands: Sequence[str]) -> str:
    """The first word says whose command line it is: one of Kuulo's commands, or `kuulo`: Kuulo's; else the engine's own
    program's, whose name may stand before it, as may `--`. An engine without a program has Kuulo's alone."""
    lines = [
        "#!/bin/sh",
        'case "${1-}" in',
        f'    {"|".join(sorted(commands))}) exec {KUULO} "$@" ;;',
        f'    kuulo) shift; exec {KUULO} "$@" ;;',
    ]
    if program is None:
        return "\n".join([*lines, "esac", f'exec {KUULO} "$@"', ""])
    return "\n".join([*lines, f"    {program}|--) shift ;;", "esac", f'exec {KUULO} run {engine} -- "$@"', ""])


def shims(engine: str, program: str | None) -> dict[str, str]:
    """The programs of /opt/kuulo/bin: name -> text."""
    start = [
        "#!/bin/sh",
        f"export KUULO_ENVIRONMENTS={ENVIRONMENTS}",
        'if [ -n "${KUULO_SITE-}" ] && [ ! -e "$KUULO_SITE" ]; then unset KUULO_SITE; fi  # it is outside',
        f'exec {TOP}/venv/bin/python -I -m kuulo.cli "$@"',
    ]
    native = ["#!/bin/sh", f'exec {KUULO} run {engine} -- "$@"']
    texts = {"kuulo": start, **({program: native} if program else {})}
    return {name: "\n".join([*lines, ""]) for name, lines in texts.items()}


def _help(spec: EngineSpec, recipe: Recipe, version: str) -> str:
    lines = [
        f"{spec.name} {version}: {spec.summary}",
        f"Made by Kuulo {kuulo.__version__}. No model is in it: show it a folder that has them.",
        "",
        "Kuulo's command line, when the first word is one of its commands:",
        f"    apptainer run IMAGE transcribe a.wav --engine {spec.name} --model /path/to/model",
        "    apptainer run IMAGE transcribe --help",
    ]
    if recipe.program:
        lines += ["", f"{recipe.program}, the engine's own program, for all else:",
                  "    apptainer run IMAGE --help", f"    apptainer run IMAGE {recipe.program} --help"]  # fmt: skip
    lines += ["", "With a GPU: --nv (NVIDIA) or --rocm (AMD). Does it hear? apptainer test IMAGE"]
    return "\n".join(line for line in [*lines, *([recipe.note] if recipe.note else [])])
