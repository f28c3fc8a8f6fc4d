"""Rewrites of an exported graph, each a small function that changes an `onnx_ir.Model` in place."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from qe_edge_export.calibrate import CalibrationRows, activation_ranges
from qe_edge_export.passes.embedding import most_frequent, quantise_embedding
from qe_edge_export.passes.linear import linears_by_input
from qe_edge_export.passes.simplify import simplify
from qe_edge_export.passes.smoothing import ALPHA, smooth
from qe_edge_export.passes.w8a8 import quantise_linears

__all__ = ["most_frequent", "quantise_embedding", "quantise_linears", "quantise_w8a8", "simplify", "smooth"]


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
    activations = [str(value.name) for value in linears_by_input(model)]
    smooth(model, activation_ranges(model, rows, activations), alpha)
    quantise_linears(model)
    quantise_embedding(model, embedding_bits, frequent)
