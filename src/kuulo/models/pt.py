"""openai-whisper's model: one `.pt` file, a zip archive with a pickle inside.

Nothing is unpickled here: the opcodes are read one by one. What passes has only the opcodes and globals that a
plain checkpoint needs; `torch.load(weights_only=True)`, which the engine uses, holds to the same line.
PyTorch's old format (before 1.6; no zip archive) is refused: it cannot be checked without being loaded.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from kuulo.models.binary import Damaged
from kuulo.models.shape import Shape

NAME = "PyTorch (openai-whisper)"
LONGEST_PICKLE = 64_000_000
"""Bytes of data.pkl; OpenAI's are far below 1 MB."""

STORAGES = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")

ALLOWED_GLOBALS = frozenset(
    {"collections OrderedDict", "torch Size", "torch._utils _rebuild_parameter", "torch._utils _rebuild_tensor_v2"}
    | {f"torch {kind}Storage" for kind in STORAGES}
)

# Opcodes that look up or call something in another way than GLOBAL and REDUCE
REFUSED_OPCODES = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"})

DIMENSIONS = ("n_vocab", "n_mels", "n_audio_layer", "n_text_layer")


def matches(path: Path) -> bool:
    """Whether the file is a zip archive, or named as PyTorch's files are."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" or path.suffix == ".pt"


def problems(path: Path) -> list[str]:
    """What is wrong with the file; empty when nothing is."""
    try:
        dims = _dimensions(_pickle(path))
    except Damaged as error:
        return [str(error)]
    lost = [name for name in DIMENSIONS if name not in dims]
    if lost:
        return [f"{path.name} is no checkpoint of openai-whisper: it does not say {', '.join(lost)}"]
    return []


def shape(path: Path) -> Shape:
    """The model's dimensions; raises Damaged."""
    dims = _dimensions(_pickle(path))
    return Shape(dims.get("n_vocab"), dims.get("n_mels"), dims.get("n_audio_layer"), dims.get("n_text_layer"))


def _pickle(path: Path) -> bytes:
    """The bytes of data.pkl, after the whole archive was found complete; raises Damaged."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise Damaged(
                f"{path.name} is not a zip archive: damaged, or in PyTorch's format from before 1.6 (then save "
                f"it again: torch.save(torch.load(OLD, weights_only=True), NEW))"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_places(path, archive, entries)
            pickles = [e for e in entries if e.filename.split("/")[-1] == "data.pkl"]
            if len(pickles) != 1 or pickles[0].file_size > LONGEST_PICKLE:
                raise Damaged(f"{path.name} has no data.pkl as PyTorch writes it")
            return archive.read(pickles[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise Damaged(f"{path.name} is truncated or damaged ({error})") from error


def _check_places(path: Path, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
    """Every entry's data lies before the directory, and a header stands where it should."""
    with path.open("rb") as file:
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED:
                raise Damaged(f"{path.name} is compressed, which PyTorch's files are not")
            file.seek(entry.header_offset)
            end = entry.header_offset + 30 + entry.compress_size
            if file.read(4) != b"PK\x03\x04" or end > archive.start_dir:
                raise Damaged(f"{path.name} is damaged: {entry.filename} is not complete")


def _dimensions(pickled: bytes) -> dict[str, int]:
    """The numbers after the names of Whisper's dimensions; raises Damaged for what could run code."""
    dims: dict[str, int] = {}
    waiting: str | None = None
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in REFUSED_OPCODES:
                raise Damaged(f"the pickle inside has {opcode.name}, which can run code: it is not loaded")
            if opcode.name == "GLOBAL" and argument not in ALLOWED_GLOBALS:
                named = str(argument).replace(" ", ".")
                raise Damaged(f"the pickle inside names {named}, which can run code: it is not loaded")
            if isinstance(argument, str) and argument in DIMENSIONS:
                waiting = argument
            elif waiting and isinstance(argument, int) and "PUT" not in opcode.name:
                dims.setdefault(waiting, argument)
                waiting = None
    except (ValueError, IndexError, UnicodeError) as error:
        raise Damaged(f"the pickle inside is damaged ({error})") from error
    return dims
