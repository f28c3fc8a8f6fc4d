"""The gate: what it measures on hand-worked scores, and that every figure beyond its bound stops the export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from qe_edge.bundle import PRECISIONS
from qe_edge.errors import GateError
from qe_edge.scoring.graph import KeyValueShape
from qe_edge_export.gate import BOUNDS, REMEDIES, Bounds, Figures, enforce, gate_record, in_doubt, measure, settle
from qe_edge_export.samples import CalibrationRows
from qe_edge_train.batches import EncodedSet
from qe_edge_train.data import Example

SHAPE = KeyValueShape(blocks=1, kv_heads=1, head_dim=2)


class SumGraph:
    """Stands for a graph: a row scores the sum of its ids, more by `neighbours` for each other row of its batch and by
    `padding` for each padded position."""

    def __init__(self, neighbours: float = 0.0, padding: float = 0.0) -> None:
        self.neighbours, self.padding = neighbours, padding

    def prefix(self, tokens: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        return {"past_key_0": np.full((1, 1, 1, 2), sum(tokens), np.float32)}

    def run(self, past, tokens, last, outputs):  # type: ignore[no-untyped-def]
        assert list(outputs) == ["score"]
        alone = past["past_key_0"][0, 0, 0, 0] + tokens.sum(1)
        padded = tokens.shape[1] - 1 - last
        return [(alone + self.neighbours * (len(tokens) - 1) + self.padding * padded).astype(np.float32)]


def rows(scale: float = 1.0) -> EncodedSet:
    """Two pairs of four rows; body i of a pair has i + 1 ids; the human scores span 100 * scale."""
    bodies = [[5], [4, 4], [1, 2, 3], [9, 9, 9, 9]]
    names = {"et-en": ("Estonian", "English"), "ne-en": ("Nepali", "English")}
    human = {"et-en": [0, 30, 60, 100], "ne-en": [100, 60, 30, 0]}
    examples = [Example(pair, names[pair], ("s", "t"), scale * human[pair][i]) for pair in names for i in range(4)]
    return EncodedSet(examples, bodies + bodies, {names["et-en"]: [10], names["ne-en"]: [20]})


SCORES = np.array([15.0, 18, 16, 46, 25, 28, 26, 56])


def measured(graph: SumGraph, trained: NDArray[np.float64]) -> Figures:
    data = rows()
    return measure(graph, CalibrationRows.of(data, SHAPE), data, trained)  # type: ignore[arg-type]


def test_equal_scores_differ_by_nothing() -> None:
    figures = measured(SumGraph(), SCORES)

    assert figures.rows == 8
    assert figures.max_difference == figures.mean_difference == figures.movement == figures.loss == 0
    assert figures.spearman_with_trained == pytest.approx(1)
    # ranks 1 3 2 4 against 1 2 3 4: 1 - 6 * 2 / (4 * 15) = .8; against 4 3 2 1: -.8
    assert figures.spearman_trained == pytest.approx(0)
    enforce(figures, BOUNDS["fp32"], "fp32")


def test_differences_and_correlations_are_those_worked_by_hand() -> None:
    trained = SCORES + np.array([0, 0, 4, 0, 0, 0, 0, -2])  # et-en now in the order 1 2 3 4

    figures = measured(SumGraph(), trained)

    assert figures.max_difference == 4
    assert figures.mean_difference == 6 / 8
    assert figures.spearman_with_trained == pytest.approx((0.8 + 1) / 2)
    assert figures.spearman_trained == pytest.approx((1 - 0.8) / 2)
    assert figures.spearman_exported == pytest.approx(0)
    assert figures.loss == pytest.approx(0.1)


def test_a_score_that_depends_on_its_neighbours_is_seen() -> None:
    figures = measured(SumGraph(neighbours=0.5), SCORES)

    assert figures.movement_alone == 1.5  # four in a batch, then alone
    assert figures.movement_batch_size == 1.5  # batches of three: one row is left alone
    assert figures.movement == 1.5
    with pytest.raises(GateError, match=r"fp32: largest difference"):
        enforce(figures, BOUNDS["fp32"], "fp32")
    with pytest.raises(GateError, match=r"w8a8: largest movement of a score between batches is 1\.5, at most 0\.01"):
        enforce(figures, BOUNDS["w8a8"], "w8a8")


def test_a_score_that_depends_on_padding_is_seen() -> None:
    figures = measured(SumGraph(padding=0.25), SCORES)

    assert figures.movement_alone == 0.75  # the body of one id is padded to four, then not at all
    assert figures.movement == 0.75


GOOD = Figures(
    rows=100,
    point=1.0,
    max_difference=0.0,
    mean_difference=0.0,
    movement_alone=0.0,
    movement_shuffled=0.0,
    movement_batch_size=0.0,
    spearman_with_trained=1.0,
    spearman_trained=0.5,
    spearman_exported=0.5,
    loss_rows=100,
    loss_error=0.001,
)


@pytest.mark.parametrize(
    ("precision", "change", "message"),
    [
        ("fp32", {"max_difference": 0.051}, r"difference from the trained model's scores is 0\.051, at most 0\.05"),
        ("fp32", {"mean_difference": 0.02}, r"mean difference from the trained model's scores is 0\.02, at most 0\.01"),
        ("fp32", {"spearman_with_trained": 0.9998}, r"with the trained model's scores is 0\.9998, at least 0\.9999"),
        ("fp32", {"max_difference": float("nan")}, r"is nan"),
        ("fp16", {"max_difference": 0.51}, r"fp16: largest difference .* is 0\.51, at most 0\.5 .*--precision fp32"),
        ("fp16", {"mean_difference": float("nan")}, r"fp16: mean difference .* is nan, at most 0\.05"),
        ("int8", {"movement_shuffled": 0.02}, r"int8: largest movement of a score between batches is 0\.02, at most"),
        ("int8", {"spearman_with_trained": 0.979}, r"is 0\.979, at least 0\.98"),
        ("int4", {"spearman_with_trained": 0.899}, r"is 0\.899, at least 0\.9 "),
        ("int4", {"spearman_exported": 0.489}, r"on 100 rows \(standard error 0\.001\) is 0\.011, at most"),
        ("w8a8", {"movement_alone": 0.02}, r"w8a8: largest movement of a score between batches is 0\.02, at most"),
        ("w8a8", {"movement_shuffled": float("nan")}, r"largest movement of a score between batches is nan"),
        ("w8a8", {"movement_batch_size": 0.02}, r"largest movement of a score between batches"),
        ("w8a8", {"spearman_exported": 0.489}, r"on 100 rows \(standard error 0\.001\) is 0\.011, at most"),
        ("w8a8", {"spearman_with_trained": 0.949}, r"is 0\.949, at least 0\.95"),
        ("w8a8", {"spearman_with_trained": float("nan")}, r"is nan, at least 0\.95"),
    ],
)  # fmt: skip
def test_every_figure_beyond_its_bound_stops_the_export(precision: str, change: dict[str, float], message: str) -> None:
    enforce(GOOD, BOUNDS[precision], precision)

    with pytest.raises(GateError, match=message) as caught:
        enforce(replace(GOOD, **change), BOUNDS[precision], precision)  # type: ignore[arg-type]

    assert caught.value.exit_code == 8
    assert "nothing was written" in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "error", "doubt"),
    [
        (0.0, 0.004, False),
        (0.0, 0.0051, True),
        (0.009, 0.0004, False),
        (0.009, 0.0006, True),
        (0.03, 0.009, False),  # surely too much
        (0.03, 0.011, True),
        (0.0, float("nan"), True),
        (float("nan"), 0.001, True),
    ],
)
def test_a_loss_within_two_standard_errors_of_its_bound_is_in_doubt(loss: float, error: float, doubt: bool) -> None:
    figures = replace(GOOD, spearman_exported=0.5 - loss, loss_error=error)

    assert in_doubt(figures, [0.01]) == doubt
    assert in_doubt(figures, [0.5, 0.01]) == doubt
    assert not in_doubt(figures, [])


def many(count: int, seed: int = 0) -> tuple[EncodedSet, NDArray[np.float64]]:
    """`count` rows of each of two pairs, and scores of a trained model that agree with people somewhat."""
    random = np.random.default_rng(seed)
    names = {"et-en": ("Estonian", "English"), "ne-en": ("Nepali", "English")}
    bodies = random.integers(0, 1000, (2 * count, 1)).tolist()
    human = [body[0] + random.normal(0, 300) for body in bodies]
    examples = [
        Example(pair, names[pair], ("s", "t"), human[i * count + row])
        for i, pair in enumerate(names)
        for row in range(count)
    ]
    data = EncodedSet(examples, bodies, {names["et-en"]: [10], names["ne-en"]: [20]})
    return data, np.array([body[0] for body in bodies]) + random.normal(0, 50, 2 * count)


@pytest.mark.parametrize("count", [100, 300])
def test_the_standard_error_is_how_much_the_loss_differs_between_samples_of_rows(count: int) -> None:
    samples = [
        measure(SumGraph(), CalibrationRows.of(data, SHAPE), data, trained)  # type: ignore[arg-type]
        for data, trained in (many(count, seed) for seed in range(60))
    ]

    assert {figures.loss_rows for figures in samples} == {2 * count}
    spread = np.std([figures.loss for figures in samples])
    assert np.mean([figures.loss_error for figures in samples]) == pytest.approx(spread, rel=0.3)


def test_more_rows_settle_the_loss_and_nothing_else() -> None:
    data, trained = many(60)
    before = measured(SumGraph(), SCORES)

    after = settle(before, SumGraph(), CalibrationRows.of(data, SHAPE), data, trained)  # type: ignore[arg-type]

    alone = measure(SumGraph(), CalibrationRows.of(data, SHAPE), data, trained)  # type: ignore[arg-type]
    loss = {name: getattr(alone, name) for name in ("spearman_trained", "spearman_exported", "loss_rows", "loss_error")}
    assert after == replace(before, **loss)
    assert after.rows == 8
    assert after.loss_rows == 120


@pytest.mark.parametrize("scale", [0.001, 0.08, 1e6])
def test_figures_are_shares_of_the_range_of_human_scores(scale: float) -> None:
    class ScaledGraph(SumGraph):
        def run(self, *arguments):  # type: ignore[no-untyped-def]
            return [scale * scores for scores in super().run(*arguments)]  # type: ignore[no-untyped-call]

    graph, data = ScaledGraph(), rows(scale)

    figures = measure(graph, CalibrationRows.of(data, SHAPE), data, scale * (SCORES + 4))  # type: ignore[arg-type]

    assert figures.point == pytest.approx(scale)
    assert figures.max_difference == pytest.approx(4, rel=1e-5)
    assert figures.mean_difference == pytest.approx(4, rel=1e-5)
    with pytest.raises(GateError, match=r"is 4(\.0+\d)?, at most 0\.05 .*; check that base"):
        enforce(figures, BOUNDS["fp32"], "fp32")


def test_every_precision_has_bounds_and_a_remedy() -> None:
    assert set(BOUNDS) == set(REMEDIES) == set(PRECISIONS)


def test_a_better_order_of_the_rows_is_no_loss() -> None:
    enforce(replace(GOOD, spearman_exported=0.6), BOUNDS["w8a8"], "w8a8")


def test_the_record_holds_figures_to_four_decimals_and_bounds() -> None:
    record = gate_record(replace(GOOD, max_difference=0.01234567), Bounds(None, None, 0.01, 0.95, 0.01))

    assert record["rows"] == record["loss_rows"] == 100
    assert record["max_difference"] == 0.0123
    assert record["bounds"]["max_difference"] is None
    assert record["bounds"]["spearman_with_trained"] == 0.95


def test_an_error_that_is_not_defined_is_null_in_the_record() -> None:
    data, trained = many(60)

    figures = measure(SumGraph(), CalibrationRows.of(data, SHAPE), data, 0 * trained)  # type: ignore[arg-type]

    assert np.isnan(figures.loss_error)
    assert in_doubt(figures, [0.01])
    assert gate_record(figures, BOUNDS["w8a8"])["loss_error"] is None
