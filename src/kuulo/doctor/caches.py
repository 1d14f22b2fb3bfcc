"""What other speech tools left in the home. Kuulo uses none of it, and leaves it alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kuulo.doctor.finding import OK, WARNING, Finding, Looking, amount

FOLDERS = {
    ".cache/huggingface": "Hugging Face",
    ".cache/nemo": "NeMo",
    ".cache/torch": "PyTorch, NeMo, pyannote",
    ".cache/whisper": "openai-whisper",
    ".apptainer/cache": "Apptainer",
    ".singularity/cache": "Singularity",
    ".triton": "Triton",
    ".nv": "CUDA",
    "nltk_data": "NLTK",
}

MUCH_BYTES = 5_000_000_000
MOST_FILES = 20_000
"""So many are counted: a home may be on a slow disk."""


def check(looking: Looking) -> Iterator[Finding]:
    """The folders that are there, with their sizes."""
    home = Path(looking.environ.get("HOME") or "~").expanduser()
    found = left_behind(home)
    for path, whose in found:
        size, all_of_it = _size(path)
        said = f"of {whose}: {amount(size)}{'' if all_of_it else ' at least'}"
        do = "remove it when no other program of yours needs it"
        if size >= MUCH_BYTES:
            yield Finding(f"~/{path.relative_to(home)}", WARNING, said, str(path), do)
        else:
            yield Finding(f"~/{path.relative_to(home)}", OK, f"{said}; Kuulo does not use it", str(path))
    if not found:
        yield Finding("caches", OK, "no other speech tool left anything", str(home))


def left_behind(home: Path) -> list[tuple[Path, str]]:
    """What is there, and whose it is."""
    return [(home / name, whose) for name, whose in FOLDERS.items() if (home / name).is_dir()]


def _size(folder: Path) -> tuple[int, bool]:
    """Bytes, and whether all was counted."""
    size = 0
    for number, path in enumerate(folder.rglob("*")):
        if number == MOST_FILES:
            return size, False
        facts = path.lstat()
        size += facts.st_blocks * 512
    return size, True
