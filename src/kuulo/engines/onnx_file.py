"""Which files of a folder are an ONNX Whisper, and what an ONNX file says of itself: metadata, outputs, weights.

Lengths are read and what they count is passed over, so that a file of gigabytes takes milliseconds. The layout is that
of onnx/onnx.proto in Protocol Buffers' wire format. Standard library alone; parses on Python 3.9.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

# Field numbers of onnx.proto
MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 5, 11, 12
VALUE_NAME = 1
TENSOR_EXTERNAL = 13
ENTRY_KEY, ENTRY_VALUE = 1, 2

VARINT, EIGHT_BYTES, COUNTED, FOUR_BYTES = 0, 1, 2, 5
LONGEST_TEXT = 1_000_000
"""Bytes; no name and no metadata of a Whisper is longer."""


METADATA = (
    "n_mels", "n_text_layer", "n_text_ctx", "n_text_state", "n_vocab", "sot", "eot", "blank_id", "translate",
    "transcribe", "is_multilingual", "no_timestamps", "no_speech", "sot_sequence",
)  # fmt: skip
"""What sherpa-onnx reads from a Whisper's encoder; without one of them it ends the process
(sherpa-onnx/csrc/offline-whisper-model.cc)."""

LANGUAGES = "all_language_codes"
"""Metadata of a multilingual Whisper: its languages, separated by commas."""

MULTILINGUAL = "is_multilingual"

NETWORK = re.compile(r"(|.*-)(encoder|decoder)(\.int8)?\.onnx")
WEIGHTS = re.compile(r"(?:encoder|decoder)(?:\.onnx)?[._](?:weights|data)")


def missing_metadata(metadata: Mapping[str, str]) -> List[str]:
    """What sherpa-onnx needs of an encoder's metadata and does not find."""
    needed = (*METADATA, *((LANGUAGES,) if metadata.get(MULTILINGUAL) == "1" else ()))
    return [key for key in needed if not metadata.get(key)]


@dataclass(frozen=True)
class WhisperFiles:
    """Names of a Whisper's files in one folder."""

    encoder: str
    decoder: str
    tokens: str
    int8: bool
    weights: Tuple[str, ...] = ()

    @property
    def all(self) -> Tuple[str, ...]:
        return tuple(sorted((self.encoder, self.decoder, self.tokens, *self.weights)))


def whisper_files(names: Iterable[str]) -> Optional[WhisperFiles]:
    """Those of a folder's or repository's file names that make the model: `[NAME-]encoder.onnx`, `decoder`,
    `tokens.txt`, or, where they are there too, `.int8.onnx`, which are a quarter of the size. None when something is
    missing."""
    there = set(names)
    found: Dict[Tuple[bool, str], Dict[str, str]] = {}
    for name in there:
        match = NETWORK.fullmatch(name)
        if match:
            found.setdefault((match[3] is None, match[1]), {})[match[2]] = name
    for (whole, prefix), pair in sorted(found.items()):
        tokens = next((name for name in (f"{prefix}tokens.txt", "tokens.txt") if name in there), None)
        if len(pair) == 2 and tokens:
            beside = [n for n in there if n.startswith(prefix) and WEIGHTS.fullmatch(n[len(prefix) :])]
            return WhisperFiles(
                pair["encoder"], pair["decoder"], tokens, not whole, tuple(sorted(beside)) if whole else ()
            )
    return None


class Broken(Exception):
    """The file is no ONNX, or not all of it; the message is one clause for people."""


@dataclass(frozen=True)
class OnnxFile:
    """`weights`: names of the files beside it that hold weights; none when it holds them all itself."""

    metadata: Dict[str, str]
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    weights: Tuple[str, ...]


def read(path: Path) -> OnnxFile:
    """The file's description. Raises Broken, and OSError when it cannot be read."""
    with path.open("rb") as file:
        reader = _Reader(file, path.name)
        metadata: Dict[str, str] = {}
        graph = None
        for number, end in reader.fields(os.fstat(file.fileno()).st_size):
            if number == MODEL_METADATA:
                key, value = reader.entry(end)
                metadata[key] = value
            elif number == MODEL_GRAPH:
                graph = _graph(reader, end)
        if graph is None:
            raise Broken(f"{path.name} has no graph: it is no ONNX file")
        return OnnxFile(metadata, *graph)


def _graph(reader: "_Reader", end: int) -> Tuple[Tuple[str, ...], Tuple[str, ...], Tuple[str, ...]]:
    """Inputs, outputs, files with weights."""
    names: Dict[int, List[str]] = {GRAPH_INPUT: [], GRAPH_OUTPUT: []}
    weights: Dict[str, None] = {}
    for number, to in reader.fields(end):
        if number in names:
            for inner, stop in reader.fields(to):
                if inner == VALUE_NAME:
                    names[number].append(reader.text(stop))
        elif number == GRAPH_INITIALIZER:
            for inner, stop in reader.fields(to):
                if inner == TENSOR_EXTERNAL:
                    key, value = reader.entry(stop)
                    if key == "location":
                        weights[value] = None
    return tuple(names[GRAPH_INPUT]), tuple(names[GRAPH_OUTPUT]), tuple(weights)


class _Reader:
    """Walks messages. After each field that `fields` gives, the next one begins at its end, read or not."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name

    def fields(self, end: int) -> Iterator[Tuple[int, int]]:
        """(number, where its content ends) of each counted field up to `end`; the file stands at its content."""
        while self._file.tell() < end:
            tag = self._varint(end)
            kind = tag & 7
            if kind == VARINT:
                self._varint(end)
                continue
            size = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(kind, -1)
            if kind == COUNTED:
                size = self._varint(end)
            if size < 0 or tag >> 3 == 0:
                raise Broken(f"{self._name} is no ONNX file (byte {self._file.tell()})")
            stop = self._file.tell() + size
            if stop > end:
                raise Broken(f"{self._name} is truncated: it ends before what it says it has")
            if kind == COUNTED:
                yield tag >> 3, stop
            self._file.seek(stop)

    def text(self, end: int) -> str:
        """The text from here to `end`."""
        length = end - self._file.tell()
        if length > LONGEST_TEXT:
            raise Broken(f"{self._name} has a name of {length} bytes")
        return bytes(self._file.read(length)).decode("utf-8", errors="replace")

    def entry(self, end: int) -> Tuple[str, str]:
        """A StringStringEntryProto: key and value."""
        found = {ENTRY_KEY: "", ENTRY_VALUE: ""}
        for number, stop in self.fields(end):
            if number in found:
                found[number] = self.text(stop)
        return found[ENTRY_KEY], found[ENTRY_VALUE]

    def _varint(self, end: int) -> int:
        value = shift = 0
        while True:
            byte: bytes = self._file.read(1)
            if not byte or self._file.tell() > end or shift > 63:
                raise Broken(f"{self._name} is truncated, or no ONNX file")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
            shift += 7
