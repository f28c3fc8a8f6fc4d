"""Finding and rewriting the linear layers of an exported graph: MatMul with a constant, and the bias added after it.

Legend: K input channels, N output channels (the columns of a weight [K, N]).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FLOAT = "qe_edge.float"
"""Metadata key of the product of a linear layer that stays in float32 whatever the precision."""


@dataclass(frozen=True)
class Linear:
    """`product` is MatMul([.., K], constant [K, N]); `bias` the Add of a constant [N] that alone reads it, or None."""

    product: ir.Node
    bias: ir.Node | None

    @property
    def input(self) -> ir.Value:
        """The activation [.., K]."""
        return operand(self.product, 0)

    @property
    def output(self) -> ir.Value:
        """The result [.., N], bias included."""
        return (self.bias or self.product).outputs[0]

    @property
    def stays_float(self) -> bool:
        """Whether the layer is marked to be left in float32."""
        return FLOAT in self.product.metadata_props

    @property
    def weight(self) -> Floats:
        """[K, N]"""
        return required_constant(operand(self.product, 1))

    @property
    def bias_values(self) -> Floats | None:
        """[N], or None without a bias."""
        return None if self.bias is None else required_constant(operand(self.bias, _constant_side(self.bias)))

    def set_weight(self, weight: Floats) -> None:
        set_constant(self.product, 1, weight, "weight")

    def scale_columns(self, start: int, stop: int, factor: Floats) -> None:
        """Multiply output channels start..stop-1 by `factor` [stop - start]."""
        weight = self.weight.copy()
        weight[:, start:stop] *= factor
        self.set_weight(weight)
        if self.bias is not None and (values := self.bias_values) is not None:
            values = values.copy()
            values[start:stop] *= factor
            set_constant(self.bias, _constant_side(self.bias), values, "bias")


class Columns(NamedTuple):
    """A value that holds output channels start..stop-1 of a linear layer."""

    value: ir.Value
    start: int
    stop: int


def linears(model: ir.Model) -> list[Linear]:
    """Every linear layer of the graph with a float32 weight, in graph order."""
    found = (as_linear(node) for node in model.graph)
    return [linear for linear in found if linear is not None]


def linears_by_input(model: ir.Model) -> dict[ir.Value, list[Linear]]:
    """Linear layers grouped by the activation that they read, in graph order."""
    groups: dict[ir.Value, list[Linear]] = {}
    for linear in linears(model):
        groups.setdefault(linear.input, []).append(linear)
    return groups


def as_linear(node: ir.Node) -> Linear | None:
    """The linear layer whose product is this node, or None when it is something else."""
    if node.op_type != "MatMul" or node.domain:
        return None
    weight = constant(operand(node, 1))
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or constant(operand(node, 0)) is not None:
        return None
    result = node.outputs[0]
    readers = list(result.consumers())
    if len(readers) == 1 and readers[0].op_type == "Add" and not result.is_graph_output():
        side = _constant_side(readers[0])
        bias = constant(operand(readers[0], side))
        if bias is not None and bias.shape == (weight.shape[1],):
            return Linear(node, readers[0])
    return Linear(node, None)


def linear_before(value: ir.Value) -> Linear | None:
    """The linear layer whose output (after its bias) is `value`, or None."""
    node = value.producer()
    if node is not None and node.op_type == "Add":
        variable = operand(node, 1 - _constant_side(node))
        node = variable.producer()
    linear = None if node is None else as_linear(node)
    return linear if linear is not None and linear.output is value else None


def column_readers(linear: Linear) -> list[Columns]:
    """The values through which output channels are read: the pieces of a Split or of Slices, or the output as it is."""
    width = linear.weight.shape[1]
    whole = [Columns(linear.output, 0, width)]
    if linear.output.is_graph_output():
        return whole
    found: list[Columns] = []
    for node in linear.output.consumers():
        pieces = _split_columns(node, width) if node.op_type == "Split" else _slice_columns(node, width)
        if pieces is None:
            return whole
        found += pieces
    return found


def columns_of(value: ir.Value) -> tuple[Linear, Columns] | None:
    """The linear layer and the channels that `value` holds, if nothing else reads those channels; otherwise None."""
    producer = value.producer()
    if producer is None:
        return None
    source = operand(producer, 0) if producer.op_type in ("Split", "Slice") else value
    linear = linear_before(source)
    if linear is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    readers = column_readers(linear)
    own = [reader for reader in readers if reader.value is value]
    others = [reader for reader in readers if reader.value is not value]
    if len(own) != 1 or any(other.start < own[0].stop and own[0].start < other.stop for other in others):
        return None
    return linear, own[0]


def operand(node: ir.Node, index: int) -> ir.Value:
    """An input that the operator requires. Raises ValueError when it is missing."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise ValueError(f"{node.op_type} {node.name}: input {index} is missing")
    return value


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of an initializer, or None for a value that is computed or fed."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.const_value is None:
        return None
    return value.const_value.numpy()


def required_constant(value: ir.Value) -> NDArray[Any]:
    """The array of an initializer. Raises ValueError for any other value."""
    array = constant(value)
    if array is None:
        raise ValueError(f"{value.name}: a constant is expected here")
    return array


def add_constant(graph: ir.Graph, stem: str, array: NDArray[Any]) -> ir.Value:
    """A new initializer, named after `stem`; existing ones are never changed, since nodes may share them."""
    name, count = stem, 1
    while name in graph.initializers:
        count += 1
        name = f"{stem}_{count}"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def set_constant(node: ir.Node, index: int, array: NDArray[Any], kind: str) -> None:
    """Give a node a constant input of its own."""
    if not isinstance(node.graph, ir.Graph):
        raise ValueError(f"{node.op_type} {node.name} is in no graph")
    node.replace_input_with(index, add_constant(node.graph, f"{node.outputs[0].name}.{kind}", array))


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old` read `new`, which takes its name and type and its place among the graph's outputs."""
    name, old.name = old.name, f"{old.name}.replaced"
    new.name, new.type, new.shape = name, old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def last_axis(node: ir.Node, axis: int) -> bool:
    """Whether `axis` is the last one of the node's first input; False when the rank is not known."""
    shape = operand(node, 0).shape
    return axis == -1 or (shape is not None and axis == shape.rank() - 1)


def _constant_side(node: ir.Node) -> int:
    """Which operand of an Add is the constant: 0, or else 1."""
    return 0 if constant(operand(node, 0)) is not None else 1


def _split_columns(node: ir.Node, width: int) -> list[Columns] | None:
    if not last_axis(node, node.attributes.get_int("axis", 0)):
        return None
    sizes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None:
        count = len(node.outputs)
        each = -(-width // count)  # as ONNX Split does: equal pieces, the last one smaller
        sizes = np.array([min(each, width - each * piece) for piece in range(count)])
    stops = np.cumsum(sizes)
    return [
        Columns(output, int(stop - size), int(stop))
        for output, size, stop in zip(node.outputs, sizes, stops, strict=True)
    ]


def _slice_columns(node: ir.Node, width: int) -> list[Columns] | None:
    if node.op_type != "Slice" or len(node.inputs) < 4:
        return None
    parts = [constant(value) for value in node.inputs[1:]]
    if any(part is None or part.size != 1 for part in parts):
        return None
    start, stop, axis, step = (int(part.item()) for part in [*parts, np.array(1)][:4] if part is not None)
    if step != 1 or not last_axis(node, axis):
        return None
    start, stop, _ = slice(start, stop).indices(width)
    return [Columns(node.outputs[0], start, stop)]
