"""transformers' model: a Hugging Face folder with weights in safetensors files."""

from __future__ import annotations

import json
import struct
from pathlib import Path, PurePosixPath
from typing import Any

from kuulo.models.binary import Damaged
from kuulo.models.documents import load, mel_problems
from kuulo.models.shape import Shape

NAME = "Hugging Face (transformers)"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"

# What is kept of a folder or repository, beside the weights
WANTED = (
    "added_tokens.json", "config.json", "generation_config.json", "merges.txt", "normalizer.json",
    "preprocessor_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json",
)  # fmt: skip

LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library itself."""

FIRST_CONVOLUTION = "model.encoder.conv1.weight"
"""Its second extent is the number of mel bands."""


def matches(path: Path) -> bool:
    """Whether the folder has this format's main file, for a Whisper."""
    config, _ = load(path / "config.json")
    return config is not None and config.get("model_type") == "whisper"


def wanted(names: list[str]) -> list[str]:
    """Those of a repository's files that make the model: one set of weights, the tokenizer, the settings."""
    if WEIGHTS in names:
        weights = [WEIGHTS]
    else:
        weights = [n for n in names if n == INDEX or (n.startswith("model-") and n.endswith(".safetensors"))]
    return sorted([n for n in names if n in WANTED] + weights)


def problems(path: Path) -> list[str]:
    """What is wrong with the folder; empty when nothing is."""
    config, found = load(path / "config.json")
    if config is None:
        return found
    if config.get("model_type") != "whisper":
        return [f"config.json is of a model of type {config.get('model_type')!r}, not whisper"]
    try:
        headers = {name: header(path / name) for name in shards(path)}
    except Damaged as error:
        return [str(error)]
    found += weight_problems(path, headers)
    if not (path / "tokenizer.json").is_file() and not (
        (path / "vocab.json").is_file() and (path / "merges.txt").is_file()
    ):
        found.append("tokenizer.json is missing (and there are no vocab.json and merges.txt)")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"):
        if (path / name).is_file():
            found += load(path / name)[1]
    # transformers takes languages, tasks and time tokens from it, and refuses --language without.
    found += load(path / "generation_config.json")[1]
    stored = _mels(headers)
    said = config.get("num_mel_bins", stored)
    if stored is not None and said != stored:
        found.append(f"config.json says {said} mel bands, and the weights have {stored}")
    return found + mel_problems(path, stored or said, required=True)


def shape(path: Path) -> Shape:
    """The model's dimensions, from config.json; raises Damaged."""
    config, found = load(path / "config.json")
    if config is None:
        raise Damaged(found[0])
    return Shape(
        vocabulary=_whole(config.get("vocab_size")),
        mels=_whole(config.get("num_mel_bins")),
        encoder_layers=_whole(config.get("encoder_layers")),
        decoder_layers=_whole(config.get("decoder_layers")),
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def shards(path: Path) -> list[str]:
    """Names of the files with weights; raises Damaged."""
    if (path / WEIGHTS).is_file():
        return [WEIGHTS]
    if (path / INDEX).is_file():
        index, found = load(path / INDEX)
        places = index.get("weight_map") if index else None
        if found or not isinstance(places, dict) or not places:
            raise Damaged(found[0] if found else f"{INDEX} has no weight_map")
        names = sorted({str(name) for name in places.values()})
        if any(PurePosixPath(name).name != name for name in names):
            raise Damaged(f"{INDEX} names files outside the folder")
        return names
    if (path / PICKLED).is_file():
        raise Damaged(
            f"the weights are in {PICKLED}, a pickle, which can run code when it is loaded: take a revision "
            f"with {WEIGHTS}, or convert it once, if you trust it, with transformers' save_pretrained()"
        )
    raise Damaged(f"{WEIGHTS} is missing")


def header(path: Path) -> dict[str, Any]:
    """A safetensors file's header; raises Damaged when the file is not as long as it says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
            if length > min(LONGEST_HEADER, size - 8):
                raise Damaged(f"{path.name} is truncated, or no safetensors file")
            header = json.loads(file.read(length))
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"{path.name} has a header that is not safetensors'") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        state = "truncated" if size < expected else "too long"
        raise Damaged(f"{path.name} is {state}: it has {size} bytes, and its header says {expected}")
    return dict(header)


def weight_problems(path: Path, headers: dict[str, dict[str, Any]]) -> list[str]:
    if list(headers) == [WEIGHTS]:
        return []
    index, _ = load(path / INDEX)
    lost = [name for name, shard in index["weight_map"].items() if name not in headers[shard]]
    return [f"{len(lost)} tensors of {INDEX} are not in their files (first: {lost[0]})"] if lost else []


def _mels(headers: dict[str, dict[str, Any]]) -> int | None:
    for header in headers.values():
        extents = header.get(FIRST_CONVOLUTION, {}).get("shape")
        if extents and len(extents) == 3:
            return int(extents[1])
    return None
