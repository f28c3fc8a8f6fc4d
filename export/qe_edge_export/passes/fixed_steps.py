"""Which activations of `w8a8` need no step for each token, because their tokens are alike.

A normalisation brings all tokens to one size, and smoothing evens out its channels: the largest number of a token is
then much the same for all. Where it is, one step serves them all. That leaves out the two passes that look for the
largest number, and the product comes out with its scale, which a multiplication of all its numbers gave it before. A
token that is larger than all that were measured is clipped, which a normalisation keeps within bounds. What attention
and MLP give has no such bounds: its tokens keep a step each.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qe_edge_export.calibrate import CalibrationRows, token_peaks
from qe_edge_export.passes.linear import Floats, linears_by_input
from qe_edge_export.passes.smoothing import is_normalised
from qe_edge_export.passes.w8a8 import ACTIVATION_LEVELS

SPREAD = 2.3
"""How many times as large as the median token the largest may be: a token of median size then loses at most 1.2 of 8
bits. docs/quantisation.md has what other values give."""

FEWEST_TOKENS = 1000
"""Tokens that must have been measured: of n, the next is the largest with a probability of 1 / (n + 1)."""


def fixed_steps(model: ir.Model, rows: CalibrationRows) -> dict[str, float]:
    """Activation name -> step, for what linear layers read out of a normalisation, where its tokens are alike.

    model: the float32 graph, smoothed. rows: whole prompts, since a shared prefix is quantised like all else.
    """
    normalised = [str(value.name) for value in linears_by_input(model) if is_normalised(value)]
    steps = {name: step_for(peaks) for name, peaks in token_peaks(model, rows, normalised).items()}
    return {name: step for name, step in steps.items() if step is not None}


def step_for(peaks: Floats) -> float | None:
    """The one step of tokens whose largest |x| are `peaks` [tokens], or None when they are too few or not alike."""
    largest = float(peaks.max())
    alike = 0 < largest <= SPREAD * float(np.median(peaks))
    return largest / ACTIVATION_LEVELS if alike and len(peaks) >= FEWEST_TOKENS else None
