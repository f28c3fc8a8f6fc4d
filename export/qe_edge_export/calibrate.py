"""How large activations get on real text: what smoothing and fixed steps need to know.

Legend: B rows, S tokens, K channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Batch(Protocol):
    """What a graph gave for some rows."""

    @property
    def outputs(self) -> Sequence[NDArray[Any]]:
        """The values asked for, each [B, S, K], or [B, K] or [B, 1, K] where one position of a row is computed."""

    @property
    def real(self) -> NDArray[np.bool_]:
        """[B, S] true where a token is real, false where it is padding."""


class CalibrationRows(Protocol):
    """Rows that a graph can be run on; `qe_edge_export.samples.CalibrationRows` are such rows."""

    def run(self, model: ir.Model, outputs: Sequence[str]) -> Iterator[Batch]:
        """Run the graph batch by batch; `outputs` may name any value inside it."""

    def whole_prompts(self) -> CalibrationRows:
        """The same rows without a shared prefix, whose tokens then are part of every row and measured with it."""


def real_tokens(values: Floats, real: NDArray[np.bool_]) -> Floats:
    """Values [B, S, K] at the real tokens, [tokens, K]; those of one position a row, [B, K] or [B, 1, K], all are."""
    every = values.ndim == 3 and values.shape[:2] == real.shape
    return values[real] if every else values.reshape(-1, values.shape[-1])


def activation_ranges(model: ir.Model, rows: CalibrationRows, activations: Sequence[str]) -> dict[str, Floats]:
    """Largest |x| per channel [K] of the named activations, over all real tokens of the rows.

    The model is not changed. Raises ValueError when there are no rows.
    """
    ranges: dict[str, Floats] = {}
    for batch in rows.run(model, activations):
        for name, array in zip(activations, batch.outputs, strict=True):
            largest = np.abs(real_tokens(array, batch.real)).max(axis=0)
            ranges[name] = np.maximum(ranges[name], largest) if name in ranges else largest
    if not ranges:
        raise ValueError("no calibration rows")
    return ranges


def token_peaks(model: ir.Model, rows: CalibrationRows, activations: Sequence[str]) -> dict[str, Floats]:
    """Largest |x| of every real token of the rows [tokens], for each of the named activations.

    The model is not changed. Raises ValueError when there are no rows.
    """
    if not activations:
        return {}  # ONNX Runtime runs no graph for nothing
    peaks: dict[str, list[Floats]] = {name: [] for name in activations}
    for batch in rows.run(model, activations):
        for name, array in zip(activations, batch.outputs, strict=True):
            peaks[name].append(np.abs(real_tokens(array, batch.real)).max(axis=1))
    if not all(peaks.values()):
        raise ValueError("no calibration rows")
    return {name: np.concatenate(each) for name, each in peaks.items()}
