"""Curve and recommendation: hand-worked rule, and intervals that say what they should."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from qe_edge.errors import InputError
from qe_edge.metrics import FloatArray, bootstrap_interval, spearman
from qe_edge_train.probe.curve import Layer, dev_curve, recommend


def layer(blocks_kept: int, macro: float, best: float, error: float, blocks: int = 6) -> Layer:
    tap = blocks - blocks_kept + 1
    return Layer(blocks_kept, tap, {}, {}, macro, (0, 0), macro - best, (0, 0), 0.0 if macro == best else error)


def test_the_fewest_blocks_within_one_standard_error_are_chosen() -> None:
    macros, errors = [0.20, 0.41, 0.47, 0.44, 0.50, 0.45], [0.05, 0.05, 0.05, 0.10, 0.01, 0.02]
    curve = [layer(i + 1, macro, 0.50, error) for i, (macro, error) in enumerate(zip(macros, errors, strict=True))]

    found = recommend(curve)

    assert found.best.blocks_kept == 5
    assert found.chosen.blocks_kept == 3  # .47 >= .50 - .05; layer 2 (.41) is not
    assert found.chosen.tap == 4
    assert found.tap_set == (4, 5, 6)  # the layers 3, 2, 1: there are no more below


def test_the_best_layer_is_chosen_when_every_shallower_one_is_clearly_worse() -> None:
    curve = [layer(1, 0.1, 0.5, 0.05, 12), layer(2, 0.2, 0.5, 0.05, 12), layer(3, 0.5, 0.5, 0.0, 12)]

    found = recommend(curve)

    assert found.best == found.chosen == curve[2]
    assert found.tap_set == (10, 11, 12)


def test_a_curve_has_the_correlations_of_each_pair_and_their_mean() -> None:
    generator = np.random.default_rng(5)
    human = generator.normal(size=60)
    noise = generator.normal(size=(3, 60))
    predicted = human + noise * np.array([[3.0], [0.3], [1.0]])
    pairs = ["et-en", "ne-en"] * 30

    curve = dev_curve(predicted, human, pairs, blocks=5, seed=1, samples=400)

    assert [(one.blocks_kept, one.tap) for one in curve] == [(1, 5), (2, 4), (3, 3)]
    for one, scores in zip(curve, predicted, strict=True):
        expected = {"et-en": spearman(scores[::2], human[::2]), "ne-en": spearman(scores[1::2], human[1::2])}
        assert one.pairs == pytest.approx(expected)
        assert one.macro == pytest.approx(np.mean(list(expected.values())))
        low, high = bootstrap_interval([scores[::2], scores[1::2]], [human[::2], human[1::2]])
        assert one.macro_interval == pytest.approx((low, high), abs=0.05)
    assert (curve[1].difference, curve[1].difference_error) == (0.0, 0.0)
    assert curve[1].difference_interval == (0.0, 0.0)
    assert curve[0].difference_interval[1] < 0


def test_a_paired_difference_is_narrower_than_two_intervals_when_layers_agree() -> None:
    generator = np.random.default_rng(6)
    human = generator.normal(size=80)
    first = human + generator.normal(size=80)
    predicted = np.stack([first, first + 0.1 * generator.normal(size=80)])

    curve = dev_curve(predicted, human, ["et-en"] * 80, blocks=2, seed=1)

    worse = min(curve, key=lambda one: one.macro)
    width = worse.macro_interval[1] - worse.macro_interval[0]
    assert worse.difference_interval[1] - worse.difference_interval[0] < width / 3


def test_the_same_seed_gives_the_same_intervals() -> None:
    generator = np.random.default_rng(7)
    human, predicted = generator.normal(size=30), generator.normal(size=(2, 30))

    assert dev_curve(predicted, human, ["a-b"] * 30, 2, 1, 50) == dev_curve(predicted, human, ["a-b"] * 30, 2, 1, 50)
    assert dev_curve(predicted, human, ["a-b"] * 30, 2, 1, 50) != dev_curve(predicted, human, ["a-b"] * 30, 2, 2, 50)


def noisy(seed: int, layers: int, rows: int = 40) -> tuple[FloatArray, FloatArray]:
    """Predictions [layers, rows], the later layer the better, and human scores [rows]."""
    generator = np.random.default_rng(seed)
    human = generator.normal(size=rows)
    return human + generator.normal(size=(layers, rows)) * np.linspace(2.0, 0.3, layers)[:, None], human


def test_a_layer_without_a_correlation_is_neither_the_best_nor_chosen() -> None:
    predicted, human = noisy(8, 3)
    predicted[0, ::2] = 1.0  # the first layer scores all rows of a-b alike
    pairs = ["a-b", "c-d"] * 20

    curve = dev_curve(predicted, human, pairs, 3, 1, 100)
    found = recommend(curve)

    assert math.isnan(curve[0].pairs["a-b"])
    assert curve[0].pairs["c-d"] == pytest.approx(spearman(predicted[0, 1::2], human[1::2]))
    undefined = (curve[0].macro, curve[0].difference, curve[0].difference_error, *curve[0].macro_interval)
    assert all(map(math.isnan, undefined))
    assert found.best == curve[2]
    assert curve[2].difference == 0.0
    assert found.chosen.blocks_kept > 1
    # what the other layers show does not depend on the undefined one
    assert dev_curve(predicted[1:], human, pairs, 2, 1, 100) == [
        dataclasses.replace(one, blocks_kept=one.blocks_kept - 1) for one in curve[1:]
    ]


def test_curve_and_recommendation_agree_on_the_best_layer_wherever_one_is_undefined() -> None:
    for undefined in range(3):
        predicted, human = noisy(9, 3)
        predicted[undefined] = 1.0

        curve = dev_curve(predicted, human, ["a-b"] * 40, 3, 1, 50)

        best = recommend(curve).best
        assert best.difference == 0.0
        assert best.macro == max(one.macro for i, one in enumerate(curve) if i != undefined)


def test_no_layer_with_a_correlation_ends_with_the_remedy() -> None:
    human = np.arange(6.0)

    with pytest.raises(InputError, match="no layer has a dev Spearman for every language pair"):
        dev_curve(np.ones((2, 6)), human, ["a-b"] * 6, 2, 1, 20)
    with pytest.raises(InputError, match="no layer has a dev Spearman"):
        recommend([dataclasses.replace(layer(1, 0.1, 0.1, 0.0), macro=math.nan, difference=math.nan)])


def test_a_best_layer_without_a_standard_error_is_chosen_itself() -> None:
    nan = math.nan
    curve = [layer(1, nan, 0.5, nan), layer(2, 0.4, 0.5, nan), layer(3, 0.5, 0.5, nan), layer(4, 0.3, 0.5, nan)]

    found = recommend([dataclasses.replace(one, difference_error=nan) for one in curve])

    assert found.best.blocks_kept == found.chosen.blocks_kept == 3


def test_a_curve_that_no_resample_can_measure_has_no_intervals_and_still_a_best_layer() -> None:
    pairs = [f"a-{number // 2}" for number in range(40)]  # a resample draws both rows of all 20 pairs once in 2^20
    human = np.array([1.0, 2.0] * 20)

    curve = dev_curve(np.stack([human, -human]), human, pairs, 2, 1, 50)

    assert [one.macro for one in curve] == pytest.approx([1.0, -1.0])
    assert all(map(math.isnan, (*curve[1].macro_interval, *curve[1].difference_interval, curve[1].difference_error)))
    assert recommend(curve).chosen == curve[0]
