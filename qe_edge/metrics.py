"""Agreement of predicted with human scores, defined once. Needs scipy (extra `eval`), imported on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Agreement on one set of rows."""

    rows: int
    """rows compared"""
    spearman: float
    """Spearman's rank correlation, ties at their mean rank; nan when a side is constant"""
    pearson: float
    """Pearson's correlation; nan when a side is constant"""
    mae: float
    """mean absolute error on the score scale"""


def agreement(predicted: ArrayLike, human: ArrayLike) -> Agreement:
    """Compare predicted with human scores, both of length n >= 2."""
    x, y = _columns(predicted, human)
    return Agreement(len(x), spearman(x, y), pearson(x, y), float(np.abs(x - y).mean()))


def pearson(predicted: ArrayLike, human: ArrayLike) -> float:
    """Pearson's correlation of two score columns; nan when one is constant."""
    x, y = _columns(predicted, human)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def spearman(predicted: ArrayLike, human: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's correlation of the ranks, ties at their mean rank."""
    from scipy.stats import rankdata

    x, y = _columns(predicted, human)
    return pearson(rankdata(x), rankdata(y))


def macro_spearman(per_pair: Mapping[str, Agreement]) -> float:
    """Mean over language pairs of the per-pair Spearman; pooled correlations are inflated by the pairs' levels."""
    return float(np.mean([value.spearman for value in per_pair.values()]))


def bootstrap_interval(
    predicted: Sequence[ArrayLike],
    human: Sequence[ArrayLike],
    statistic: str = "spearman",
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a correlation, averaged over groups, rows resampled within each group.

    predicted, human: one column per group (language pair); statistic: "spearman" or "pearson".
    """
    measure = {"spearman": spearman, "pearson": pearson}[statistic]
    columns = [_columns(x, y) for x, y in zip(predicted, human, strict=True)]
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(samples):
        draws = [generator.integers(0, len(x), len(x)) for x, _ in columns]
        means.append(np.mean([measure(x[i], y[i]) for (x, y), i in zip(columns, draws, strict=True)]))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _columns(predicted: ArrayLike, human: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(predicted, np.float64), np.asarray(human, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"two columns of equal length >= 2 are needed, not {x.shape} and {y.shape}")
    return x, y
