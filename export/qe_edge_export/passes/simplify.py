"""Passes that make an exported graph smaller and faster and leave what it computes as it is.

Legend: B rows, S tokens, K input channels, N output channels.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from qe_edge_export.passes.linear import (
    constant,
    last_axis,
    operand,
    replace_value,
)

ROWWISE = {
    "Add", "Sub", "Mul", "Div", "Neg", "Sigmoid", "Tanh", "Erf", "Gelu", "Swish", "Relu", "Cast", "Sqrt", "Pow",
    "MatMul", "RMSNormalization", "LayerNormalization", "ReduceMean", "Split",
}  # fmt: skip
"""Operators that, on the last axis, treat every position of [B, S, ..] apart."""


def simplify(model: ir.Model) -> None:
    """Share, shorten and tidy, in place: same inputs, same outputs, less to compute.

    Layers that read one input stay apart: one product and a Split were slower (docs/quantisation.md).
    """
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    share_subexpressions(model)
    read_last_position_early(model)
    remove_unused(model)


def share_subexpressions(model: ir.Model) -> None:
    """Compute equal things once: exporters repeat the cosines and sines of the rotary embedding for every use."""
    common.CommonSubexpressionEliminationPass()(model)


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and initializers that no output depends on."""
    common.RemoveUnusedNodesPass()(model)


def read_last_position_early(model: ir.Model) -> None:
    """After the last attention only one position of each row is read: pick it before the layers that follow.

    The state of the highest tap is GatherND(hidden [B, S, H], (row, last)). Everything between the last attention and
    that gather works on each position apart, so it may as well run on the picked positions, [B, H] instead of
    [B, S, H]. What other outputs need (keys and values, states of lower taps) is computed in full as before. Does
    nothing where the graph has another form or shapes are unknown.
    """
    for output in list(model.graph.outputs):
        gather = output.producer()
        if gather is not None and gather.op_type == "GatherND":
            _pick_before(model.graph, gather)


def _pick_before(graph: ir.Graph, gather: ir.Node) -> None:
    """Move one gather to where the nodes begin that only it depends on."""
    hidden, positions = operand(gather, 0), operand(gather, 1)
    if hidden.shape is None or hidden.shape.rank() != 3:
        return
    tail = _positionwise_tail(gather, hidden)
    if not tail:
        return
    entering = {value for node in tail for value in _variables(node) if value.producer() not in tail}
    for value in entering:
        picked = ir.node("GatherND", [value, positions], {"batch_dims": 0})
        picked.outputs[0].type = value.type
        picked.outputs[0].shape = _without_positions(value)
        graph.insert_before(gather, picked)
        for use in [use for use in value.uses() if use.node in tail]:
            use.node.replace_input_with(use.idx, picked.outputs[0])
    for node in tail:
        if "axis" in node.attributes:
            node.attributes["axis"] = ir.AttrInt64("axis", -1)
        for output in node.outputs:
            output.shape = _without_positions(output)
    replace_value(gather.outputs[0], hidden)
    graph.remove(gather, safe=True)
    graph.sort()  # the positions and the picks stand behind their readers until here


def _positionwise_tail(gather: ir.Node, hidden: ir.Value) -> list[ir.Node]:
    """Nodes whose results only the gather depends on and that treat positions apart, last one first."""
    if hidden.shape is None or not isinstance(gather.graph, ir.Graph):
        return []
    rows_and_positions = hidden.shape.dims[:2]
    tail: list[ir.Node] = []
    inside = {gather}
    for node in reversed(gather.graph):
        if node is gather or not _treats_positions_apart(node):
            continue
        values = [*_variables(node), *node.outputs]
        if any(value.shape is None or value.shape.rank() != 3 for value in values):
            continue
        if any(value.shape.dims[:2] != rows_and_positions for value in values if value.shape is not None):
            continue
        if any(value.is_graph_output() for value in node.outputs):
            continue
        readers = {reader for value in node.outputs for reader in value.consumers()}
        if readers and readers <= inside:
            tail.append(node)
            inside.add(node)
    return tail


def _treats_positions_apart(node: ir.Node) -> bool:
    if node.op_type not in ROWWISE or node.domain:
        return False
    constants = [array for value in node.inputs if (array := constant(value)) is not None]
    if node.op_type == "MatMul":
        return constant(node.inputs[1]) is not None and constants[-1].ndim == 2
    if node.op_type == "ReduceMean":
        return len(constants) == 1 and constants[0].tolist() == [-1] and node.attributes.get_int("keepdims", 1) == 1
    if any(array.ndim > 1 for array in constants):
        return False
    return "axis" not in node.attributes or last_axis(node, node.attributes.get_int("axis"))


def _variables(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and constant(value) is None]


def _without_positions(value: ir.Value) -> ir.Shape:
    if value.shape is None:
        raise ValueError(f"{value.name}: its shape must be known here")
    return ir.Shape([value.shape.dims[0], *value.shape.dims[2:]])
