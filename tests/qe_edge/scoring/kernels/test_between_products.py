"""Kernels of what lies between products, each against the same formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.qe_edge.scoring.kernels.conftest import (
    FLOOR,
    LEVELS,
    ZERO,
    Array,
    Run,
    assert_quantised,
    floats,
    token_steps,
)


@pytest.mark.parametrize("shape", [(1, 1, 16), (3, 5, 64), (2, 7, 576)])
def test_sum_norm_and_step(kernel: Run, random: np.random.Generator, shape: tuple[int, ...]) -> None:
    residual, product, gain = floats(random, *shape), floats(random, *shape), floats(random, shape[-1])
    scales = np.abs(floats(random, *shape[:-1], 1))
    added, quantised = kernel("AddNormQuantize", residual, product, scales, gain, np.float32(0.03), ZERO, epsilon=1e-5)
    exact: Array = residual.astype(float) + product.astype(float) * scales
    np.testing.assert_allclose(added, exact, atol=1e-5)
    normed = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-5) * gain
    assert_quantised(quantised, np.clip(np.rint(normed / np.float32(0.03)) + 128, 0, 255))


@pytest.mark.parametrize("width", [16, 64, 80])
def test_steps_too_small_for_a_byte_end_at_its_ends(kernel: Run, random: np.random.Generator, width: int) -> None:
    values = floats(random, 1, 3, width)
    values[0, 2, 5] = np.nan  # of which no token but its own knows
    rest = (np.ones((1, 3, 1), np.float32), np.ones(width, np.float32), np.float32(1e-12), ZERO)
    _, quantised = kernel("AddNormQuantize", values, np.zeros_like(values), *rest, epsilon=1e-5)
    np.testing.assert_array_equal(quantised[0, :2], np.where(values[0, :2] > 0, 255, 0))
    assert (quantised[0, 2] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1, 16), (3, 5, 64), (2, 7, 1536)])
@pytest.mark.parametrize("size", [1.0, 60.0])
def test_gated_activation(kernel: Run, random: np.random.Generator, shape: tuple[int, ...], size: float) -> None:
    gate, up = floats(random, *shape) * np.float32(size), floats(random, *shape)
    quantised, scales = kernel("SwigluQuantize", gate, up, FLOOR, LEVELS, ZERO)
    wide = gate.astype(float)
    integers, exact = token_steps(wide / (1 + np.exp(-wide)) * up)
    np.testing.assert_allclose(scales, exact, rtol=1e-5)
    assert_quantised(quantised, integers)


def test_tokens_of_zeros_have_the_smallest_step(kernel: Run) -> None:
    nothing = np.zeros((1, 2, 32), np.float32)
    quantised, scales = kernel("SwigluQuantize", nothing, nothing, FLOOR, LEVELS, ZERO)
    assert (quantised == 128).all()
    assert (scales == FLOOR / LEVELS).all()


def test_other_kernels_refuse_sizes_that_do_not_belong_together(kernel: Run, random: np.random.Generator) -> None:
    row, other, odd = floats(random, 1, 2, 32), floats(random, 1, 3, 32), floats(random, 1, 2, 24)
    scales = np.ones((1, 2, 1), np.float32)
    for gate, up in ((row, other), (odd, odd), (row[0, 0, 0], row[0, 0, 0])):
        with pytest.raises(Exception, match="SwigluQuantize: "):
            kernel("SwigluQuantize", gate, up, FLOOR, LEVELS, ZERO)
    for residual, product, gain in ((row, other, row[0, 0]), (other, row, row[0, 0]), (row, row, odd[0, 0])):
        with pytest.raises(Exception, match=r"AddNormQuantize: |norm: "):
            kernel("AddNormQuantize", residual, product, scales, gain, np.float32(1), ZERO, epsilon=1e-5)
