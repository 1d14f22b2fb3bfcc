"""sherpa-onnx's model: a folder with the encoder and the decoder as ONNX files, and a list of tokens.

Of a folder or repository that has both, the int8 files are the model: see `engines/onnx_file.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

from kuulo.engines import onnx_file
from kuulo.engines.onnx_file import WhisperFiles
from kuulo.models.binary import Damaged
from kuulo.models.shape import Shape

NAME = "ONNX (sherpa-onnx)"

BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
"""A token; Whisper's own list has an empty one written as a single `=`."""

LONGEST_LINE = 1000
"""Characters of a line of the tokens; the longest token of Whisper has 128 bytes."""


def matches(path: Path) -> bool:
    """Whether the folder has this format's main files."""
    return _files(path) is not None


def wanted(names: list[str]) -> list[str]:
    """Those of a repository's files that make the model: one encoder, its decoder, their tokens and weights."""
    found = onnx_file.whisper_files(names)
    return list(found.all) if found else []


def problems(path: Path) -> list[str]:
    """What is wrong with the folder; empty when nothing is."""
    files = _files(path)
    if files is None:
        return ["encoder.onnx, decoder.onnx and tokens.txt are not all there"]
    found: list[str] = []
    try:
        encoder, decoder = (onnx_file.read(path / name) for name in (files.encoder, files.decoder))
    except onnx_file.Broken as error:
        return [str(error)]
    missing = onnx_file.missing_metadata(encoder.metadata)
    if missing:
        found.append(f"{files.encoder} has no metadata {missing[0]!r}: it was not exported for sherpa-onnx")
    if "logits" not in decoder.outputs:
        found.append(f"{files.decoder} gives no logits: it is no Whisper's decoder")
    for name in dict.fromkeys((*encoder.weights, *decoder.weights)):
        if Path(name).name != name:
            found.append(f"weights are said to be outside the folder: {name}")
        elif not (path / name).is_file():
            found.append(f"{name} is missing, which holds weights")
    tokens = encoder.metadata.get("eot", "")
    return found + _token_problems(path / files.tokens, int(tokens) if tokens.isdecimal() else 0)


def shape(path: Path) -> Shape:
    """The model's dimensions, from the encoder's metadata; raises Damaged."""
    files = _files(path)
    if files is None:
        raise Damaged("encoder.onnx, decoder.onnx and tokens.txt are not all there")
    try:
        said = onnx_file.read(path / files.encoder).metadata
    except onnx_file.Broken as error:
        raise Damaged(str(error)) from error
    whole = {key: int(value) for key, value in said.items() if value.isdecimal()}
    return Shape(
        vocabulary=whole.get("n_vocab"),
        mels=whole.get("n_mels"),
        encoder_layers=whole.get("n_audio_layer"),
        decoder_layers=whole.get("n_text_layer"),
    )


def _files(path: Path) -> WhisperFiles | None:
    return onnx_file.whisper_files(entry.name for entry in path.iterdir() if entry.is_file())


def _token_problems(path: Path, needed: int) -> list[str]:
    """Whether each line is a token in base64 and its number, and there are all that come before end of text."""
    seen = 0
    with path.open(encoding="ascii", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), 1):
            text, _, index = line.strip().partition(" ")
            if not BASE64.fullmatch(text):
                return [f"{path.name} has no token in base64 in line {number}"]
            if not index.isdecimal():
                return [f"{path.name} has no number of a token in line {number}"]
            seen += 1
    return [f"{path.name} has {seen} tokens of {needed}: it is truncated"] if seen < needed else []
