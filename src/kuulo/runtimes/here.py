"""Start a worker with this interpreter, with caches of its own and nothing that could leave the machine."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

OFFLINE = {
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime's wheels report to their maker unless told not to (Privacy.md)
    "PYANNOTE_METRICS_ENABLED": "0",
    "TRANSFORMERS_OFFLINE": "1",
}

CACHES = {
    "CUDA_CACHE_PATH": "cuda",
    "HF_HOME": "huggingface",
    "HOME": "home",
    "JOBLIB_TEMP_FOLDER": "joblib",
    "MPLCONFIGDIR": "matplotlib",
    "NLTK_DATA": "nltk",
    "NUMBA_CACHE_DIR": "numba",
    "TMPDIR": "tmp",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_HOME": "torch",
    "TRITON_HOME": "triton",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
}
"""Variables that decide where libraries write, and the folders in scratch that they get."""

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""glibc's malloc gives large blocks back at once and takes them anew, page by page, for each window and each step of
decoding: with CTranslate2 that was a sixth of the time. A worker keeps up to 256 MB instead. (mallopt(3))"""


def command() -> list[str]:
    """The worker's program and arguments."""
    return [sys.executable, "-m", "kuulo.worker"]


def environment(scratch: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: ours, offline, with private caches under `scratch`."""
    private = {name: str(scratch / folder) for name, folder in CACHES.items()}
    return {
        **KEEP_MEMORY,
        **environ,
        **OFFLINE,
        **private,
        # Not as many as the worker's threads: with one, some of OpenBLAS's kernels round differently than with more,
        # and the words of a recording would depend on how many others there are.
        "OPENBLAS_NUM_THREADS": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",  # a file random.py where the user stands is not Python's
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONUTF8": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def start(scratch: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A worker that waits for its task. It stands in `scratch`, in a process group of its own, so that Ctrl-C reaches
    the parent alone, which decides what to keep."""
    for folder in CACHES.values():
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=scratch,
        env=environment(scratch, os.environ),
        start_new_session=True,
    )
