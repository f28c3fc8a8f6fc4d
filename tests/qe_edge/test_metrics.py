"""Metrics on hand-worked columns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qe_edge.metrics import Agreement, agreement, bootstrap_interval, macro_spearman, pearson, spearman


def test_pearson_of_a_hand_worked_example() -> None:
    # deviations (-1, 0, 1) and (-2/3, 1/3, 1/3): 1 / sqrt(2 * 2/3) = sqrt(3) / 2
    assert pearson([1, 2, 3], [0, 1, 1]) == pytest.approx(math.sqrt(3) / 2)


def test_spearman_gives_ties_their_mean_rank() -> None:
    # ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): covariance sum 4.5, variances 4.5 and 5
    assert spearman([10, 20, 20, 90], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


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
