"""Half precision: linear layers, attention and what lies between them in float16, everything else in float32.

float16 has 11 bits and ends at 65504. What adds up over the blocks stays in float32: the residual stream, the
normalisations that read it, and the tapped states. What a block computes in between, keys and values included, is
float16. Inputs and outputs keep their types: past keys and values are float32 and cast inside.

A node is computed in float16 if it is a linear layer or an attention, or one of a few operators that read nothing but
what is float16 already. So the sum of the residual stream and a block's result, which reads both, is float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from qe_edge.errors import GateError
from qe_edge_export.calibrate import CalibrationRows, activation_ranges
from qe_edge_export.passes.embedding import token_lookup
from qe_edge_export.passes.linear import (
    add_constant,
    as_linear,
    constant,
    linears,
    operand,
    replace_value,
    required_constant,
)
from qe_edge_export.passes.simplify import remove_unused

LARGEST = float(np.finfo(np.float16).max)
HEADROOM = 2
"""How many times larger an activation may be on other rows than on those measured."""
REMEDY = "nothing was written; export with --precision fp32 or w8a8"

FLOATS = MappingProxyType(
    {
        "Attention": 3,  # queries, keys and values; the mask has a type of its own
        "RotaryEmbedding": 3,  # with cosines and sines
        **dict.fromkeys(("MatMul", "Add", "Mul"), 2),
        **dict.fromkeys(("Sigmoid", "Swish", "Gelu", "Tanh"), 1),
        **dict.fromkeys(("Reshape", "Transpose", "Slice", "Split", "Expand", "GatherND"), 1),
    }
)
"""By operator, how many of its inputs, from the first, are the numbers that it computes with; of Concat all are."""


def to_half(model: ir.Model, rows: CalibrationRows) -> None:
    """Compute in float16 as described above and store weights and embedding in float16, in place.

    rows: text like that to be scored; whole prompts are measured, since the first tokens may have the largest
    activations. Raises GateError when weights, or activations on these rows, are too large.
    """
    check_range(model, rows.whole_prompts())
    graph = model.graph
    _halve_embedding(graph)
    types = _Types(graph)
    for node in list(graph):
        if _computes_in_half(node, types.halves):
            types.compute_in_half(node)
        else:
            types.read_as_float(node)
    types.give_out_floats()
    remove_unused(model)


def check_range(model: ir.Model, rows: CalibrationRows) -> None:
    """Raise GateError when a linear layer reads or gives numbers that float16 may not hold, HEADROOM included."""
    layers = [linear for linear in linears(model) if not linear.stays_float]
    names = dict.fromkeys(str(value.name) for linear in layers for value in (linear.input, linear.output))
    ranges = activation_ranges(model, rows, list(names))
    largest = float(np.max([channels.max() for channels in ranges.values()]))  # unlike max(), nan if any is
    if not largest * HEADROOM <= LARGEST:
        raise GateError(
            f"fp16: activations reach {largest:.4g} on training rows, float16 ends at {LARGEST:.0f} "
            f"and {HEADROOM} times as much must fit; {REMEDY}"
        )


@dataclass
class _Types:
    """Which values of a graph are float16 by now, and the copies of values in the other type."""

    graph: ir.Graph
    halves: set[ir.Value] = field(default_factory=set)
    copies: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def compute_in_half(self, node: ir.Node) -> None:
        """Let a node read and give float16."""
        for index in _floats(node):
            value = operand(node, index)
            if value not in self.halves:
                node.replace_input_with(index, self._other(value, ir.DataType.FLOAT16, node))
        for output in node.outputs:
            output.type = ir.TensorType(ir.DataType.FLOAT16)
            self.halves.add(output)

    def read_as_float(self, node: ir.Node) -> None:
        """Let a node read float32 where what it read is float16 by now."""
        for index, value in enumerate(node.inputs):
            if value in self.halves:
                node.replace_input_with(index, self._other(operand(node, index), ir.DataType.FLOAT, node))

    def give_out_floats(self) -> None:
        """Let the graph's outputs be float32, under their names."""
        for index, value in enumerate(self.graph.outputs):
            if value not in self.halves:
                continue
            node = _cast(value, ir.DataType.FLOAT)
            self.graph.append(node)
            node.outputs[0].name, value.name = value.name, f"{value.name}.half"
            self.graph.outputs[index] = node.outputs[0]

    def _other(self, value: ir.Value, kind: ir.DataType, reader: ir.Node) -> ir.Value:
        """A value in the other type: a constant converted now, anything else cast where it is first read."""
        if value not in self.copies:
            if constant(value) is not None:
                self.copies[value] = _half_constant(self.graph, value)
            else:
                node = _cast(value, kind)
                self.graph.insert_before(reader, node)
                self.copies[value] = node.outputs[0]
        return self.copies[value]


def _computes_in_half(node: ir.Node, halves: set[ir.Value]) -> bool:
    """Whether a node, of which all before are decided, is computed in float16."""
    if node.domain:
        return False
    if node.op_type == "Attention":
        return True
    if node.op_type == "MatMul":
        linear = as_linear(node)
        return linear is not None and not linear.stays_float
    read = [operand(node, index) for index in _floats(node)]
    if node.op_type == "Concat":  # keys or values of the prefix, float32, with those of the body
        return any(value in halves for value in read)
    if node.op_type == "RotaryEmbedding":
        return read[0] in halves
    if node.op_type == "Add" and read[0].is_graph_input():  # a row's copy of the prefix, which is cast before it
        return True
    known = [value in halves or constant(value) is not None for value in read]
    return all(known) and any(value in halves for value in read)


def _floats(node: ir.Node) -> range:
    """Indices of the inputs that a node computes with, none for an operator that always stays in float32."""
    return range(len(node.inputs) if node.op_type == "Concat" else FLOATS.get(node.op_type, 0))


def _halve_embedding(graph: ir.Graph) -> None:
    """Store the embedding in float16 and cast the rows that are read."""
    lookup = token_lookup(graph)
    lookup.replace_input_with(0, _half_constant(graph, operand(lookup, 0)))
    node = _cast(lookup.outputs[0], ir.DataType.FLOAT)
    graph.insert_after(lookup, node)
    replace_value(lookup.outputs[0], node.outputs[0])
    node.replace_input_with(0, lookup.outputs[0])
    lookup.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)


def _half_constant(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """The constant in float16. Raises GateError when it holds numbers that float16 cannot."""
    array = required_constant(value)
    largest = float(np.abs(array).max())
    if not largest <= LARGEST:
        raise GateError(f"fp16: weights reach {largest:.4g}, float16 ends at {LARGEST:.0f}; {REMEDY}")
    return add_constant(graph, f"{value.name}.half", array.astype(np.float16))


def _cast(value: ir.Value, kind: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": kind})
    result = node.outputs[0]
    result.name, result.type, result.shape = f"{value.name}.{kind.name.lower()}", ir.TensorType(kind), value.shape
    return node
