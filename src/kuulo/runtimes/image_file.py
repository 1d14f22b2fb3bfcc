"""What kind of container image a file is, and whether all of it is there."""

from __future__ import annotations

import struct
from pathlib import Path

from kuulo.errors import EngineMissing

SQUASHFS, SIF, FOLDER = "squashfs", "sif", "folder"

HEADER_BYTES = 128
SQUASHFS_MAGIC = b"hsqs"
SIF_MAGIC = b"SIF_MAGIC"


def kind(path: Path) -> str:
    """SQUASHFS, SIF or FOLDER. Raises EngineMissing for what is none of them, or was cut off.

    Both formats say in their headers how long they are. (squashfs: u64 at 40, bytes_used, of the superblock; SIF: i64
    at 112 and 120, where the data is and how much, of the global header.) A cut image may start, and fail later."""
    if path.is_dir():
        return FOLDER
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise EngineMissing(f"the container image cannot be read: {error.strerror}", looked_at=str(path)) from error
    if header.startswith(SQUASHFS_MAGIC) and len(header) >= 48:
        found, wanted = SQUASHFS, struct.unpack_from("<Q", header, 40)[0]
    elif header[32:].startswith(SIF_MAGIC) and len(header) >= 128:
        found, wanted = SIF, sum(struct.unpack_from("<2q", header, 112))
    else:
        raise EngineMissing(
            "this is no container image",
            looked_at=f"{path} ({size} bytes)",
            do="Kuulo starts SIF files, squashfs files and folders: make it anew with `kuulo image build`",
        )
    if size < wanted:
        raise EngineMissing(
            f"the container image is cut off: {size} of {wanted} bytes are there",
            looked_at=str(path),
            do="copy it again, or make it anew with `kuulo image build`",
        )
    return str(found)


DESCRIPTOR = struct.Struct("<i?IIIqq")
"""The first fields of a SIF's descriptors: data type, used, id, group, link, offset, size. (sylabs/sif)"""

DESCRIPTOR_BYTES = 585
PARTITION = 0x4004


def offset(path: Path) -> int:
    """Where in the file the squashfs is. Raises EngineMissing."""
    if kind(path) != SIF:
        return 0
    data = _head(path)
    total, first = struct.unpack_from("<q", data, 88)[0], struct.unpack_from("<q", data, 96)[0]
    for number in range(min(total, 48)):
        where = first + number * DESCRIPTOR_BYTES
        if where + DESCRIPTOR.size > len(data):
            break
        type_, used, _, _, _, start, _ = DESCRIPTOR.unpack_from(data, where)
        if used and type_ == PARTITION:
            return int(start)
    raise EngineMissing(
        "the SIF file has no file system", looked_at=str(path), do="make it anew with `kuulo image build`"
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 16)
