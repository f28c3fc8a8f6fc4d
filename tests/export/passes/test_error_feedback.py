"""Rounding with error feedback: each step is the best there is, and a layer's output loses less than to the nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge_export.calibrate import CalibrationRows
from qe_edge_export.passes.blocks import BLOCK, quantise_blocks
from qe_edge_export.passes.error_feedback import DAMPING, input_products, round_with_feedback
from qe_edge_export.passes.linear import linears_by_input

Decoders = Callable[[str], ir.Model]
DEPTH, WIDTH = 2 * BLOCK, 5


def correlated(tokens: int, seed: int = 0) -> NDArray[np.float32]:
    """Inputs [tokens, DEPTH] that vary mostly along 12 directions, as activations do."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(99).standard_normal((12, DEPTH))
    inputs = random.standard_normal((tokens, 12)) @ directions + 0.1 * random.standard_normal((tokens, DEPTH))
    return inputs.astype(np.float32)


@pytest.fixture
def weight() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((DEPTH, WIDTH)).astype(np.float32)


def test_every_step_leaves_the_other_channels_at_their_least_squares(
    weight: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qe_edge_export.passes.error_feedback.AT_ONCE", 24)
    x = correlated(300)
    product = x.T @ x

    found = round_with_feedback(weight, product, 4)

    # the same by solving for the channels that are left, anew after each that is rounded, the largest input first
    h = product.astype(np.float64)
    h += DAMPING * np.diag(h).mean() * np.eye(DEPTH)
    nearest = quantise_blocks(weight.T.copy(), 4)
    rest = weight.astype(np.float64)
    left = sorted(range(DEPTH), key=lambda channel: -product[channel, channel])
    while left:
        k, *left = left
        zero, step = (values[:, k // BLOCK].astype(np.float64) for values in (nearest.zeros, nearest.steps))
        integer = (np.rint(rest[k] / step) + zero).clip(0, 15)
        np.testing.assert_array_equal(found.integers[:, k], integer)
        change = (integer - zero) * step - rest[k]
        if left:
            rest[left] -= np.outer(np.linalg.solve(h[np.ix_(left, left)], h[left, k]), change)
    np.testing.assert_array_equal(found.steps, nearest.steps)
    np.testing.assert_array_equal(found.zeros, nearest.zeros)


def test_a_layers_output_loses_less_than_to_the_nearest(weight: NDArray[np.float32]) -> None:
    x = correlated(300)
    unseen = correlated(200, seed=5)

    fed_back = round_with_feedback(weight, x.T @ x, 4).floats().T
    nearest = quantise_blocks(weight.T.copy(), 4).floats().T

    for inputs in (x, unseen):
        lost, lost_nearest = (np.linalg.norm(inputs @ (read - weight)) for read in (fed_back, nearest))
        assert lost < 0.5 * lost_nearest


@pytest.mark.parametrize("bits", [4, 8])
def test_channels_that_have_nothing_to_do_with_each_other_are_rounded_to_the_nearest(
    weight: NDArray[np.float32], bits: int
) -> None:
    product = np.diag(np.arange(DEPTH)).astype(np.float32)  # the first channel is always zero

    found = round_with_feedback(weight, product, bits)

    for ours, nearest in zip(found, quantise_blocks(weight.T.copy(), bits), strict=True):
        np.testing.assert_array_equal(ours, nearest)


def test_inputs_that_are_always_zero_change_nothing(weight: NDArray[np.float32]) -> None:
    found = round_with_feedback(weight, np.zeros((DEPTH, DEPTH), np.float32), 4)

    np.testing.assert_array_equal(found.integers, quantise_blocks(weight.T.copy(), 4).integers)


@dataclass(frozen=True)
class GivenBatch:
    outputs: list[NDArray[np.float32]]
    real: NDArray[np.bool_]


@dataclass(frozen=True)
class GivenRows:
    """Stands for calibration rows whose activations are known."""

    batches: list[GivenBatch]

    def run(self, model: ir.Model, outputs: Sequence[str]) -> Iterator[GivenBatch]:
        assert list(outputs) == ["tokens", "rows"]
        yield from self.batches

    def whole_prompts(self) -> GivenRows:
        return self


def test_products_are_summed_over_batches_and_real_tokens(decoder: Decoders) -> None:
    first = np.array([[[1, 2], [3, 4]], [[5, 6], [9, 9]]], np.float32)  # [2, 2, 2], the last token is padding
    picked = np.array([[1, 0], [0, 2]], np.float32)  # [2, 2], one position of each row
    batch = GivenBatch([first, picked], np.array([[True, True], [True, False]]))

    products = input_products(decoder("llama"), GivenRows([batch, batch]), ["tokens", "rows"])

    # twice 1 + 9 + 25, 2 + 12 + 30, 4 + 16 + 36
    np.testing.assert_array_equal(products["tokens"], [[70, 88], [88, 112]])
    np.testing.assert_array_equal(products["rows"], [[2, 0], [0, 8]])


def test_products_of_a_decoder_are_those_of_its_activations(decoder: Decoders, rows: CalibrationRows) -> None:
    model = decoder("llama")
    names = [str(value.name) for value in linears_by_input(model)]

    products = input_products(model, rows, names)

    assert list(products) == names
    sums = dict.fromkeys(names, 0.0)
    for batch in rows.run(model, names):
        for name, array in zip(names, batch.outputs, strict=True):
            sums[name] += float(np.square(array[batch.real]).sum())
    for name, product in products.items():
        assert np.trace(product) == pytest.approx(sums[name], rel=1e-5)


def test_no_rows_are_refused(decoder: Decoders) -> None:
    with pytest.raises(ValueError, match="no calibration rows"):
        input_products(decoder("llama"), GivenRows([]), ["tokens", "rows"])
