"""Metrics on hand-worked columns and against their definitions; draws and intervals against resamples written out."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from qe_edge import metrics
from qe_edge.metrics import (
    CORRELATIONS,
    MEASURES,
    Agreement,
    agreement,
    bootstrap_draws,
    bootstrap_interval,
    interval,
    jackknife_error,
    kendall,
    macro_spearman,
    mae,
    pearson,
    rmse,
    spearman,
)

rows_with_ties = st.lists(st.tuples(st.integers(0, 9), st.integers(-40, 40)), min_size=2, max_size=60)


def test_pearson_of_a_hand_worked_example() -> None:
    # deviations (-1, 0, 1) and (-2/3, 1/3, 1/3): 1 / sqrt(2 * 2/3) = sqrt(3) / 2
    assert pearson([1, 2, 3], [0, 1, 1]) == pytest.approx(math.sqrt(3) / 2)


def test_spearman_gives_ties_their_mean_rank() -> None:
    # ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): covariance sum 4.5, variances 4.5 and 5
    assert spearman([10, 20, 20, 90], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_kendall_of_a_hand_worked_example_with_ties() -> None:
    # rows (1, 1) (2, 3) (2, 2) (3, 2), 6 pairs: the first row is below all others, 3 in the same order;
    # (2, 3) and (3, 2) in opposite order; (2, 3) and (2, 2) tied in x; (2, 2) and (3, 2) tied in y:
    # (3 - 1) / sqrt((6 - 1) * (6 - 1))
    assert kendall([1, 2, 2, 3], [1, 3, 2, 2]) == pytest.approx(2 / 5)


def test_errors_of_a_hand_worked_example() -> None:
    # differences 1, -2, 5
    assert mae([2, 0, 10], [1, 2, 5]) == pytest.approx(8 / 3)
    assert rmse([2, 0, 10], [1, 2, 5]) == pytest.approx(math.sqrt(30 / 3))


@pytest.mark.parametrize("correlation", [pearson, spearman, kendall])
def test_perfect_agreement_is_one(correlation: Callable[[ArrayLike, ArrayLike], float]) -> None:
    human = [0.1, 0.7, 0.2, 0.3]
    assert correlation(human, human) == pytest.approx(1)
    assert correlation([-value for value in human], human) == pytest.approx(-1)
    assert correlation([1, 2], [5, 3]) == pytest.approx(-1)


@given(rows_with_ties)
def test_kendall_counts_pairs_like_the_definition(rows: list[tuple[int, int]]) -> None:
    x, y = (np.array(column) for column in zip(*rows, strict=True))
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    signs_x, signs_y = (np.sign(column[:, None] - column) for column in (x, y))
    expected = (signs_x * signs_y).sum() / math.sqrt((signs_x**2).sum() * (signs_y**2).sum())

    assert kendall(x, y) == pytest.approx(expected)


@given(rows_with_ties)
def test_spearman_is_the_correlation_of_ranks_counted_by_hand(rows: list[tuple[int, int]]) -> None:
    x, y = (np.array(column) for column in zip(*rows, strict=True))
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    # values below, and half of those that are the same
    ranks = [(column < column[:, None]).sum(axis=1) + (column == column[:, None]).sum(axis=1) / 2 for column in (x, y)]

    assert spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=6))
def test_columns_measured_together_are_measured_like_each_alone(rows: list[tuple[int, int, int]]) -> None:
    *predicted, human = np.array(rows, np.float64).T

    for name, measure in MEASURES.items():
        alone = [measure(column, human) for column in predicted]
        np.testing.assert_array_equal(measure(np.stack(predicted), human), alone, err_msg=name)


@pytest.mark.parametrize("value", [5, 0.1, 1e9 + 0.1])
def test_a_constant_column_has_no_correlation_whatever_rounding_does(value: float) -> None:
    constant, other = np.full(7, value), np.arange(7.0)

    for name in CORRELATIONS:
        first, second = MEASURES[name](np.stack([constant, other]), other)
        assert math.isnan(first)
        assert second == pytest.approx(1)
        assert np.isnan(MEASURES[name](np.stack([constant, other]), constant)).all()


def test_a_score_that_is_not_a_number_never_becomes_a_rank() -> None:
    result = agreement([math.nan, 1, 2], [1, 2, 3])

    assert math.isnan(result.spearman)
    assert math.isnan(result.pearson)
    assert math.isnan(kendall([math.nan, 1, 2], [1, 2, 3]))


def test_a_constant_column_has_no_correlation() -> None:
    result = agreement([5, 5, 5], [1, 2, 3])

    assert math.isnan(result.spearman)
    assert math.isnan(result.pearson)
    assert result.mae == 3


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        pearson([1, 2], [1, 2, 3])


def test_the_macro_mean_weighs_pairs_equally() -> None:
    pairs = {"a": Agreement(1000, 0.2, 0, 0), "b": Agreement(10, 0.6, 0, 0)}

    assert macro_spearman(pairs) == pytest.approx(0.4)


def test_the_jackknife_leaves_out_each_row_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    human = random.normal(size=23)
    first, second = human + random.normal(size=23), human + random.normal(size=23)
    differences = []
    for row in range(23):
        a, b, h = (np.delete(column, row) for column in (first, second, human))
        differences.append(spearman(a, h) - spearman(b, h))
    error = math.sqrt(22 / 23 * sum((each - np.mean(differences)) ** 2 for each in differences))

    assert jackknife_error(first, second, human) == pytest.approx(error)
    monkeypatch.setattr(metrics, "CELLS", 60)  # a few rows at once
    assert jackknife_error(first, second, human) == pytest.approx(error)


def test_the_jackknife_knows_nothing_of_two_rows_or_a_constant_column() -> None:
    assert jackknife_error([1, 2, 3, 4], [10, 20, 30, 40], [1, 3, 2, 4]) == 0
    assert math.isnan(jackknife_error([1, 2], [1, 2], [1, 2]))
    assert math.isnan(jackknife_error([1, 2, 3], [5, 5, 5], [1, 2, 3]))


def test_the_bootstrap_interval_holds_the_figure_and_narrows_with_rows() -> None:
    generator = np.random.default_rng(1)
    human = generator.normal(size=400)
    predicted = human + generator.normal(size=400)

    low, high = bootstrap_interval([predicted], [human], samples=300)
    few_low, few_high = bootstrap_interval([predicted[:40]], [human[:40]], samples=300)

    assert low < spearman(predicted, human) < high
    assert high - low < 0.6 * (few_high - few_low)
    # standard error of a correlation r is about (1 - r^2) / sqrt(n): .5 / 20, so the interval spans about .1
    assert 0.06 < high - low < 0.16


def test_the_bootstrap_interval_is_that_of_the_definition() -> None:
    """Written out: the rows of one group after the other drawn by the same generator, and the groups averaged."""
    columns = [(np.array([1.0, 2, 4, 3, 5]), np.array([2.0, 1, 3, 4, 4])), (np.arange(4.0), np.array([1.0, 0, 3, 2]))]
    generator = np.random.default_rng(7)
    drawn = [[mae(x[i], y[i]) for i in generator.integers(0, len(x), (50, len(x)))] for x, y in columns]

    predicted, human = zip(*columns, strict=True)
    found = bootstrap_interval(predicted, human, "mae", samples=50, seed=7)
    assert found == pytest.approx(tuple(np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])))


def test_an_interval_of_a_constant_column_is_undefined() -> None:
    assert np.isnan(bootstrap_interval([[1, 1, 1]], [[1, 2, 3]], samples=20)).all()


def test_draws_are_the_measures_of_rows_drawn_with_replacement_the_same_for_all_columns() -> None:
    generator = np.random.default_rng(3)
    human = generator.integers(0, 3, 5).astype(np.float64)
    predicted = generator.integers(0, 3, (2, 5)).astype(np.float64)

    draws = bootstrap_draws(predicted, human, list(MEASURES), 200, np.random.default_rng(8))

    rows = np.random.default_rng(8).integers(0, 5, (200, 5))
    expected = [[[measure(x[i], human[i]) for i in rows] for measure in MEASURES.values()] for x in predicted]
    np.testing.assert_allclose(draws, expected, atol=1e-12)
    assert 0 < np.isnan(draws).sum() < draws.size  # some resamples of so few rows are constant


def test_draws_do_not_depend_on_how_many_are_measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    human, predicted = generator.normal(size=9), generator.normal(size=(2, 9))

    whole = bootstrap_draws(predicted, human, ["pearson", "mae"], 50, np.random.default_rng(1))
    monkeypatch.setattr(metrics, "CELLS", 7 * predicted.size)  # batches of 7

    in_parts = bootstrap_draws(predicted, human, ["pearson", "mae"], 50, np.random.default_rng(1))
    np.testing.assert_array_equal(in_parts, whole)


def test_an_interval_leaves_out_resamples_without_a_value() -> None:
    draws = np.arange(101.0)

    assert interval(draws) == (2.5, 97.5)
    assert interval(np.append(draws, np.nan)) == (2.5, 97.5)
    assert interval(np.array([np.nan, np.nan])) is None


def test_scipy_is_imported_on_first_use_only() -> None:
    code = (
        "import sys, qe_edge.metrics, qe_edge.cli, qe_edge.evaluation.comparison\n"
        "print('scipy' in sys.modules)\n"
        "qe_edge.metrics.spearman([1, 2], [1, 2])\n"
        "print('scipy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\nTrue\n"
