"""Groups, macro averages and paired differences, on hand-worked columns and on random ones of known quality."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from qe_edge.errors import InputError
from qe_edge.metrics import MEASURES, kendall, mae, pearson, rmse, spearman
from tests.qe_edge.evaluation.conftest import Evaluate

NAN = math.nan
HUMAN, SAME, TURNED = [10.0, 20, 30, 40], [11.0, 22, 33, 44], [4.0, 3, 2, 1]


def noisy(rows: int, noise: float, seed: int) -> dict[str, NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    human = generator.normal(50, 20, rows)
    return {"mean": human, "a": human + generator.normal(0, noise, rows), "b": human + generator.normal(0, 40, rows)}


def test_a_group_has_every_measure_and_the_macro_average_weighs_groups_equally(evaluated: Evaluate) -> None:
    groups = {"big": {"mean": HUMAN * 50, "qe": SAME * 50}, "small": {"mean": HUMAN, "qe": TURNED}}

    result = evaluated(groups)

    figures = [group.scores["qe"] for group in result.groups]
    for name, measure in {
        "spearman": spearman,
        "pearson": pearson,
        "kendall": kendall,
        "mae": mae,
        "rmse": rmse,
    }.items():
        expected = [measure(columns["qe"], columns["mean"]) for columns in groups.values()]
        assert [figure[name].value for figure in figures] == pytest.approx(expected)
        assert result.macro["qe"][name].value == pytest.approx(sum(expected) / 2)
        assert result.macro["qe"][name].groups == 2
    assert result.macro["qe"]["spearman"].value == pytest.approx(0)
    assert [group.rows for group in result.groups] == [200, 4]


def test_rows_without_a_number_are_left_out_and_counted(evaluated: Evaluate) -> None:
    columns = {"mean": [10, NAN, 30, 40, NAN], "a": [1.0, 2, 2, NAN, NAN], "b": [3.0, 2, 2, 1, 0]}
    more = {"mean": HUMAN, "a": SAME, "b": TURNED}

    result = evaluated({"et-en": {name: [*columns[name], *more[name]] for name in columns}})

    (group,) = result.groups
    assert (group.read, group.rows) == (9, 6)
    assert group.without == {"mean": 2, "a": 2, "b": 0}
    kept = {"mean": [10, 30, *HUMAN], "a": [1, 2, *SAME], "b": [3, 2, *TURNED]}
    for score in ("a", "b"):
        assert group.scores[score]["pearson"].value == pytest.approx(pearson(kept[score], kept["mean"]))


def test_ties_are_measured(evaluated: Evaluate) -> None:
    (group,) = evaluated({"et-en": {"mean": [100, 100, 100, 50, 20], "qe": [1.0, 2, 3, 4, 4]}}).groups

    assert group.tied == {"mean": 0.6, "qe": 0.4}


def test_a_constant_column_leaves_its_group_out_of_the_correlations_only(evaluated: Evaluate) -> None:
    result = evaluated({"flat": {"mean": [0.1] * 4, "qe": SAME}, "good": {"mean": HUMAN, "qe": SAME}})

    flat, good = result.groups
    assert (flat.constant, good.constant) == (["mean"], [])
    for name in ("spearman", "pearson", "kendall"):
        assert (flat.scores["qe"][name].value, flat.scores["qe"][name].interval) == (None, None)
        assert (result.macro["qe"][name].value, result.macro["qe"][name].groups) == (good.scores["qe"][name].value, 1)
    assert flat.scores["qe"]["mae"].value == pytest.approx((11 + 22 + 33 + 44) / 4 - 0.1)
    assert result.macro["qe"]["mae"].groups == 2


def test_a_difference_is_over_the_groups_where_both_are_defined(evaluated: Evaluate) -> None:
    groups = {
        "flat": {"mean": HUMAN, "a": [5.0] * 4, "b": SAME},
        "good": {"mean": HUMAN, "a": TURNED, "b": SAME},
    }

    result = evaluated(groups)

    assert result.macro["b"]["spearman"].groups == 2
    assert result.differences["b"]["spearman"].value == pytest.approx(1 - -1)
    assert result.differences["b"]["spearman"].groups == 1
    assert list(result.differences) == ["b"]


def test_a_group_of_two_rows_is_not_evaluated(evaluated: Evaluate) -> None:
    result = evaluated({"tiny": {"mean": [1, 2], "qe": [2, 1]}, "good": {"mean": HUMAN, "qe": SAME}})

    assert [bool(group.scores) for group in result.groups] == [False, True]
    assert result.macro["qe"]["spearman"].value == pytest.approx(1)


def test_nothing_to_evaluate_is_an_error(evaluated: Evaluate) -> None:
    with pytest.raises(InputError) as caught:
        evaluated({"tiny": {"mean": [1, 2], "qe": [2, 1]}, "empty": {"mean": [NAN] * 3, "qe": [1, 2, 3]}})
    assert str(caught.value) == (
        "t.tsv: no group has 3 rows with numbers in 'mean' and 'qe' (at most 2); check the columns, or the groups"
    )


def test_intervals_hold_the_figure_and_narrow_with_rows(evaluated: Evaluate) -> None:
    result = evaluated({"many": noisy(1000, 20, 1), "few": noisy(40, 20, 2)})

    widths = []
    for group in result.groups:
        for name in MEASURES:
            figure = group.scores["a"][name]
            assert figure.value is not None
            assert figure.interval is not None
            assert figure.interval[0] < figure.value < figure.interval[1]
            assert figure.undefined == 0
            widths.append(figure.interval[1] - figure.interval[0])
    # 25 times the rows: a fifth of the width, give or take the noise of 40 rows
    ratios = np.array(widths[:5]) / np.array(widths[5:])
    assert ((ratios > 0.1) & (ratios < 0.35)).all()


def test_the_macro_interval_is_that_of_independent_groups(evaluated: Evaluate) -> None:
    result = evaluated({name: noisy(150, 20, seed) for seed, name in enumerate("abcd")}, samples=1000)

    def width(interval: tuple[float, float] | None) -> float:
        assert interval is not None
        return interval[1] - interval[0]

    widths = [width(group.scores["a"]["pearson"].interval) for group in result.groups]
    # variances of independent means add up: width of the mean of 4 is sqrt(sum of squares) / 4
    expected = math.sqrt(sum(value**2 for value in widths)) / 4
    assert width(result.macro["a"]["pearson"].interval) == pytest.approx(expected, rel=0.15)


def test_the_macro_average_of_many_small_groups_has_an_interval(evaluated: Evaluate) -> None:
    """Segments with a few systems each: hardly a resample has a correlation in every group."""
    small = {"mean": [1, 2, 3], "qe": [1, 3, 2], "other": [1, 3, 2]}

    result = evaluated({f"segment {n}": small for n in range(100)})

    figure = result.macro["qe"]["spearman"]
    assert figure.value == pytest.approx(0.5)
    assert (figure.groups, figure.undefined) == (100, 0)
    # of 27 draws 6 hold all rows (.5), 12 have correlation 1, 6 have -1 and 3 none: mean .375, standard deviation .82
    error = 0.82 / math.sqrt(100 * 24 / 27)
    assert figure.interval == pytest.approx((0.375 - 1.96 * error, 0.375 + 1.96 * error), abs=0.05)
    assert result.differences["other"]["spearman"].interval == (0, 0)


def test_a_paired_difference_is_narrower_than_the_columns_themselves(evaluated: Evaluate) -> None:
    columns = noisy(500, 20, 3)
    nearly = {**columns, "b": columns["a"] + np.random.default_rng(4).normal(0, 1, 500)}

    result = evaluated({"et-en": nearly})

    own, difference = result.macro["b"]["spearman"].interval, result.differences["b"]["spearman"].interval
    assert own is not None
    assert difference is not None
    assert difference[1] - difference[0] < 0.3 * (own[1] - own[0])


def test_a_column_compared_with_its_copy_differs_by_exactly_nothing(evaluated: Evaluate) -> None:
    columns = noisy(50, 20, 3)

    result = evaluated({"et-en": {**columns, "b": columns["a"]}})

    for name in MEASURES:
        assert result.differences["b"][name].value == 0
        assert result.differences["b"][name].interval == (0, 0)


def test_intervals_depend_on_the_seed_and_the_group_but_not_on_other_groups(evaluated: Evaluate) -> None:
    columns = noisy(60, 20, 5)
    groups = {"et-en": columns, "ro-en": columns}

    first, second = evaluated(groups).groups
    assert evaluated(groups).groups == [first, second]
    assert evaluated({"ro-en": columns}).groups == [second]
    assert first.scores != second.scores
    assert evaluated(groups, seed=1).groups[0].scores != first.scores


def test_resamples_without_a_correlation_are_counted(evaluated: Evaluate) -> None:
    result = evaluated({"et-en": {"mean": [1, 2, 3], "qe": [1, 3, 2]}}, samples=2000)

    figure = result.groups[0].scores["qe"]["spearman"]
    # all three draws the same row: 3 / 27
    assert figure.undefined / 2000 == pytest.approx(1 / 9, abs=0.035)
    assert result.groups[0].scores["qe"]["mae"].undefined == 0
    assert figure.interval == pytest.approx((-1, 1))
