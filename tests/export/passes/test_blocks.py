"""Blocks of 32 numbers: worked blocks, and tables that are kept exactly."""

from __future__ import annotations

import numpy as np
import pytest

from qe_edge_export.passes.blocks import quantise_blocks


def test_a_worked_block_in_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qe_edge_export.passes.blocks.CLIPS", (1.0,))  # the whole range, nothing clipped
    # from -3 to 12 in steps of 1: zero point 3, so that every whole number is exact
    block = np.array([[-3, 12, 0, 5, 7.5, 6.5] + [1] * 26], np.float32)
    found = quantise_blocks(block, 4)
    # 7.5 -> 8 and 6.5 -> 6, halves to even, plus 3
    assert found.integers[0, :7].tolist() == [0, 15, 3, 8, 11, 9, 4]
    assert found.zeros.tolist() == [[3]]
    assert found.steps.tolist() == [[1]]
    assert found.floats()[0, :7].tolist() == [-3, 12, 0, 5, 8, 6, 1]


def test_a_lone_outlier_is_clipped_for_the_sake_of_the_rest() -> None:
    # with the whole range a step is 1, and 0.6 is read as 1 thirty-one times: error 31 * .16 = 4.96
    block = np.array([[15] + [0.6] * 31], np.float32)
    error = np.square(quantise_blocks(block, 4).floats() - block).sum()
    assert error < 4.5


def test_a_block_of_zeros_stays_zero() -> None:
    for bits in (4, 8):
        assert not quantise_blocks(np.zeros((1, 32), np.float32), bits).floats().any()


def test_a_table_that_was_in_8_bit_blocks_is_kept_exactly() -> None:
    random = np.random.default_rng(0)
    integers = random.integers(-127, 128, (50, 3, 32))
    integers[:, :, 0] = 127  # what the step was made from
    steps = random.uniform(1e-3, 1e-2, (50, 3, 1)).astype(np.float16)
    table = (integers * steps.astype(np.float32)).astype(np.float32).reshape(50, 96)
    np.testing.assert_array_equal(quantise_blocks(table, 8).floats(), table)


def test_more_rows_than_are_quantised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32)
    whole = quantise_blocks(table, 4).floats()
    monkeypatch.setattr("qe_edge_export.passes.blocks.ROWS_AT_ONCE", 3)
    np.testing.assert_array_equal(quantise_blocks(table, 4).floats(), whole)
