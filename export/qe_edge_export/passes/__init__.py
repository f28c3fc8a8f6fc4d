"""Rewrites of an exported graph, each a small function that changes an `onnx_ir.Model` in place."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from qe_edge_export.calibrate import CalibrationRows, activation_ranges
from qe_edge_export.passes.embedding import most_frequent, quantise_embedding
from qe_edge_export.passes.error_feedback import input_products
from qe_edge_export.passes.fixed_steps import fixed_steps
from qe_edge_export.passes.half import to_half
from qe_edge_export.passes.linear import linears_by_input
from qe_edge_export.passes.simplify import simplify
from qe_edge_export.passes.smoothing import ALPHA, smooth
from qe_edge_export.passes.token_scales import move_token_scales
from qe_edge_export.passes.w4a8 import quantise_linears_to_4_bits
from qe_edge_export.passes.w8a8 import quantise_linears
from qe_edge_export.passes.weight_only import quantise_weights

__all__ = [
    "fixed_steps",
    "most_frequent",
    "move_token_scales",
    "quantise_embedding",
    "quantise_linears",
    "quantise_linears_to_4_bits",
    "quantise_w4a8",
    "quantise_w8a8",
    "quantise_weight_only",
    "quantise_weights",
    "simplify",
    "smooth",
    "to_half",
]


def quantise_w8a8(
    model: ir.Model,
    rows: CalibrationRows,
    alpha: float = ALPHA,
    embedding_bits: int = 4,
    frequent: Sequence[int] = (),
) -> None:
    """The precision `w8a8`, in place: smoothed 8-bit linear layers and a 4-bit (or 8-bit) token embedding.

    rows: text like that to be scored, for the size of activations; some dozens of rows are enough. frequent: token
    ids whose embedding keeps 8 bits, from `most_frequent`.
    """
    smooth(model, activation_ranges(model, rows, _activations(model)), alpha)
    quantise_linears(model, steps=fixed_steps(model, rows.whole_prompts()))
    move_token_scales(model)
    quantise_embedding(model, embedding_bits, frequent)


def quantise_w4a8(
    model: ir.Model,
    rows: CalibrationRows,
    alpha: float = ALPHA,
    embedding_bits: int = 4,
    frequent: Sequence[int] = (),
) -> None:
    """The precision `w4a8`, in place: that of `quantise_w8a8` with weights stored in 4 bits, rounded with error
    feedback as in `quantise_weight_only`."""
    smooth(model, activation_ranges(model, rows, _activations(model)), alpha)
    whole = rows.whole_prompts()
    steps = fixed_steps(model, whole)
    quantise_linears_to_4_bits(model, input_products(model, whole, _activations(model)), steps)
    move_token_scales(model)
    quantise_embedding(model, embedding_bits, frequent)


def quantise_weight_only(
    model: ir.Model,
    rows: CalibrationRows,
    bits: int,
    embedding_bits: int = 4,
    frequent: Sequence[int] = (),
) -> None:
    """The precisions `int8` and `int4`, in place: linear layers with weights of 8 or 4 bits, and the embedding of w8a8.

    In 4 bits the weights are rounded with error feedback, measured on whole prompts: the tokens of a shared prefix are
    read by every row, and must be measured (docs/quantisation.md). rows, frequent: as for `quantise_w8a8`.
    """
    products = input_products(model, rows.whole_prompts(), _activations(model)) if bits == 4 else None
    quantise_weights(model, bits, products)
    quantise_embedding(model, embedding_bits, frequent)


def _activations(model: ir.Model) -> list[str]:
    """Names of what linear layers read."""
    return [str(value.name) for value in linears_by_input(model)]
