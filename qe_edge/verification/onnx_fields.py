"""The fields of ONNX's messages that a bundle's graph has, and in words those that it may not have.

Numbers and names: onnx/onnx.proto of ONNX 1.23. A field that is in none of the tables is refused too: what is not known
here cannot be checked. Metadata is refused because ONNX Runtime can be told to read its settings from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _fields(*allowed: int, **refused: int) -> Mapping[int, str]:
    """Number -> nothing for allowed fields, a description for refused ones (name with spaces as underscores)."""
    named = {number: words.replace("_", " ") for words, number in refused.items()}
    return MappingProxyType(dict.fromkeys(allowed, "") | named)


GRAPH, OPSETS = 7, 8
MODEL_FIELDS = _fields(
    *(1, 2, 3, 4, 5, 6),  # version of the format, producer, domain, model version, doc string
    *(GRAPH, OPSETS),
    metadata=14,
    training_information=20,
    functions=25,
    settings_of_several_devices=26,
)

OPSET_DOMAIN = 1
OPSET_FIELDS = _fields(OPSET_DOMAIN, 2)

NODES, INITIALIZERS, INPUTS, OUTPUTS = 1, 5, 11, 12
GRAPH_FIELDS = _fields(
    *(NODES, INITIALIZERS, INPUTS, OUTPUTS),
    *(2, 10, 13),  # name, doc string, shapes of values, which ONNX Runtime infers itself and compares
    quantisation_annotations=14,
    sparse_initialisers=15,
    metadata=16,
)

VALUE_NAME, VALUE_TYPE = 1, 2
VALUE_FIELDS = _fields(VALUE_NAME, VALUE_TYPE, 3, metadata=4)  # 3: doc string
TENSOR_TYPE = 1
TYPE_FIELDS = _fields(TENSOR_TYPE, 6, sequences=4, maps=5, opaque_values=7, sparse_tensors=8, optional_values=9)
TENSOR_SHAPE = 2
TENSOR_TYPE_FIELDS = _fields(1, TENSOR_SHAPE)  # 1: type of the numbers
DIMENSIONS = 1
SHAPE_FIELDS = _fields(DIMENSIONS)
DIM_NAME = 2
DIMENSION_FIELDS = _fields(1, DIM_NAME, 3)  # 1: size, 3: denotation

NODE_INPUTS, NODE_OUTPUTS, OPERATOR, ATTRIBUTES, NODE_DOMAIN = 1, 2, 4, 5, 7
NODE_FIELDS = _fields(
    *(NODE_INPUTS, NODE_OUTPUTS, OPERATOR, ATTRIBUTES, NODE_DOMAIN),
    *(3, 6),  # name, doc string
    an_overload=8,
    metadata=9,
    settings_of_several_devices=10,
)

ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_TYPE = 1, 3, 8, 20
INT = 2
"""value of ATTRIBUTE_TYPE for one whole number"""
ATTRIBUTE_FIELDS = _fields(
    *(ATTRIBUTE_NAME, 13, ATTRIBUTE_TYPE),  # 13: doc string
    *(2, ATTRIBUTE_INT, 4, 7, ATTRIBUTE_INTS, 9),  # one or several numbers or texts
    a_tensor=5,
    a_nested_graph=6,
    tensors=10,
    nested_graphs=11,
    a_type=14,
    types=15,
    a_reference_to_a_function=21,
    a_sparse_tensor=22,
    sparse_tensors=23,
)

DIMS, DATA_TYPE, TENSOR_NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 9, 13, 14
TENSOR_FIELDS = _fields(
    *(DIMS, DATA_TYPE, TENSOR_NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION),
    12,  # doc string
    a_segment=3,
    # numbers may only be written as raw data, whose length is their size
    float_data=4,
    int32_data=5,
    texts=6,
    int64_data=7,
    double_data=10,
    uint64_data=11,
    metadata=16,
)
EXTERNAL = 1
"""value of DATA_LOCATION for a tensor in another file"""

ENTRY_KEY, ENTRY_VALUE = 1, 2
ENTRY_FIELDS = _fields(ENTRY_KEY, ENTRY_VALUE)
