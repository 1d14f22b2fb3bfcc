"""Files of PyTorch, a zip archive with a pickle inside, read without running anything of them.

First the opcodes are gone through one by one: what passes has only opcodes and globals that a plain checkpoint needs.
Then what the pickle describes is built of stand-ins: for every class or function that it names there is an empty one
of ours, so that nothing is imported and nothing is called. PyTorch's old format (before 1.6; no zip archive) is
refused: it cannot be checked without being loaded.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any, Self

from kuulo.models.binary import Damaged

MAGIC = b"PK\x03\x04"
LONGEST_PICKLE = 64_000_000
"""Bytes of data.pkl; those of OpenAI's and pyannote's models are far below 1 MB."""

STORAGES = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")

TENSOR_GLOBALS = frozenset(
    {"collections OrderedDict", "torch Size", "torch._utils _rebuild_parameter", "torch._utils _rebuild_tensor_v2"}
    | {f"torch {kind}Storage" for kind in STORAGES}
)
"""What a dictionary of tensors needs, as a pickle names it: module, a space, name."""

# Opcodes that look up or call something in another way than GLOBAL and REDUCE
REFUSED_OPCODES = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"})


class StandIn(dict[Any, Any]):
    """In the place of an object that a pickle would make: keeps nothing of what it is given, but for items that are
    set as in a dictionary."""

    def __new__(cls, *_: Any) -> Self:
        return dict.__new__(cls)

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """A pickle appends to what it takes for a list."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class _Inert(pickle.Unpickler):
    """An unpickler that gives stand-ins for all classes, functions and storages."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return type("Named", (StandIn,), {"named": f"{module_name} {global_name}"})

    def persistent_load(self, _: Any) -> Any:
        return StandIn()


def values(path: Path, globals_: Collection[str], *, new: bool = False) -> Any:
    """What the file's pickle describes: see `values_in`."""
    with path.open("rb") as file:
        return values_in(file, path.name, globals_, new=new)


def values_in(file: IO[bytes], name: str, globals_: Collection[str], *, new: bool = False) -> Any:
    """What the pickle of an open file describes, in plain values and stand-ins, after the whole archive was found
    complete. `name`: what people know it by.

    `globals_`: the only ones that it may name. `new`: whether it may make objects of them (NEWOBJ), beside calling
    them. Raises Damaged for anything else, and for what could run code."""
    raw = _data(file, name)
    _refuse_code(raw, globals_, REFUSED_OPCODES - ({"NEWOBJ"} if new else set()))
    try:
        # Every class is a stand-in, and what could look one up in another way was refused: nothing is run.
        return _Inert(io.BytesIO(raw)).load()
    except (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError, MemoryError) as error:
        raise Damaged(f"the pickle inside {name} is damaged ({error})") from error
    except (RecursionError, TypeError, ValueError) as error:
        raise Damaged(f"the pickle inside {name} is damaged ({error})") from error


def _data(file: IO[bytes], name: str) -> bytes:
    """The bytes of data.pkl, the one that PyTorch would read."""
    if file.read(4) != MAGIC:
        raise Damaged(
            f"{name} is not a zip archive: damaged, or in PyTorch's format from before 1.6 (then save "
            f"it again: torch.save(torch.load(OLD, weights_only=True), NEW))"
        )
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_places(file, name, archive, entries)
            _check_names(name, archive)
            data = archive.getinfo(f"{entries[0].filename.partition('/')[0]}/data.pkl")
            if data.file_size > LONGEST_PICKLE:
                raise Damaged(f"{name} has a data.pkl of {data.file_size} bytes, far more than PyTorch writes")
            return archive.read(data)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise Damaged(f"{name} is truncated or damaged ({error})") from error
    except LookupError as error:
        raise Damaged(f"{name} has no data.pkl as PyTorch writes it") from error


def _check_places(file: IO[bytes], name: str, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
    """Every entry's data lies before the directory, and a header stands where it should."""
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise Damaged(f"{name} is compressed, which PyTorch's files are not")
        file.seek(entry.header_offset)
        end = entry.header_offset + 30 + entry.compress_size
        if file.read(4) != MAGIC or end > archive.start_dir:
            raise Damaged(f"{name} is damaged: {entry.filename} is not complete")


def _check_names(name: str, archive: zipfile.ZipFile) -> None:
    """One folder, every name once, and no program: so that the pickle that is checked is the one that is loaded.

    PyTorch looks names up without regard to case, and runs an archive that has constants.pkl (TorchScript)."""
    names = [entry.casefold() for entry in archive.namelist()]
    if len(set(names)) != len(names) or len({entry.partition("/")[0] for entry in names}) != 1 or archive.comment:
        raise Damaged(f"{name} is no archive as PyTorch writes it: names stand in it twice, or in several folders")
    if any(entry.endswith("/constants.pkl") for entry in names):
        raise Damaged(f"{name} is TorchScript, a program: it is not loaded")


def _refuse_code(raw: bytes, globals_: Collection[str], refused: Collection[str]) -> None:
    try:
        for opcode, argument, _ in pickletools.genops(raw):
            if opcode.name in refused:
                raise Damaged(f"the pickle inside has {opcode.name}, which can run code: it is not loaded")
            if opcode.name == "GLOBAL" and argument not in globals_:
                named = str(argument).replace(" ", ".")
                raise Damaged(f"the pickle inside names {named}, which can run code: it is not loaded")
            # A place in memory for a value: a number beyond all opcodes would only fill the memory.
            if "PUT" in opcode.name and not 0 <= int(argument or 0) <= len(raw):
                raise Damaged("the pickle inside is damaged (a memo beyond its end)")
    except (ValueError, IndexError, UnicodeError) as error:
        raise Damaged(f"the pickle inside is damaged ({error})") from error
