"""Nodes of a graph read whole, and graphs written with other nodes: the runtime has no onnx.

Numbers of fields and types: onnx/onnx.proto of ONNX 1.23.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qe_edge.scoring.kernels.packing import Place
from qe_edge.verification.onnx_fields import (
    ATTRIBUTE_INT,
    ATTRIBUTE_INTS,
    ATTRIBUTE_NAME,
    ATTRIBUTE_TYPE,
    ATTRIBUTES,
    DATA_LOCATION,
    DATA_TYPE,
    DIMS,
    ENTRY_KEY,
    ENTRY_VALUE,
    EXTERNAL,
    EXTERNAL_DATA,
    GRAPH,
    INITIALIZERS,
    INPUTS,
    INT,
    NODE_DOMAIN,
    NODE_INPUTS,
    NODE_OUTPUTS,
    NODES,
    OPERATOR,
    OPSET_DOMAIN,
    OPSETS,
    RAW_DATA,
    TENSOR_NAME,
    TENSOR_SHAPE,
    TENSOR_TYPE,
    VALUE_NAME,
    VALUE_TYPE,
)
from qe_edge.verification.wire import BYTES, FIXED32, SIZES, VARINT, Message, WireError, read_fields

ATTRIBUTE_FLOAT = 2
FLOAT = 1
"""value of ATTRIBUTE_TYPE"""
OPSET_VERSION = 2
ELEMENT_TYPE, DIMENSION, DIMENSION_SIZE = 1, 1, 1
INT8, INT32, BOOL = 3, 6, 9
"""values of ELEMENT_TYPE and DATA_TYPE"""

Attribute = int | float | tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A node with its attributes that are numbers. Negative whole numbers are negative here."""

    operator: str
    inputs: tuple[bytes, ...]
    """names of values; an optional one that is left out has none"""
    outputs: tuple[bytes, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""
    written: bytes = b""
    """as it stands in the file, for a node that was read"""


def read_node(data: bytes) -> Node:
    """A NodeProto. Raises WireError for bytes that are none."""
    message = Message(data, None)
    attributes = {}
    for attribute in (Message(found, None) for found in message.all_bytes(ATTRIBUTES)):
        value: Attribute = tuple(_signed(number) for number in attribute.all_numbers(ATTRIBUTE_INTS))
        if attribute.one_number(ATTRIBUTE_TYPE) == INT:
            value = _signed(attribute.one_number(ATTRIBUTE_INT))
        elif attribute.one_number(ATTRIBUTE_TYPE) == FLOAT:
            value = _float(attribute.one_bytes(ATTRIBUTE_FLOAT) or bytes(4))
        attributes[_text(attribute.one_bytes(ATTRIBUTE_NAME))] = value
    return Node(
        _text(message.one_bytes(OPERATOR)),
        tuple(message.all_bytes(NODE_INPUTS)),
        tuple(message.all_bytes(NODE_OUTPUTS)),
        attributes,
        _text(message.one_bytes(NODE_DOMAIN)),
        data,
    )


def with_nodes(
    model: bytes,
    nodes: Iterable[Node],
    domain: str,
    flags: Sequence[str],
    constants: Mapping[bytes, NDArray[np.int32]],
    given: Mapping[bytes, Place],
) -> bytes:
    """The ModelProto with these nodes instead of its own, one more domain of operators, more inputs, bool [1], and more
    constants.

    given: constants of int8 that ONNX Runtime is given in memory, and a place in a file that it looks for all the same.
    """
    graph = Message(model, None).one_bytes(GRAPH)
    written = b"".join(_bytes(NODES, node.written or _node(node)) for node in nodes)
    written += _without(NODES, graph) + b"".join(_bytes(INPUTS, _flag(name)) for name in flags)
    written += b"".join(_bytes(INITIALIZERS, _constant(name, values)) for name, values in constants.items())
    written += b"".join(_bytes(INITIALIZERS, _elsewhere(name, place)) for name, place in given.items())
    opset = _bytes(OPSET_DOMAIN, domain.encode()) + _number(OPSET_VERSION, 1)
    return _without(GRAPH, model) + _bytes(OPSETS, opset) + _bytes(GRAPH, written)


def _without(number: int, message: bytes) -> bytes:
    """A message without one of its fields."""
    return b"".join(written for found, _, written in read_fields(message, None) if found != number)


def _node(node: Node) -> bytes:
    parts = [_bytes(NODE_INPUTS, name) for name in node.inputs]
    parts += [_bytes(NODE_OUTPUTS, name) for name in node.outputs]
    parts += [_bytes(OPERATOR, node.operator.encode()), _bytes(NODE_DOMAIN, node.domain.encode())]
    for name, value in node.attributes.items():
        content = _bytes(ATTRIBUTE_NAME, name.encode())
        if isinstance(value, float):
            content += _tag(ATTRIBUTE_FLOAT, FIXED32) + struct.pack("<f", value) + _number(ATTRIBUTE_TYPE, FLOAT)
        elif isinstance(value, int):
            content += _number(ATTRIBUTE_INT, value) + _number(ATTRIBUTE_TYPE, INT)
        else:
            raise TypeError(f"{node.operator}: attribute {name} is a list, which no node of ours has")
        parts.append(_bytes(ATTRIBUTES, content))
    return b"".join(parts)


def _flag(name: str) -> bytes:
    """ValueInfoProto of an input bool [1]."""
    shape = _bytes(DIMENSION, _number(DIMENSION_SIZE, 1))
    tensor = _number(ELEMENT_TYPE, BOOL) + _bytes(TENSOR_SHAPE, shape)
    return _bytes(VALUE_NAME, name.encode()) + _bytes(VALUE_TYPE, _bytes(TENSOR_TYPE, tensor))


def _constant(name: bytes, values: NDArray[np.int32]) -> bytes:
    """TensorProto of int32."""
    sizes = b"".join(_number(DIMS, size) for size in values.shape)
    content = values.astype("<i4").tobytes()
    return sizes + _number(DATA_TYPE, INT32) + _bytes(TENSOR_NAME, name) + _bytes(RAW_DATA, content)


def _elsewhere(name: bytes, place: Place) -> bytes:
    """TensorProto of int8 whose numbers are in a file."""
    sizes = b"".join(_number(DIMS, size) for size in place.shape)
    entries = {b"location": place.file.encode(), b"offset": b"%d" % place.offset}
    said = (_bytes(ENTRY_KEY, key) + _bytes(ENTRY_VALUE, value) for key, value in entries.items())
    content = sizes + _number(DATA_TYPE, INT8) + _bytes(TENSOR_NAME, name) + _number(DATA_LOCATION, EXTERNAL)
    return content + b"".join(_bytes(EXTERNAL_DATA, entry) for entry in said)


def _bytes(number: int, content: bytes) -> bytes:
    return _tag(number, BYTES) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _tag(number, VARINT) + _varint(value % (1 << 64))


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def _float(content: bytes) -> float:
    if len(content) != SIZES[FIXED32]:
        raise WireError(f"holds a float of {len(content)} bytes")
    value: float = struct.unpack("<f", content)[0]
    return value


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
