"""SmoothQuant (Xiao et al., 2022, arXiv 2211.10438): move activation outliers into the weights, exactly.

Per-token int8 gives all channels of a token one step, so one large channel costs all others their resolution. For
a linear layer x W and any s > 0, x W = (x / s) (diag(s) W). With

    s_j = max|x_j|^a / max|W_j|^(1 - a)        per input channel j, equation 4 of the paper

the large channels shrink and the weights take over. 1/s is folded into what produces x, so nothing is added to the
graph. s is divided by its geometric mean: a common factor would change nothing but the size of the numbers.

Legend: K input channels, N output channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from qe_edge_export.passes.linear import (
    Columns,
    Floats,
    Linear,
    columns_of,
    constant,
    last_axis,
    linears_by_input,
    operand,
    required_constant,
    set_constant,
)
from qe_edge_export.passes.simplify import remove_unused

ALPHA = 0.7
"""How much of an outlier moves into the weights (a above); 0.7 kept most rank agreement (docs/quantisation.md)."""

NORMS = ("RMSNormalization", "LayerNormalization")

Fold = Callable[[Floats], None]
"""Divides a value by s [K], channel by channel, by changing the constants of what computes it."""


def smooth(model: ir.Model, ranges: Mapping[str, Floats], alpha: float = ALPHA) -> None:
    """Smooth the input of every group of linear layers for which an exact fold exists, in place.

    ranges: activation name -> max|x| per channel [K], from `qe_edge_export.calibrate.activation_ranges`. The graph
    computes the same values as before, up to rounding.
    """
    for value, group in linears_by_input(model).items():
        fold = fold_for(value, group)
        if fold is None:
            continue
        factor = smoothing_factor(ranges[str(value.name)], [linear.weight for linear in group], alpha)
        fold(factor)
        for linear in group:
            linear.set_weight(linear.weight * factor[:, None])
    remove_unused(model)


def smoothing_factor(activation: Floats, weights: Sequence[Floats], alpha: float) -> Floats:
    """s [K] for the largest activations [K] and the weights [K, N] of all layers that read them; geometric mean 1.

    Channels that are always zero, or whose weights are, keep s = 1.
    """
    weight = np.max([np.abs(matrix).max(axis=1) for matrix in weights], axis=0).astype(np.float64)
    alive = (activation > 0) & (weight > 0)
    logarithm = np.zeros(len(weight))
    logarithm[alive] = alpha * np.log(activation[alive].astype(np.float64)) - (1 - alpha) * np.log(weight[alive])
    if alive.any():
        logarithm[alive] -= logarithm[alive].mean()
    factor: Floats = np.exp(logarithm).astype(np.float32)
    return factor


def fold_for(value: ir.Value, group: Sequence[Linear]) -> Fold | None:
    """How `value` [.., K] can be divided by s without any new operation, or None when there is no exact way.

    Only if all that reads it are the linear layers of `group`, whose weights take s in turn. Three producers are known:
    a normalisation with a weight of its own; the same as a product with that weight, where several norms of one value
    are computed as one; and the product of a gate and a linear layer (the up projection), to which routed experts may
    add theirs.
    """
    producer = value.producer()
    if producer is None or value.is_graph_output() or len(value.uses()) != len(group):
        return None
    if producer.op_type in NORMS:
        return _fold_into_norm(producer)
    if producer.op_type == "Mul":
        return _fold_into_weight(producer) or _fold_into_up(producer)
    return None


def is_normalised(value: ir.Value) -> bool:
    """Whether a normalisation with a weight of its own makes `value`, or one whose weight is a product after it."""
    producer = value.producer()
    if producer is None or producer.op_type in NORMS:
        return producer is not None
    normed = [operand(producer, index).producer() for index in (0, 1)] if producer.op_type == "Mul" else []
    return _weight_side(producer) is not None and any(node is not None and node.op_type in NORMS for node in normed)


def _fold_into_norm(norm: ir.Node) -> Fold | None:
    terms = range(1, len(norm.inputs))  # scale, and the bias of a LayerNormalization
    if not last_axis(norm, norm.attributes.get_int("axis", -1)) or constant(norm.inputs[1]) is None:
        return None

    def fold(factor: Floats) -> None:
        for index in terms:
            set_constant(norm, index, required_constant(operand(norm, index)) / factor, f"smoothed{index}")

    return fold


def _fold_into_weight(product: ir.Node) -> Fold | None:
    index = _weight_side(product)
    if index is None:
        return None
    weight = required_constant(operand(product, index))
    return lambda factor: set_constant(product, index, weight / factor, "smoothed")


def _weight_side(product: ir.Node) -> int | None:
    """Which operand of a product is a constant for each channel."""
    for index in (0, 1):
        weight = constant(operand(product, index)) if product.op_type == "Mul" else None
        if weight is not None and weight.ndim == 1 and weight.size > 1:
            return index
    return None


def _fold_into_up(product: ir.Node) -> Fold | None:
    for index in (0, 1):
        sources = _summands(operand(product, index))
        if sources:
            return lambda factor: _divide(sources, factor)
    return None


def _divide(sources: Sequence[tuple[Linear, Columns]], factor: Floats) -> None:
    for linear, columns in sources:
        linear.scale_columns(columns.start, columns.stop, np.reciprocal(factor))


def _summands(value: ir.Value) -> list[tuple[Linear, Columns]]:
    """The linear layers whose sum `value` is, if nothing else reads any of them; none for any other value.

    One layer, or a layer and what routed experts add to it.
    """
    source = columns_of(value)
    if source is not None:
        return [source]
    node = value.producer()
    if node is None or node.op_type != "Add" or len(value.uses()) != 1 or value.is_graph_output():
        return []
    parts = [columns_of(operand(node, index)) for index in (0, 1)]
    return [part for part in parts if part is not None] if None not in parts else []
