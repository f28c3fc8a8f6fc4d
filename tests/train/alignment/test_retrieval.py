"""The ratio margin worked by hand and against a slow direct computation; accuracies, directions and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qe_edge.errors import InputError
from qe_edge_train.alignment.retrieval import (
    accuracies,
    all_directions,
    all_hits,
    direction_accuracy,
    margin,
    mean_accuracy,
)

Matrix = NDArray[np.float64]


def random_states(seed: int, *shape: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape) + 1.0  # cosines mostly positive, as of real states


def slow_margin(x: Matrix, y: Matrix, k: int) -> Matrix:
    """The formula, sentence by sentence."""

    def cosine(a: Matrix, b: Matrix) -> float:
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    result = np.empty((len(x), len(y)))
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            near_a = sum(sorted((cosine(a, z) for z in y), reverse=True)[:k])
            near_b = sum(sorted((cosine(z, b) for z in x), reverse=True)[:k])
            result[i, j] = cosine(a, b) / (near_a / (2 * k) + near_b / (2 * k))
    return result


def test_the_margin_of_a_3_by_3_example_worked_by_hand() -> None:
    x = np.eye(3)
    y = np.array([[3.0, 4.0, 0.0], [0.0, 2.0, 0.0], [0.0, 6.0, 8.0]])
    # cosines  .6 0  0     k = 2, sums of the two nearest: of the rows .6, 1.8 (of .8 1 .6), .8;
    #          .8 1 .6                                     of the columns 1.4, 1, 1.4
    #          0  0 .8     divisor of (i, j): (row i + column j) / 4
    expected = [
        [0.6 / 0.5, 0.0, 0.0],
        [0.8 / 0.8, 1.0 / 0.7, 0.6 / 0.8],
        [0.0, 0.0, 0.8 / 0.55],
    ]

    np.testing.assert_allclose(margin(x, y, k=2), expected, rtol=1e-12)
    assert direction_accuracy(x, y, k=2) == 1.0
    assert margin(x, y, k=2)[0].argmax() == 0


def test_the_margin_finds_what_a_hub_hides_from_the_cosine() -> None:
    # the second target is near to everything: by cosine both sources choose it
    x = np.array([[1.0, 0.30], [1.0, 0.60]])
    y = np.array([[1.0, -0.10], [1.0, 0.50]])
    unit_x, unit_y = (states / np.linalg.norm(states, axis=1, keepdims=True) for states in (x, y))

    assert (unit_x @ unit_y.T).argmax(axis=1).tolist() == [1, 1]
    assert margin(x, y, k=2).argmax(axis=1).tolist() == [0, 1]
    assert (direction_accuracy(x, y, k=2), direction_accuracy(y, x, k=2)) == (1.0, 1.0)


@given(st.integers(0, 10_000), st.integers(3, 9), st.integers(3, 9), st.integers(1, 3))
def test_the_margin_is_the_formula_and_symmetric(seed: int, n: int, m: int, k: int) -> None:
    x, y = random_states(seed, n, 12), random_states(seed + 1, m, 12)

    scores = margin(x, y, k)

    np.testing.assert_allclose(scores, slow_margin(x, y, k), rtol=1e-9)
    np.testing.assert_allclose(scores, margin(y, x, k).T, rtol=1e-9)
    single = margin(x.astype(np.float32), y.astype(np.float32), k)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, scores, atol=1e-4)


def test_every_direction_is_that_of_its_two_languages() -> None:
    meaning = random_states(3, 30, 8)
    states = [meaning + 0.8 * random_states(10 + i, 30, 8) for i in range(4)]

    matrix = all_directions(states, 4)

    assert np.isnan(matrix.diagonal()).all()
    assert 0.1 < np.nanmin(matrix) < np.nanmax(matrix) < 1
    for a in range(4):
        for b in range(4):
            if a != b:
                assert matrix[a, b] == direction_accuracy(states[a], states[b], 4)
    assert not np.array_equal(matrix, matrix.T, equal_nan=True)


def test_the_same_states_are_all_found_and_equal_ones_only_by_chance() -> None:
    states = random_states(5, 12, 6)
    matrix = all_directions([states, 3 * states], 4)
    assert (matrix[0, 1], matrix[1, 0]) == (1.0, 1.0)

    collapsed = np.ones((10, 6))
    assert all_directions([collapsed, collapsed], 4)[0, 1] == pytest.approx(0.1)

    one_zero = states.copy()
    one_zero[3] = 0.0
    assert direction_accuracy(one_zero, states, 4) == pytest.approx(11 / 12)


def test_the_mean_accuracy_is_over_directions_and_its_interval_over_sentences() -> None:
    hits = np.zeros((2, 2, 4), bool)
    hits[0, 1] = [True, True, True, False]
    hits[1, 0] = [True, False, False, False]

    accuracy, low, high = mean_accuracy(hits)

    assert accuracies(hits)[0, 1] == 0.75
    assert accuracies(hits)[1, 0] == 0.25
    assert accuracy == 0.5  # of sentences found in 1, .5, .5, 0 of their directions
    assert low < 0.5 < high
    assert mean_accuracy(hits) == (accuracy, low, high)
    assert mean_accuracy(np.ones((3, 3, 5), bool) & ~np.eye(3, dtype=bool)[..., None]) == (1.0, 1.0, 1.0)


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    hits = np.zeros((2, 2, 400), bool)
    hits[0, 1] = hits[1, 0] = np.arange(400) % 2 == 0

    _, low, high = mean_accuracy(hits)

    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)


def test_fewer_sentences_than_neighbours_are_refused() -> None:
    states = random_states(1, 3, 5)

    with pytest.raises(InputError, match="the 4 nearest of 3 sentences: retrieval needs at least 4 lines; raise"):
        all_hits([states, states], 4)
