"""The gate of an export: its scores against the trained model's, and whether they depend on how rows are batched.

All differences are in points: hundredths of the range of the human scores, so that a bound means the same on any score
scale; on DA 0-100 a point is 1. A figure beyond its bound stops the export.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from qe_edge.errors import GateError
from qe_edge.metrics import FloatArray, agreement, jackknife_error, macro_spearman
from qe_edge.scoring.graph import Graph
from qe_edge_export.samples import BATCH_SIZE, CalibrationRows
from qe_edge_train.batches import EncodedSet
from qe_edge_train.evaluate import per_pair
from qe_edge_train.output import without_nan

SMALLER, LARGER = 3, 32
"""Batch sizes tried beside BATCH_SIZE and 1."""
DOUBT = 2.0
"""Standard errors of a loss within which it cannot be told from a bound."""
DECIMALS = 4
REMEDIES = MappingProxyType(
    {
        "fp32": "nothing was written; check that base and tables are those of the training",
        "fp16": "nothing was written; export with --precision fp32",
        **dict.fromkeys(
            ("w8a8", "w4a8", "int8", "int4"),
            "nothing was written; keep the most harmful layers in float32 with --keep-layers auto, or export with "
            "--precision fp32",
        ),
    }
)
"""What to do, by precision."""


@dataclass(frozen=True)
class Bounds:
    """What a precision may cost. None: the figure is recorded and not bounded."""

    max_difference: float | None
    """largest difference of a row's score from the trained model's, in points"""
    mean_difference: float | None
    """mean absolute difference, in points"""
    movement: float
    """largest movement of a row's score when it is scored alone, shuffled, or in other batch sizes, in points"""
    spearman_with_trained: float
    """least Spearman correlation with the trained model's scores, mean over language pairs"""
    loss: float
    """most Spearman correlation with human scores that may be lost, mean over language pairs"""


BOUNDS = MappingProxyType(
    {
        "fp32": Bounds(0.05, 0.01, movement=0.01, spearman_with_trained=0.9999, loss=0.001),
        "fp16": Bounds(0.5, 0.05, movement=0.01, spearman_with_trained=0.999, loss=0.002),
        # Integers move every score a little: what counts is the order of the rows.
        "w8a8": Bounds(None, None, movement=0.01, spearman_with_trained=0.95, loss=0.01),
        "int8": Bounds(None, None, movement=0.01, spearman_with_trained=0.98, loss=0.01),
        "w4a8": Bounds(None, None, movement=0.01, spearman_with_trained=0.9, loss=0.01),
        "int4": Bounds(None, None, movement=0.01, spearman_with_trained=0.9, loss=0.01),
    }
)
"""By precision."""


@dataclass(frozen=True)
class Figures:
    """What the gate measured; recorded in `bundle.json` (docs/bundle.md)."""

    rows: int
    """dev rows compared"""
    point: float
    """size of a point on the score scale"""
    max_difference: float
    """largest difference of a row's score from the trained model's, in points"""
    mean_difference: float
    """mean absolute difference, in points"""
    movement_alone: float
    """largest movement of a row scored alone, in points"""
    movement_shuffled: float
    """largest movement of a row in unsorted batches, with other neighbours and other padding, in points"""
    movement_batch_size: float
    """largest movement of a row in smaller and larger batches, in points"""
    spearman_with_trained: float
    """correlation with the trained model's scores, mean over language pairs"""
    spearman_trained: float
    """of the trained model's scores with human scores, mean over language pairs"""
    spearman_exported: float
    """of the exported graph's scores with human scores, mean over language pairs"""
    loss_rows: int
    """dev rows on which these two were measured: `rows`, or more where those left the loss in doubt"""
    loss_error: float
    """standard error of the loss by the jackknife; language pairs are independent"""

    @property
    def movement(self) -> float:
        """Largest movement of a row, in points."""
        return float(np.max([self.movement_alone, self.movement_shuffled, self.movement_batch_size]))

    @property
    def loss(self) -> float:
        """Spearman correlation with human scores that the export lost, mean over language pairs."""
        return self.spearman_trained - self.spearman_exported


class _Loss(NamedTuple):
    """Correlation with human scores before and after: the part of `Figures` that many rows are needed for."""

    spearman_trained: float
    spearman_exported: float
    loss_rows: int
    loss_error: float


def measure(graph: Graph, rows: CalibrationRows, data: EncodedSet, trained: FloatArray) -> Figures:
    """Compare a graph's scores with the trained model's.

    rows: those of `data`, in the same order, at least two of every language pair; trained: [n] their scores.
    """
    scores = rows.scores(graph).astype(np.float64)
    human = np.array([example.score for example in data.examples])
    point = float(np.ptp(human)) / 100

    def movement(batch_size: int, by_length: bool = True) -> float:
        return float(np.abs(rows.scores(graph, batch_size, by_length) - scores).max()) / point

    pairs = np.array([example.pair for example in data.examples])
    same = {pair: agreement(scores[pairs == pair], trained[pairs == pair]) for pair in data.pairs}
    difference = np.abs(scores - trained) / point
    return Figures(
        rows=len(scores),
        point=point,
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        movement_alone=movement(1),
        movement_shuffled=movement(BATCH_SIZE, by_length=False),
        movement_batch_size=max(movement(SMALLER), movement(LARGER)),
        spearman_with_trained=macro_spearman(same),
        **_loss(scores, trained, data)._asdict(),
    )


def in_doubt(figures: Figures, bounds: Sequence[float]) -> bool:
    """Whether the loss is too near one of the bounds to say on which side of it the model is."""
    return any(not abs(figures.loss - bound) > DOUBT * figures.loss_error for bound in bounds)


def settle(figures: Figures, graph: Graph, rows: CalibrationRows, data: EncodedSet, trained: FloatArray) -> Figures:
    """The same with the loss of other, more rows; arguments as for `measure`."""
    return replace(figures, **_loss(rows.scores(graph).astype(np.float64), trained, data)._asdict())


def enforce(figures: Figures, bounds: Bounds, precision: str) -> None:
    """Raise GateError naming the first figure beyond its bound. A figure that is not a number is beyond it."""
    at_most = (
        ("largest difference from the trained model's scores", figures.max_difference, bounds.max_difference),
        ("mean difference from the trained model's scores", figures.mean_difference, bounds.mean_difference),
        ("largest movement of a score between batches", figures.movement, bounds.movement),
        (
            f"loss of Spearman correlation with human scores on {figures.loss_rows} rows "
            f"(standard error {figures.loss_error:.2g})",
            figures.loss,
            bounds.loss,
        ),
    )
    for name, value, bound in at_most:
        if bound is not None and not value <= bound:
            raise GateError(f"{precision}: {name} is {value:.4g}, at most {bound:g} is allowed; {REMEDIES[precision]}")
    value, least = figures.spearman_with_trained, bounds.spearman_with_trained
    if not value >= least:
        raise GateError(
            f"{precision}: Spearman correlation with the trained model's scores is {value:.6g}, "
            f"at least {least:g} is needed; {REMEDIES[precision]}"
        )


def gate_record(figures: Figures, bounds: Bounds) -> dict[str, Any]:
    """Figures, to 4 decimals, and bounds as they stand in `bundle.json`."""
    rounded = without_nan({name: round(value, DECIMALS) for name, value in asdict(figures).items()})
    return {**rounded, "point": figures.point, "bounds": asdict(bounds)}


def _loss(scores: FloatArray, trained: FloatArray, data: EncodedSet) -> _Loss:
    every = range(len(data.examples))
    pairs = np.array([example.pair for example in data.examples])
    human = np.array([example.score for example in data.examples])
    errors = [jackknife_error(trained[own], scores[own], human[own]) for own in (pairs == pair for pair in data.pairs)]
    return _Loss(
        spearman_trained=macro_spearman(per_pair(data, every, trained)),
        spearman_exported=macro_spearman(per_pair(data, every, scores)),
        loss_rows=len(scores),
        loss_error=float(np.linalg.norm(errors)) / len(errors),
    )
