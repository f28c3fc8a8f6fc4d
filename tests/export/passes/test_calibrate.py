"""Activation ranges: the largest of real tokens, never of padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge_export.calibrate import CalibrationRows, activation_ranges, token_peaks
from qe_edge_export.passes.linear import linears_by_input

Decoders = Callable[[str], ir.Model]


@dataclass(frozen=True)
class FixedBatch:
    outputs: list[NDArray[Any]]
    real: NDArray[np.bool_]


@dataclass(frozen=True)
class FixedRows:
    batches: list[FixedBatch]

    def run(self, model: ir.Model, outputs: Sequence[str]) -> Iterator[FixedBatch]:
        yield from self.batches

    def whole_prompts(self) -> FixedRows:
        return self


@pytest.fixture
def model() -> ir.Model:
    return ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)


def test_the_largest_of_real_tokens_over_all_batches(model: ir.Model) -> None:
    # two rows of up to two tokens, the second row one token long; 99 is padding
    first = np.array([[[1, -2], [3, 0]], [[-4, 1], [99, 99]]], np.float32)
    second = np.array([[[0, 5], [99, 99]]], np.float32)
    batches = [
        FixedBatch([first], np.array([[True, True], [True, False]])),
        FixedBatch([second], np.array([[True, False]])),
    ]
    found = activation_ranges(model, FixedRows(batches), ["x"])
    np.testing.assert_array_equal(found["x"], [4, 5])


def test_an_activation_at_one_position_counts_whole(model: ir.Model) -> None:
    batch = FixedBatch([np.array([[1, -7], [2, 3]], np.float32)], np.array([[True, True], [True, False]]))
    np.testing.assert_array_equal(activation_ranges(model, FixedRows([batch]), ["x"])["x"], [2, 7])


def test_no_rows_is_an_error(model: ir.Model) -> None:
    with pytest.raises(ValueError, match="no calibration rows"):
        activation_ranges(model, FixedRows([]), ["x"])


def test_padding_does_not_change_the_ranges_of_a_decoder(
    decoder: Decoders, rows_of: Callable[[list[list[int]]], CalibrationRows]
) -> None:
    model = decoder("llama")
    names = [str(value.name) for value in linears_by_input(model)]
    bodies = [[5, 6, 7, 8, 9], [30]]
    together = activation_ranges(model, rows_of(bodies), names)
    alone = [activation_ranges(model, rows_of([body]), names) for body in bodies]
    for name in names:
        largest = np.max([each[name] for each in alone], axis=0)
        np.testing.assert_allclose(together[name], largest, rtol=1e-4)


def test_the_peak_of_every_real_token(model: ir.Model) -> None:
    first = np.array([[[1, -2], [3, 0]], [[-4, 1], [99, 99]]], np.float32)
    picked = np.array([[[7, -9]], [[2, 1]]], np.float32)  # one position of each row
    batch = FixedBatch([first, picked], np.array([[True, True], [True, False]]))

    found = token_peaks(model, FixedRows([batch, batch]), ["x", "y"])

    np.testing.assert_array_equal(found["x"], [2, 3, 4, 2, 3, 4])
    np.testing.assert_array_equal(found["y"], [9, 2, 9, 2])
    with pytest.raises(ValueError, match="no calibration rows"):
        token_peaks(model, FixedRows([]), ["x"])


def test_no_activations_have_no_peaks(model: ir.Model) -> None:
    assert token_peaks(model, FixedRows([]), []) == {}
