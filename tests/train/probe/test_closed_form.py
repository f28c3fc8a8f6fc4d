"""The closed-form head: against a direct solve, and its leave-one-out errors against a loop of refits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qe_edge.metrics import FloatArray
from qe_edge_train.probe.closed_form import fit_ridge, leave_one_out_errors

MORE_ROWS, MORE_FEATURES = (30, 6), (8, 20)


def problem(rows: int, width: int, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Random features [rows, width], a noisy linear target and uneven weights."""
    generator = np.random.default_rng(seed)
    scale, level = generator.uniform(0.1, 50, width), generator.normal(size=width)
    features: FloatArray = generator.normal(size=(rows, width)) * scale + level
    target: FloatArray = features @ generator.normal(size=width) + generator.normal(size=rows) + 60
    return features, target, generator.uniform(0.2, 3, rows)


def direct(features: FloatArray, target: FloatArray, weights: FloatArray, penalty: float) -> FloatArray:
    """Coefficients [H + 1] of weighted ridge regression by the normal equations, the intercept (last) not penalised."""
    design = np.column_stack([features, np.ones(len(features))])
    penalties = penalty * np.eye(features.shape[1] + 1)
    penalties[-1, -1] = 0
    solved = np.linalg.solve(design.T * weights @ design + penalties, design.T * weights @ target)
    return np.asarray(solved, np.float64)


def standardised(features: FloatArray, weights: FloatArray) -> FloatArray:
    mean = (weights[:, None] * features).sum(0) / weights.sum()
    deviation = np.sqrt((weights[:, None] * (features - mean) ** 2).sum(0) / weights.sum())
    scaled: FloatArray = (features - mean) / deviation
    return scaled


@pytest.mark.parametrize(("rows", "width"), [MORE_ROWS, MORE_FEATURES])
@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_the_head_is_the_solution_of_the_normal_equations(rows: int, width: int, penalty: float) -> None:
    features, target, weights = problem(rows, width)
    scaled = standardised(features, weights)
    expected = np.column_stack([scaled, np.ones(rows)]) @ direct(scaled, target, weights, penalty * weights.sum())

    head = fit_ridge(features, target, weights, np.array([penalty]))

    np.testing.assert_allclose(head.predict(features), expected, rtol=1e-8)


@pytest.mark.parametrize(("rows", "width"), [MORE_ROWS, MORE_FEATURES])
def test_leave_one_out_errors_are_those_of_a_loop_of_refits(rows: int, width: int) -> None:
    features, target, weights = problem(rows, width)
    penalties = np.array([1e-3, 0.1, 10.0])
    scaled = standardised(features, weights)

    errors = leave_one_out_errors(features, target, weights, penalties)

    for p, penalty in enumerate(penalties):
        for i in range(rows):
            others = np.arange(rows) != i
            head = direct(scaled[others], target[others], weights[others], penalty * weights.sum())
            assert errors[p, i] == pytest.approx(target[i] - scaled[i] @ head[:-1] - head[-1], rel=1e-7, abs=1e-9)


def test_the_penalty_is_the_one_with_the_smallest_weighted_leave_one_out_error() -> None:
    features, target, weights = problem(25, 40, seed=3)
    target = target + np.random.default_rng(1).normal(size=25) * 200  # noise enough that the weakest penalty loses
    penalties = np.logspace(-3, 3, 13)
    press = (weights * leave_one_out_errors(features, target, weights, penalties) ** 2).sum(axis=1)

    head = fit_ridge(features, target, weights, penalties)

    assert head.penalty == penalties[np.argmin(press)]
    assert head.penalty > penalties[0]


def test_an_exactly_linear_target_is_found_again() -> None:
    features, _, weights = problem(40, 5)
    head = fit_ridge(features, 3 * features[:, 2] + 7, weights, np.array([1e-12]))

    np.testing.assert_allclose(head.weights / head.scale, [0, 0, 3, 0, 0], atol=1e-8)


def test_a_constant_feature_changes_nothing() -> None:
    features, target, weights = problem(*MORE_ROWS)
    with_constant = np.column_stack([features, np.full(len(features), 4.0)])

    expected = fit_ridge(features, target, weights).predict(features)

    np.testing.assert_allclose(fit_ridge(with_constant, target, weights).predict(with_constant), expected)


@given(st.integers(2, 12), st.integers(1, 12), st.floats(-50, 50), st.floats(0.1, 20), st.integers(0, 99))
def test_level_and_scale_of_the_target_move_the_scores_alike(
    rows: int, width: int, level: float, scale: float, seed: int
) -> None:
    features, target, weights = problem(rows, width, seed)
    penalty = np.array([0.3])

    plain = fit_ridge(features, target, weights, penalty).predict(features)
    moved = fit_ridge(features, scale * target + level, weights, penalty).predict(features)

    np.testing.assert_allclose(moved, scale * plain + level, rtol=1e-6, atol=1e-6)


def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    features, target, _ = problem(12, 3)
    weights = np.array([2.0, *np.ones(11)])
    twice = [0, *range(12)]

    single = fit_ridge(features, target, weights, np.array([0.5]))
    double = fit_ridge(features[twice], target[twice], np.ones(13), np.array([0.5]))

    np.testing.assert_allclose(single.predict(features), double.predict(features))
