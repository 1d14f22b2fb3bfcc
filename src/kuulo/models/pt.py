"""openai-whisper's model: one `.pt` file, a zip archive with a pickle inside, read as `pickled.py` says.

`torch.load(weights_only=True)`, which the engine uses, holds to the same line.
"""

from __future__ import annotations

from pathlib import Path

from kuulo.models import pickled
from kuulo.models.binary import Damaged
from kuulo.models.shape import Shape

NAME = "PyTorch (openai-whisper)"
DIMENSIONS = ("n_vocab", "n_mels", "n_audio_layer", "n_text_layer")


def matches(path: Path) -> bool:
    """Whether the file is a zip archive, or named as PyTorch's files are."""
    with path.open("rb") as file:
        return file.read(4) == pickled.MAGIC or path.suffix == ".pt"


def problems(path: Path) -> list[str]:
    """What is wrong with the file; empty when nothing is."""
    try:
        dims = _dimensions(path)
    except Damaged as error:
        return [str(error)]
    lost = [name for name in DIMENSIONS if name not in dims]
    if lost:
        return [f"{path.name} is no checkpoint of openai-whisper: it does not say {', '.join(lost)}"]
    return []


def shape(path: Path) -> Shape:
    """The model's dimensions; raises Damaged."""
    dims = _dimensions(path)
    return Shape(dims.get("n_vocab"), dims.get("n_mels"), dims.get("n_audio_layer"), dims.get("n_text_layer"))


def _dimensions(path: Path) -> dict[str, int]:
    """Whisper's dimensions, as far as the checkpoint says them; raises Damaged for what could run code."""
    content = pickled.values(path, pickled.TENSOR_GLOBALS)
    said = content.get("dims") if isinstance(content, dict) else None
    if not isinstance(said, dict):
        return {}
    return {name: said[name] for name in DIMENSIONS if isinstance(said.get(name), int)}
