"""Normalisations that the exporter left in parts, as one node each.

Where several normalisations read one value, as those of upper blocks that run on the last position alone do, torch's
exporter computes x / sqrt(mean(x^2) + epsilon) once, multiplies it by the weight of each, and knows none of them as a
normalisation. As one, with weights of 1, it stays in float32 in `fp16`, may have one step for all tokens in `w8a8`, and
consists of no operator that a bundle may not have.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qe_edge_export.passes.linear import add_constant, constant, last_axis, operand, replace_value

PARTS = ("Reciprocal", "Sqrt", "Add", "ReduceMean", "Pow")
"""From 1 / sqrt(mean(x^2) + epsilon) back to x."""


def whole_norms(model: ir.Model) -> None:
    """Let a product x / sqrt(mean(x^2) + epsilon) be one RMSNormalization, in place; what it needs no more stays."""
    for node in list(model.graph):
        found = _normalised(node) if node.op_type == "Mul" else None
        if found is None:
            continue
        value, epsilon = found
        width = None if value.shape is None else value.shape[-1]
        assert isinstance(width, int), f"{value.name}: the size of a state is fixed"
        ones = add_constant(model.graph, f"{node.outputs[0].name}.ones", np.ones(width, np.float32))
        norm = ir.node("RMSNormalization", [value, ones], {"axis": -1, "epsilon": epsilon, "stash_type": 1})
        model.graph.insert_before(node, norm)
        replace_value(node.outputs[0], norm.outputs[0])


def _normalised(product: ir.Node) -> tuple[ir.Value, float] | None:
    """The value x [.., K] that a product normalises, and epsilon; None for any other product."""
    for index in (0, 1):
        value, node = operand(product, 1 - index), operand(product, index).producer()
        chain: list[ir.Node] = []
        while node is not None and len(chain) < len(PARTS) and node.op_type == PARTS[len(chain)]:
            chain.append(node)
            node = operand(node, 0).producer()
        if len(chain) == len(PARTS) and operand(chain[-1], 0) is value:
            _, _, total, mean, square = chain
            epsilon, axes, power = (constant(operand(part, 1)) for part in (total, mean, square))
            if epsilon is None or axes is None or axes.size != 1 or not last_axis(mean, int(axes.item())) or power != 2:
                return None
            return value, float(epsilon)
    return None
