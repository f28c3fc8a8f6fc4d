"""Allocation: hand-worked shares, and that every total is met exactly with at least one for every block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qe_edge.errors import UsageError
from qe_edge_train.allocation.allocate import Method, allocate, block_counts, mola, uniform

VALUES = st.lists(st.floats(1.01, 30), min_size=1, max_size=40)


def test_shares_follow_the_power_and_remainders_go_to_the_largest() -> None:
    # 1, 4, 9 of 14 over 10: shares .714, 2.857, 6.429. The first gets 1; the others share 9 as 4 to 9: 2.769, 6.231
    assert allocate([1.0, 2.0, 3.0], 10, beta=2.0) == [1, 3, 6]


def test_equal_remainders_go_to_the_earlier_blocks() -> None:
    assert allocate([5.0] * 4, 10, beta=1.0) == [3, 3, 2, 2]


def test_beta_zero_is_uniform() -> None:
    assert allocate([1.0, 9.0, 4.0], 7, beta=0.0) == uniform(3, 7) == [3, 2, 2]


def test_a_block_with_almost_no_share_still_gets_one() -> None:
    # without the floor the shares would be .001, .001, 6.998; with it the last one has what is left
    assert allocate([0.001, 0.001, 7.0], 7, beta=1.0) == [1, 1, 5]


def test_a_total_of_one_each_gives_one_each() -> None:
    assert allocate([3.1, 2.2, 9.7, 1.4], 4, beta=4.0) == [1, 1, 1, 1]


@given(VALUES, st.integers(0, 3000), st.floats(0, 6))
def test_the_total_is_met_exactly_and_every_block_gets_one(values: list[float], extra: int, beta: float) -> None:
    total = len(values) + extra

    counts = allocate(values, total, beta)

    assert sum(counts) == total
    assert min(counts) >= 1


@given(VALUES, st.integers(0, 3000), st.floats(0.1, 6))
def test_a_larger_value_never_gets_less(values: list[float], extra: int, beta: float) -> None:
    counts = np.array(allocate(values, len(values) + extra, beta))

    order = np.argsort(values)
    different = np.diff(np.array(values)[order]) > 1e-3
    assert (np.diff(counts[order])[different] >= 0).all()


@given(VALUES, st.integers(0, 3000), st.floats(0, 6))
def test_counts_are_within_one_of_the_shares_where_all_shares_are_above_one(
    values: list[float], extra: int, beta: float
) -> None:
    total = len(values) + extra
    shares = np.array(values) ** beta / (np.array(values) ** beta).sum() * total

    if shares.min() >= 1:
        assert (np.abs(np.array(allocate(values, total, beta)) - shares) < 1).all()


def test_less_than_one_each_is_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match="a total of 2 cannot give each of 3 blocks"):
        allocate([1.0, 2.0, 3.0], 2, 1.0)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_values_that_are_no_exponents_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        allocate([1.0, wrong], 4, 1.0)


def test_mola_is_2468_by_quarter_of_the_depth() -> None:
    assert mola(8, 40, reverse=False) == [2, 2, 4, 4, 6, 6, 8, 8]
    assert mola(8, 40, reverse=True) == [8, 8, 6, 6, 4, 4, 2, 2]


def test_mola_is_scaled_to_the_total() -> None:
    assert mola(4, 10, reverse=False) == [1, 2, 3, 4]


def test_mola_divides_a_depth_that_is_no_multiple_of_four() -> None:
    # quarters floor(4 i / 6): 0 0 1 2 2 3, so 2 2 4 6 6 8 of 28
    assert mola(6, 28, reverse=False) == [2, 2, 4, 6, 6, 8]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("alpha", [1, 1, 2, 6]),
        ("uniform", [3, 3, 2, 2]),
        ("mola", [1, 2, 3, 4]),
        ("mola_reversed", [4, 3, 2, 1]),
    ],
)
def test_every_method_has_its_own_counts(method: Method, expected: list[int]) -> None:
    assert block_counts(method, [1.0, 2.0, 4.0, 12.0], 4, 10, beta=1.0) == expected


def test_allocation_by_alpha_needs_the_alphas_of_all_blocks() -> None:
    with pytest.raises(ValueError, match="all 4 blocks"):
        block_counts("alpha", [1.0, 2.0], 4, 10, 1.0)
    with pytest.raises(ValueError, match="all 4 blocks"):
        block_counts("alpha", None, 4, 10, 1.0)
