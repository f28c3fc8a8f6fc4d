"""Rounding weights with error feedback: what one input channel loses by rounding, the channels after it make up for.

GPTQ (Frantar et al., 2022, arXiv 2210.17323). For a layer X W with calibration inputs X [n, K], the squared error of
its output is the sum over its columns w of (w - v)^T H (w - v), H = X^T X, v the rounded column. Input channels are
rounded one after another; once v_k is chosen, the w_j that are left and minimise the error are (equations 2 and 3 of
the paper, with the Cholesky factor of its section 3.3)

    w_j <- w_j - U_kj (w_k - v_k) / U_kk        U upper triangular, U^T U = (H + damping)^-1

The channels with the largest inputs come first, while there are others left to make up for them. Steps and zero
points are those of rounding to the nearest, so the order of the channels needs not be stored.

Legend: n tokens, K input channels, N output channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qe_edge_export.calibrate import CalibrationRows, real_tokens
from qe_edge_export.passes.blocks import BLOCK, Blocks, quantise_blocks
from qe_edge_export.passes.linear import Floats

DAMPING = 0.01
"""Added to the diagonal of H, as a share of its mean (section 3.3 of the paper), so that H can be inverted."""

AT_ONCE = 64
"""Channels rounded before the others are changed: only speed depends on it (section 3.3 of the paper)."""

Doubles = NDArray[np.float64]


def input_products(model: ir.Model, rows: CalibrationRows, activations: Sequence[str]) -> dict[str, Floats]:
    """H = X^T X [K, K] of the named activations, over all real tokens of the rows. The model is not changed.

    Raises ValueError when there are no rows.
    """
    products: dict[str, Floats] = {}
    for batch in rows.run(model, activations):
        for name, array in zip(activations, batch.outputs, strict=True):
            tokens = real_tokens(array, batch.real)  # [n, K]
            product = tokens.T @ tokens
            products[name] = products[name] + product if name in products else product
    if not products:
        raise ValueError("no calibration rows")
    return products


def round_with_feedback(weight: Floats, product: Floats, bits: int) -> Blocks:
    """A weight [K, N], K a multiple of 32, as blocks along K, integers [N, K]; `product` is H [K, K]."""
    blocks = quantise_blocks(np.ascontiguousarray(weight.T), bits)
    order = np.argsort(-np.diagonal(product), kind="stable")
    factor = _factor(product[np.ix_(order, order)])
    zeros, steps = (values.T[order // BLOCK].astype(np.float64) for values in (blocks.zeros, blocks.steps))  # [K, N]
    rest = weight[order].astype(np.float64)  # what remains to be represented
    for start in range(0, len(rest), AT_ONCE):
        end = min(start + AT_ONCE, len(rest))
        lost = np.empty((end - start, rest.shape[1]))
        for k in range(start, end):
            integers = (np.rint(rest[k] / steps[k]) + zeros[k]).clip(0, 2**bits - 1)
            blocks.integers[:, order[k]] = integers
            lost[k - start] = (rest[k] - (integers - zeros[k]) * steps[k]) / factor[k, k]
            rest[k:end] -= np.outer(factor[k, k:end], lost[k - start])
        rest[end:] -= factor[start:end, end:].T @ lost  # the same for all that come later, in one product
    return blocks


def _factor(product: Floats) -> Doubles:
    """U [K, K] of the above for H [K, K]. A channel that is always zero makes up for nothing."""
    damped = product.astype(np.float64)
    diagonal = np.diag_indices_from(damped)
    damped[diagonal] += DAMPING * damped[diagonal].mean()
    damped[diagonal] = np.where(damped[diagonal] > 0, damped[diagonal], 1)
    factor: Doubles = np.linalg.cholesky(np.linalg.inv(damped)).T
    return factor
