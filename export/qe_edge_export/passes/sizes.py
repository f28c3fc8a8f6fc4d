"""Sizes are counted, not asked for: nothing in the graph is computed from the shape of a value.

ONNX Runtime keeps shapes in the memory of the host, and in a session for CUDA it runs on the CPU what is computed from
them alone (`GetCpuPreferredNodes`). Exporters write such arithmetic: how many positions there are, which shape a
Reshape has. Here positions are running sums over the inputs, on whatever device these lie, and shapes are constants
with 0 for a size that stays and -1 for one that follows.

Legend: B rows, S body tokens, P prefix tokens, T = P + S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from qe_edge_export.passes.linear import add_constant, constant, operand

BATCH, LENGTH, PREFIX, TOTAL = "batch", "length", "prefix", "total"
"""Names of the sizes that are free in an exported graph: B, S, P and T."""
TOTALS = (f"{LENGTH} + {PREFIX}", f"{PREFIX} + {LENGTH}", TOTAL)
"""What T may be called inside."""


def count_sizes(model: ir.Model) -> None:
    """Rewrite Reshape, Range, Expand over rows, and the number of prefix tokens, in place; the outputs stay the same.

    What is no such case stays as it is, with the shapes it reads.
    """
    counts = _Counts(model.graph)
    for node in list(model.graph):
        if node.op_type == "Reshape":
            _fix_shape(model.graph, node)
        elif node.op_type == "Range":
            _replace(node, counts.positions(_sizes(node.outputs[0])))
        elif node.op_type == "Expand" and not _fill(node):
            _spread(node, counts)
        elif node.op_type == "Squeeze" and _asked_of(node) == PREFIX:
            _replace(node, counts.prefix)


def _fix_shape(graph: ir.Graph, node: ir.Node) -> None:
    """Let the shape of a Reshape be a constant where sizes that it keeps stand where they stood."""
    before, after = _sizes(operand(node, 0)), _sizes(node.outputs[0])
    if constant(operand(node, 1)) is not None or before is None or after is None:
        return
    target = [
        size if isinstance(size, int) else 0 if before[index : index + 1] == [size] else -1
        for index, size in enumerate(after)
    ]
    if target.count(-1) > 1:
        return
    node.replace_input_with(1, add_constant(graph, f"{node.outputs[0].name}.shape", np.array(target, np.int64)))
    node.attributes.pop("allowzero", None)  # a 0 is the size that the input has


def _fill(node: ir.Node) -> bool:
    """A number for each of another value's: that value less itself, and the number. Whether the node is such a one."""
    number, shape = operand(node, 0), operand(node, 1).producer()
    if constant(number) is None or number.shape != () or shape is None or shape.op_type != "Shape":
        return False
    like = operand(shape, 0)
    if shape.attributes.get_int("start", 0) or "end" in shape.attributes or like.dtype != number.dtype:
        return False
    none = ir.Node("", "Sub", [like, like])
    assert node.graph is not None
    node.graph.insert_before(node, none)
    _put(node, ir.Node("", "Add", [none.outputs[0], number]))
    return True


def _spread(node: ir.Node, counts: _Counts) -> None:
    """Repeat a value for every row by adding zeros [B, 1, ..]."""
    before, after = _sizes(operand(node, 0)), _sizes(node.outputs[0])
    if before is None or after is None or after[0] != BATCH or before[-len(after) + 1 :] != after[1:]:
        return
    kind = operand(node, 0).dtype
    if kind not in (ir.DataType.FLOAT, ir.DataType.INT64):
        return
    _put(node, ir.Node("", "Add", [operand(node, 0), counts.zeros(kind, len(after))]))


@dataclass
class _Counts:
    """Values at the beginning of a graph that count its inputs; each is made when it is first asked for."""

    graph: ir.Graph
    made: dict[object, ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = next(iter(self.graph))
        self.inputs = {str(value.name): value for value in self.graph.inputs}

    def positions(self, sizes: list[int | str] | None) -> ir.Value | None:
        """0, 1, .. [B], [S] or [T], int64, if these are the sizes; else None."""
        if sizes == [BATCH]:
            return self._running("rows", self._none_of_rows)
        if sizes == [LENGTH]:
            return self._running("body", self._none_of_body)
        if sizes is not None and len(sizes) == 1 and sizes[0] in TOTALS:
            return self._running("all", self._none_of_all)
        return None

    @property
    def prefix(self) -> ir.Value:
        """P, a scalar: how far the last of all positions is from the last of the body."""
        ends = [
            self._node("Gather", self.positions([size]), self._constant("last", -1), name=f"last_of_{name}")
            for name, size in (("all", TOTALS[0]), ("body", LENGTH))
        ]
        return self._node("Sub", *ends, name="prefix")

    def zeros(self, kind: ir.DataType, rank: int) -> ir.Value:
        """[B, 1, ..] of this rank."""
        axes = self._constant(f"axes_{rank}", list(range(1, rank)))
        column = self._node("Unsqueeze", self._none_of_rows, axes, name=f"rows_{rank}")
        if kind == ir.DataType.INT64:
            return column
        return self._node("Cast", column, name=f"rows_{rank}_{kind.name}", to=kind)

    @property
    def _none_of_rows(self) -> ir.Value:
        """Zeros [B]"""
        return self._none(self.inputs["last"], "rows")

    @property
    def _none_of_body(self) -> ir.Value:
        """Zeros [S]"""
        row = self._node("Gather", self.inputs["tokens"], self._constant("first", 0), name="row", axis=0)
        return self._none(row, "body")

    @property
    def _none_of_all(self) -> ir.Value:
        """Zeros [T]"""
        column = self.inputs["past_key_0"]  # [1, G, P, D]
        for axis in (3, 1, 0):
            column = self._node("Gather", column, self._constant("first", 0), name=f"column_{axis}", axis=axis)
        # an integer less itself is 0, a key that is no number would not be
        numbers = self._node("Cast", column, name="past", to=ir.DataType.INT64)
        return self._node("Concat", self._none(numbers, "past"), self._none_of_body, name="none_of_all", axis=0)

    def _none(self, value: ir.Value, name: str) -> ir.Value:
        """As many zeros as a value has numbers, which are int64."""
        return self._node("Sub", value, value, name=f"none_of_{name}")

    def _running(self, name: str, zeros: ir.Value) -> ir.Value:
        """0, 1, .. as long as the zeros are."""
        ones = self._node("Add", zeros, self._constant("one", 1), name=f"ones_{name}")
        return self._node("CumSum", ones, self._constant("first", 0), name=f"positions_{name}", exclusive=1)

    def _node(self, operator: str, *inputs: ir.Value | None, name: str, **attributes: int) -> ir.Value:
        if name not in self.made:
            written = [ir.AttrInt64(key, int(value)) for key, value in attributes.items()]
            node = ir.Node("", operator, inputs, written)
            node.outputs[0].name = f"sizes.{name}"
            self.graph.insert_before(self.first, node)
            self.made[name] = node.outputs[0]
        return self.made[name]

    def _constant(self, name: str, numbers: int | Sequence[int]) -> ir.Value:
        key = f"constant {name}"
        if key not in self.made:
            self.made[key] = add_constant(self.graph, f"sizes.{name}", np.array(numbers, np.int64))
        return self.made[key]


def _asked_of(node: ir.Node) -> int | str | None:
    """The one size that Squeeze makes a scalar of, when it comes from a Shape."""
    shape = operand(node, 0).producer()
    if shape is None or shape.op_type != "Shape":
        return None
    start, end = (shape.attributes.get_int(name, None) for name in ("start", "end"))
    asked = (_sizes(operand(shape, 0)) or [])[start:end]
    return asked[0] if len(asked) == 1 else None


def _sizes(value: ir.Value) -> list[int | str] | None:
    """A shape as numbers and names."""
    if value.shape is None:
        return None
    return [size if isinstance(size, int) else str(size.value) for size in value.shape]


def _put(node: ir.Node, new: ir.Node) -> None:
    """Put a node before another, whose result is read no longer but that of the new one."""
    assert node.graph is not None
    node.graph.insert_before(node, new)
    _replace(node, new.outputs[0])


def _replace(node: ir.Node, value: ir.Value | None) -> None:
    """Let everything that reads a node's result read this instead, if there is one."""
    if value is None:
        return
    old = node.outputs[0]
    value.shape, value.type = value.shape or old.shape, value.type or old.type
    old.replace_all_uses_with(value)
