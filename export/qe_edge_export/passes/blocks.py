"""Numbers in blocks of 32 that share a step: how the token embedding and weight-only layers are stored.

A block is stored as integers q in 0..2^bits - 1, a zero point z in the same range and a float16 step d, and read as
(q - z) d.

Legend: R rows, C columns of a table, n blocks at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qe_edge_export.passes.linear import Floats

BLOCK = 32
"""Numbers that share a step."""

CLIPS = np.linspace(0.7, 1.0, 13)
"""In 4 bits, ranges tried for every block, relative to the one that covers all its numbers: clipping the largest a
little leaves a smaller squared error in all."""

ROWS_AT_ONCE = 4096


class Blocks(NamedTuple):
    """A quantised table: integers [R, C] uint8, zero points [R, C / 32] uint8, steps [R, C / 32] float16."""

    integers: NDArray[np.uint8]
    zeros: NDArray[np.uint8]
    steps: NDArray[np.float16]

    def floats(self) -> Floats:
        """What the runtime reads: [R, C]."""
        zeros, steps = (np.repeat(each.astype(np.float32), BLOCK, axis=1) for each in (self.zeros, self.steps))
        read: Floats = (self.integers - zeros) * steps
        return read


def quantise_blocks(table: Floats, bits: int) -> Blocks:
    """A table [R, C] in blocks of 32 along C. Steps are rounded to float16 before the integers are chosen.

    8 bits: symmetric around 128, step max|x| / 127; a table that came from such blocks (GGUF Q8_0) is kept exactly.
    4 bits: from the smallest to the largest number of the block, zero always included, both ends drawn in by the
    factor of CLIPS that leaves the least squared error.
    """
    parts = [
        _quantise(table[start : start + ROWS_AT_ONCE].reshape(-1, BLOCK), bits)
        for start in range(0, len(table), ROWS_AT_ONCE)
    ]
    integers, zeros, steps = (np.concatenate(each) for each in zip(*parts, strict=True))
    rows = len(table)
    return Blocks(integers.reshape(table.shape), zeros.reshape(rows, -1), steps.reshape(rows, -1))


def _quantise(x: Floats, bits: int) -> Blocks:
    """[n, 32] -> integers [n, 32], zero points and steps [n, 1]."""
    if bits == 8:
        step = _float16(np.abs(x).max(axis=1, keepdims=True) / 127)
        return _rounded(x, step, np.full(step.shape, 128, np.float32), 255)
    low = np.minimum(x.min(axis=1, keepdims=True), 0)
    high = np.maximum(x.max(axis=1, keepdims=True), 0)
    best: Blocks | None = None
    least = np.full(len(x), np.inf)
    for clip in CLIPS:
        step = _float16((high - low) * clip / 15)
        tried = _rounded(x, step, np.rint(-low * clip / step).clip(0, 15), 15)
        error = np.square((tried.integers - tried.zeros.astype(np.float32)) * step - x).sum(axis=1)
        if best is None:
            best, least = tried, error
            continue
        better = error < least
        least[better] = error[better]
        best.integers[better] = tried.integers[better]
        best.zeros[better] = tried.zeros[better]
        best.steps[better] = tried.steps[better]
    assert best is not None  # CLIPS is not empty
    return best


def _rounded(x: Floats, step: Floats, zero: Floats, highest: int) -> Blocks:
    integers = (np.rint(x / step) + zero).clip(0, highest)
    return Blocks(integers.astype(np.uint8), zero.astype(np.uint8), step.astype(np.float16))


def _float16(step: Floats) -> Floats:
    """The nearest float16, as float32; a block of zeros, or of numbers too small for float16, gets step 1."""
    rounded = step.astype(np.float16).astype(np.float32)
    return np.where(rounded > 0, rounded, np.float32(1))
