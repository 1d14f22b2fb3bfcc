"""A GPU that is imagined, for tests: a library that answers as NVIDIA's does, made with gcc, and an engine in a package
of its own that says that it uses it (tests/gpu/)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "gpu"


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, where every user can read it."""
    return made(tmp_path_factory, "libnvidia-ml.so.1")


@pytest.fixture(scope="session")
def old_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of an old driver."""
    return made(tmp_path_factory, "old.so", "-DOLD")


def made(tmp_path_factory: pytest.TempPathFactory, name: str, *flags: str) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("nvml") / name
    command = [compiler, "-shared", "-fPIC", "-w", *flags, "-o", str(library), str(HERE / "nvml.c")]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="session")
def imagined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that has the engine `imagined`."""
    folder = tmp_path_factory.mktemp("engine")
    shutil.copy(HERE / "imagined_engine.py", folder)
    about = folder / "imagined-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: imagined\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[kuulo.engines]\nimagined = imagined_engine\n")
    return folder
