"""`model.onnx` held against what an export writes: bounded, flat, of known operators, its weights where they belong.

Nothing is computed. The numbers of the weights are not looked at: whatever they are, they make scores wrong at worst.
"""

from __future__ import annotations

from pathlib import Path

from qe_edge.verification.files import MIB, check_plain, read_bounded
from qe_edge.verification.growth import check_growth
from qe_edge.verification.nodes import check_order, read_node
from qe_edge.verification.onnx_fields import (
    GRAPH,
    GRAPH_FIELDS,
    INITIALIZERS,
    INPUTS,
    MODEL_FIELDS,
    NODES,
    OPSET_DOMAIN,
    OPSET_FIELDS,
    OPSETS,
    OUTPUTS,
)
from qe_edge.verification.operands import check_operands
from qe_edge.verification.operators import check_domain
from qe_edge.verification.refusal import refusal
from qe_edge.verification.tensors import read_tensor
from qe_edge.verification.values import read_value
from qe_edge.verification.wire import Message, WireError

MODEL_BYTES = 4 * MIB
"""The largest graph; a block takes about 10 KiB, its weights lie outside."""
NODE_COUNT = 20_000
"""most nodes of a graph; a block takes about 70"""
TENSOR_COUNT = 20_000
"""most constants of a graph"""


def check_model(path: Path, weights: Path) -> str:
    """Verify a graph and where it says that its weights lie; what was found, in a line.

    Raises BundleError for anything that `qe-edge export` does not write (docs/bundle.md).
    """
    data = read_bounded(path, MODEL_BYTES)
    check_plain(weights)
    try:
        return _check(data, weights.name.encode(), weights.stat().st_size)
    except WireError as error:
        raise refusal(path, str(error)) from None


def _check(data: bytes, weights_file: bytes, weights_bytes: int) -> str:
    model = Message(data, MODEL_FIELDS)
    for opset in model.all_bytes(OPSETS):
        check_domain(Message(opset, OPSET_FIELDS).one_bytes(OPSET_DOMAIN))
    graph = Message(model.one_bytes(GRAPH), GRAPH_FIELDS)
    nodes, initializers = graph.all_bytes(NODES), graph.all_bytes(INITIALIZERS)
    if not nodes:
        raise WireError("has no graph with nodes")
    if len(nodes) > NODE_COUNT:
        raise WireError(f"has {len(nodes)} nodes, more than {NODE_COUNT}")
    if len(initializers) > TENSOR_COUNT:
        raise WireError(f"has {len(initializers)} constants, more than {TENSOR_COUNT}")
    inputs = [read_value(value) for value in graph.all_bytes(INPUTS)]
    for value in graph.all_bytes(OUTPUTS):
        read_value(value)
    tensors = [read_tensor(initializer, weights_file, weights_bytes) for initializer in initializers]
    names = {tensor.name for tensor in tensors}
    if len(names) < len(tensors):
        raise WireError("has two constants of the same name")
    if names.intersection(inputs):
        raise WireError("has an input with the name of a constant")
    outside = sum(tensor.outside for tensor in tensors)
    if outside > weights_bytes:
        raise WireError(f"reads {outside} bytes from {weights_file.decode()}, which has {weights_bytes}")
    read = [read_node(node) for node in nodes]
    check_order(read, names.union(inputs))
    check_operands(read, tensors)
    check_growth(read, tensors, len(data) + weights_bytes)
    operators = {node.operator for node in read}
    return f"{len(nodes)} nodes of {len(operators)} operators, {len(tensors)} constants, {outside} bytes of weights"
