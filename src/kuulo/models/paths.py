"""Names of a model's files below its folder, where they may lie in sub-folders: `segmentation/pytorch_model.bin`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath


def is_name(text: str) -> bool:
    """Whether it names something below a folder, in one way alone: no absolute path, no `..`, no `.`, no `//`."""
    path = PurePosixPath(text)
    return text == str(path) and text != "." and not path.is_absolute() and ".." not in path.parts and "\0" not in text


def is_inside(folder: Path, name: str) -> bool:
    """Whether `name` lies below the folder itself. A sub-folder that is a link to elsewhere does not; the file may be a
    link, as in the hub's cache and as `kuulo models add --link` makes it."""
    return is_name(name) and (folder / name).parent.resolve().is_relative_to(folder.resolve())
