"""How much the tapped states suffer when one linear layer alone is quantised, measured in torch without an export.

The layer's product is replaced by what its precision computes: smoothed as the export smooths it, weights rounded,
activations of a token rounded with one step (w8a8, w4a8) or with one step per 32 channels (int8, int4). 4-bit weights
are rounded to the nearest here, without error feedback: the errors rank layers, they do not foretell a bundle's.

Legend: K input channels, N output channels, n rows, T taps, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from qe_edge_export.calibrate import CalibrationRows, activation_ranges
from qe_edge_export.passes.blocks import BLOCK
from qe_edge_export.passes.linear import FLOAT, Floats, Linear, linears, linears_by_input
from qe_edge_export.passes.smoothing import ALPHA, fold_for, smoothing_factor
from qe_edge_export.passes.w4a8 import pack
from qe_edge_export.passes.w8a8 import ACTIVATION_LEVELS, SMALLEST, quantise_weight
from qe_edge_export.passes.weight_only import weight_blocks
from qe_edge_train.batches import EncodedSet
from qe_edge_train.evaluate import tapped_states
from qe_edge_train.tapped import TappedRegressor

ROWS = 16
"""Rows that every layer is measured on: a pass over them for each layer takes a minute or two in all."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes the modules that a node comes from, outermost first, and last the node itself."""
PER_TOKEN = ("w8a8", "w4a8")
"""Precisions that smooth, and give each token one step."""


def layer_name(linear: Linear) -> str:
    """The module of a `TappedRegressor` that computes a layer of its exported graph, e.g.
    decoder.layers.3.mlp.down_proj; empty for a graph of another origin."""
    scopes = linear.product.metadata_props.get(SCOPES, "").strip("[]").split(", ")
    return scopes[-2].strip("'").removeprefix("model.") if len(scopes) > 1 else ""


def keep_in_float(graph: ir.Model, names: Collection[str]) -> None:
    """Mark linear layers, given by the names of their modules, so that no precision quantises them."""
    for linear in linears(graph):
        if layer_name(linear) in names:
            linear.product.metadata_props[FLOAT] = ""


def layer_errors(
    graph: ir.Model, model: TappedRegressor, ranges: CalibrationRows, data: EncodedSet, precision: str
) -> dict[str, float]:
    """Relative error |q - f| / |f| of the tapped states for every linear layer that `precision` quantises, by name.

    graph: the float32 graph of `model`; ranges: rows for smoothing, as the export's; data: rows to measure on, of which
    ROWS are taken. q are the states with this layer quantised alone, f those of `model`, which is left as it was.
    """
    rows = range(0, len(data.examples), -(-len(data.examples) // ROWS))
    device = torch.device("cpu")
    exact = tapped_states(model, data, rows, device)  # [n, T, H]
    factors = _smoothing_factors(graph, ranges) if precision in PER_TOKEN else {}
    errors: dict[str, float] = {}
    for linear in linears(graph):
        if linear.stays_float:
            continue
        name = layer_name(linear)
        product = quantised_product(linear.weight, factors.get(name), precision)
        bias = linear.bias_values
        offset = None if bias is None else torch.from_numpy(bias.copy())
        hook = model.get_submodule(name).register_forward_hook(
            lambda _, inputs, __, product=product, offset=offset: product(inputs[0]) + (0 if offset is None else offset)
        )
        try:
            moved = tapped_states(model, data, rows, device)
        finally:
            hook.remove()
        errors[name] = float((moved - exact).norm() / exact.norm())
    return errors


def quantised_product(weight: Floats, factor: Floats | None, precision: str) -> Callable[[Tensor], Tensor]:
    """x [.., K] -> x W [.., N] as a precision computes it, for a weight [K, N]; factor: s [K] of smoothing, or None."""
    scale = np.ones(len(weight), np.float32) if factor is None else factor
    smoothed = weight * scale[:, None]
    size = len(weight) if precision in PER_TOKEN else BLOCK
    rounded, divisor = torch.from_numpy(_rounded_weight(smoothed, precision)), torch.from_numpy(scale)
    return lambda x: rounded_activations(x / divisor, size) @ rounded


def rounded_activations(x: Tensor, size: int) -> Tensor:
    """x [.., K] in 8 bits, symmetric, each token with one step for every `size` channels."""
    depth = x.shape[-1]
    groups: Tensor = F.pad(x, (0, -depth % size)).unflatten(-1, (-1, size))  # [.., groups, size]
    step = groups.abs().amax(-1, keepdim=True).clamp_min(SMALLEST) / ACTIVATION_LEVELS
    return (torch.round(groups / step) * step).flatten(-2)[..., :depth]


def _rounded_weight(weight: Floats, precision: str) -> Floats:
    """A weight [K, N] as it is multiplied."""
    if precision == "w8a8":
        integers, step = quantise_weight(weight)
        return integers * step
    blocks = weight_blocks(weight, None, 8 if precision == "int8" else 4)
    if precision == "w4a8":
        packed = pack(blocks, len(weight))
        return packed.expanded() * packed.step
    return np.ascontiguousarray(blocks.floats().T[: len(weight)])


def _smoothing_factors(graph: ir.Model, rows: CalibrationRows) -> dict[str, Floats]:
    """s [K] of every layer whose input is smoothed, by name."""
    groups = linears_by_input(graph)
    ranges = activation_ranges(graph, rows, [str(value.name) for value in groups])
    factors: dict[str, Floats] = {}
    for value, group in groups.items():
        if fold_for(value, group) is not None:
            factor = smoothing_factor(ranges[str(value.name)], [linear.weight for linear in group], ALPHA)
            factors |= {layer_name(linear): factor for linear in group}
    return factors
