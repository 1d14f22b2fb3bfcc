"""An ONNX graph, built node by node and written as protobuf by hand (onnx/onnx.proto): no package is needed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from kuulo.miniature.weights import State

IR_VERSION, OPSET = 8, 17
TYPES = {"float32": 1, "int64": 7}

Shape = Sequence[int | str]


class Graph:
    """An ONNX graph that grows node by node; values are known by their names."""

    def __init__(self, name: str, state: State) -> None:
        self.name = name
        self.state = state
        self._nodes: list[bytes] = []
        self._weights: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: float | Sequence[int]) -> str:
        """A node with one output, whose name it gives."""
        output = name or f"{kind.lower()}_{len(self._nodes)}"
        node = b"".join(_bytes(1, i.encode()) for i in inputs) + _bytes(2, output.encode())
        node += _bytes(3, output.encode()) + _bytes(4, kind.encode())
        node += b"".join(_bytes(5, _attribute(key, value)) for key, value in attributes.items())
        self._nodes.append(_bytes(1, node))
        return output

    def weight(self, name: str) -> str:
        """A tensor of the model, by openai-whisper's name."""
        return self.constant(self.state[name], name)

    def constant(self, value: Any, name: str = "") -> str:
        array = np.asarray(value)
        if array.dtype.kind == "i":
            array = array.astype(np.int64)
        name = name or f"constant_{len(self._weights)}"
        self._weights.setdefault(name, _tensor(name, array))
        return name

    def input(self, name: str, kind: str, shape: Shape) -> str:
        self._inputs.append(_bytes(11, _value_info(name, kind, shape)))
        return name

    def output(self, name: str, shape: Shape) -> None:
        self._outputs.append(_bytes(12, _value_info(name, "float32", shape)))

    def model(self, metadata: dict[str, Any]) -> bytes:
        """The file's bytes."""
        graph = b"".join(self._nodes) + _bytes(2, self.name.encode())
        graph += b"".join(_bytes(5, weight) for weight in self._weights.values())
        graph += b"".join((*self._inputs, *self._outputs))
        opset = _bytes(1, b"") + _number(2, OPSET)
        pairs = (_bytes(1, key.encode()) + _bytes(2, str(value).encode()) for key, value in metadata.items())
        return (
            _number(1, IR_VERSION) + _bytes(2, b"kuulo") + _bytes(7, graph) + _bytes(8, opset)
            + b"".join(_bytes(14, pair) for pair in pairs)
        )  # fmt: skip


# Protobuf: each field is its number and wire type, then a number or a length and bytes


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _attribute(name: str, value: float | Sequence[int]) -> bytes:
    """An AttributeProto: a float, an int or ints."""
    label = _bytes(1, name.encode())
    if isinstance(value, float):
        return label + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, 1)
    if isinstance(value, int):
        return label + _number(3, value) + _number(20, 2)
    return label + b"".join(_number(8, one) for one in value) + _number(20, 7)


def _tensor(name: str, array: Any) -> bytes:
    """A TensorProto."""
    extents = b"".join(_number(1, extent) for extent in array.shape)
    data = np.ascontiguousarray(array).tobytes()
    return extents + _number(2, TYPES[str(array.dtype)]) + _bytes(8, name.encode()) + _bytes(9, data)


def _value_info(name: str, kind: str, shape: Shape) -> bytes:
    """A ValueInfoProto: an extent is a number, or a name where it may vary."""
    extents = (_bytes(2, e.encode()) if isinstance(e, str) else _number(1, e) for e in shape)
    tensor = _number(1, TYPES[kind]) + _bytes(2, b"".join(_bytes(1, extent) for extent in extents))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))
