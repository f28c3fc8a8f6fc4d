"""Inputs and outputs of a graph: tensors with names that are text, which the runtime reads back from ONNX Runtime."""

from __future__ import annotations

from qe_edge.verification.onnx_fields import (
    DIM_NAME,
    DIMENSION_FIELDS,
    DIMENSIONS,
    SHAPE_FIELDS,
    TENSOR_SHAPE,
    TENSOR_TYPE,
    TENSOR_TYPE_FIELDS,
    TYPE_FIELDS,
    VALUE_FIELDS,
    VALUE_NAME,
    VALUE_TYPE,
)
from qe_edge.verification.refusal import shown
from qe_edge.verification.wire import Message, WireError


def read_value(data: bytes) -> bytes:
    """The name of a ValueInfoProto. Raises WireError unless it is a tensor and its names are UTF-8."""
    value = Message(data, VALUE_FIELDS)
    name = _text(value.one_bytes(VALUE_NAME))
    kind = Message(value.one_bytes(VALUE_TYPE), TYPE_FIELDS)
    tensor = Message(kind.one_bytes(TENSOR_TYPE), TENSOR_TYPE_FIELDS)
    shape = Message(tensor.one_bytes(TENSOR_SHAPE), SHAPE_FIELDS)
    for dimension in shape.all_bytes(DIMENSIONS):
        _text(Message(dimension, DIMENSION_FIELDS).one_bytes(DIM_NAME))
    return name


def _text(name: bytes) -> bytes:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError(f"has an input or output with the name {shown(name)}, which is not UTF-8") from None
    return name
