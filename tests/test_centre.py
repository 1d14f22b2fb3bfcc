"""All that a centre does, once: a site file of ten lines, `kuulo deploy apply`, and an ordinary user who types
`module load kuulo` on a cluster. Real Slurm, real Lmod, no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Kuulo
from kuulo import miniature
from kuulo.deploy import proving
from kuulo.models import built_in
from kuulo.models.store import Store
from slurm_cluster import Cluster

LMOD = proving.lmod()
ROOTFS, BUNDLE = Path(sys.prefix, "rootfs.tar"), Path(sys.prefix, "bundle")
IMAGES = (
    ROOTFS.is_file() and (BUNDLE / "kuulo").is_dir() and bool(shutil.which("ch-run") and shutil.which("mksquashfs"))
)
"""Whether images can be made here: `make test` puts all of that there. Else the engine is the one beside Kuulo."""

pytestmark = pytest.mark.skipif(LMOD is None, reason="needs Lmod (Debian's package lmod), which is not installed here")

SITE = """\
name = "Test centre"
stores = ["{folder}/models"]
{images}engines = ["whisper-cpp", "faster-whisper"]
[defaults]
engine = "{engine}"
model = "miniature"
[jobs.cpu]
partition = "cpu"
cpus = 1
[deploy]
folder = "{folder}/kuulo"
modules = "{folder}/modules"
"""

WITH_IMAGES = """\
[image]
engines = ["whisper-cpp"]
base = "{rootfs}"
bundle = "{bundle}"
"""


def site_file(folder: Path) -> str:
    """Ten lines, and what a machine needs that has no network."""
    if not IMAGES:
        return SITE.format(folder=folder, images="", engine="faster-whisper")
    images = f'images = "{folder}/images"\ncontainer = "charliecloud"\n'
    made = SITE.format(folder=folder, images=images, engine="whisper-cpp")
    return made + WITH_IMAGES.format(rootfs=ROOTFS, bundle=BUNDLE)


@pytest.fixture(scope="module")
def centre(user_cluster: Cluster) -> Iterator[Path]:
    """A centre's folder, in which everything is deployed. Its users can read it, as they cannot those of pytest."""
    with tempfile.TemporaryDirectory(prefix="kuulo-centre-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        for format_ in ("ct2", "ggml"):
            built_in.write(Store(folder / "models"), format_)
        (folder / "site.toml").write_text(site_file(folder))
        done = apply(folder)
        assert done.returncode == 0, done.stderr
        assert "FAILED" not in done.stdout
        yield folder


def apply(folder: Path) -> subprocess.CompletedProcess[str]:
    """The administrator's only command."""
    environ = {
        **os.environ,
        "KUULO_SITE": str(folder / "site.toml"),
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT / "src"),
    }
    return subprocess.run(
        [sys.executable, "-m", "kuulo", "deploy", "apply", "--yes"],
        env=environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def logged_in(cluster: Cluster, centre: Path, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A script of an ordinary user, in a shell that has `module`."""
    # Other tests on this cluster set variables of their own.
    begin = f"unset ${{!KUULO_@}}; . {LMOD} >/dev/null; module use {centre}/modules; module load kuulo || exit 9\n"
    return cluster.run(["bash", "--norc", "-c", begin + script], cwd=cwd, timeout=300)


def heard(folder: Path) -> str:
    """The words of the clip's transcript, which the engine made that the site has chosen, in its image."""
    said = json.loads((folder / f"{miniature.CLIP.stem}.json").read_bytes())
    assert said["provenance"]["steps"][0]["engine"] == ("whisper-cpp" if IMAGES else "faster-whisper")
    return " ".join(segment["text"] for segment in said["segments"])


@pytest.fixture
def interviews(user_cluster: Cluster) -> Path:
    """A user's folder with recordings whose names break programs."""
    folder = user_cluster.folder("my interviews $(touch owned)")
    for name in (miniature.CLIP.name, 'it\'s "two".flac'):
        (folder / name).write_bytes(miniature.CLIP.read_bytes())
    return folder


def test_srun(user_cluster: Cluster, centre: Path, interviews: Path) -> None:
    done = logged_in(user_cluster, centre, "srun kuulo transcribe . -o out", interviews)
    assert done.returncode == 0, done.stdout + done.stderr
    assert heard(interviews / "out")
    assert (interviews / "out" / 'it\'s "two".txt').exists()
    assert not list(interviews.rglob("owned*"))


def test_sbatch_with_the_module_in_the_script(user_cluster: Cluster, centre: Path, interviews: Path) -> None:
    (interviews / "job.sh").write_text(
        "#!/bin/bash -l\n"  # without --export=ALL, what a login shell has is all that there is
        f". {LMOD} >/dev/null\nmodule use {centre}/modules\nmodule load kuulo\n"
        'kuulo transcribe . -o out --quiet\necho "code $? model $miniature"\nmodule unload kuulo\n'
        'command -v kuulo || echo "unloaded, model <$miniature>"\n'
    )
    done = user_cluster.run(
        ["sbatch", "--wait", "--export=NONE", "-o", "log.txt", "job.sh"], cwd=interviews, timeout=300
    )
    log = (interviews / "log.txt").read_text()
    assert done.returncode == 0, log + done.stderr
    assert f"code 0 model {centre}/models/ct2/miniature\n" in log
    assert "unloaded, model <>\n" in log
    assert heard(interviews / "out")


def test_submit(user_cluster: Cluster, centre: Path, interviews: Path) -> None:
    script = """
        job=$(kuulo submit . -o out | sed -n 's/^job \\(k[0-9]*\\):.*/\\1/p')
        kuulo jobs wait "$job" --quiet; kuulo jobs show "$job"
    """
    done = logged_in(user_cluster, centre, script, interviews)
    assert done.returncode == 0, done.stdout + done.stderr
    assert heard(interviews / "out")


def test_a_version_that_comes_later_leaves_loaded_ones_as_they_are(
    user_cluster: Cluster, centre: Path, interviews: Path, kuulo: Kuulo
) -> None:
    text = (centre / "site.toml").read_text()
    (centre / "site.toml").write_text(text + '[module]\nmessage = "News"\n')
    try:
        assert "0.1.0-2 is in use" in apply(centre).stdout
        script = "kuulo --version; echo $KUULO_VERSION; module swap kuulo/0.1.0-1; echo $KUULO_VERSION; "
        script += "srun kuulo models list"
        done = logged_in(user_cluster, centre, script, interviews)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[1:3] == ["0.1.0-2", "0.1.0-1"]
        assert "miniature" in done.stdout
        environ = {"KUULO_SITE": str(centre / "site.toml")}
        assert kuulo("deploy", "rollback", env=environ).returncode == 0
        again = logged_in(user_cluster, centre, "echo $KUULO_VERSION", interviews)
        assert again.stdout == "0.1.0-1\n"
    finally:
        (centre / "site.toml").write_text(text)
    assert apply(centre).stdout.startswith("0.1.0-1 is in use, and nothing would change")
