"""Agreement of predicted with human scores, defined once. Needs scipy (extra `eval`), imported on first use.

Legend: S score columns, M measures, B bootstrap resamples, n rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Measure = Callable[[FloatArray, FloatArray], FloatArray]
"""(predicted [..., n], human [..., n]) -> [...]; leading axes are broadcast"""

CONFIDENCE = 95
"""per cent of the resamples that an interval holds"""
ROUNDING = 1e-12
"""values that differ by no larger part of themselves are taken for equal where a column is looked at as a whole"""
CELLS = 1 << 18
"""numbers measured at once, which bounds the memory; what is drawn does not depend on it"""


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
    return Agreement(len(x), spearman(x, y), pearson(x, y), mae(x, y))


def pearson(predicted: ArrayLike, human: ArrayLike) -> float:
    """Pearson's correlation of two score columns; nan when one is constant or holds a nan."""
    return float(_pearson(*_columns(predicted, human)))


def spearman(predicted: ArrayLike, human: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's correlation of the ranks, ties at their mean rank; nan as `pearson`."""
    return float(_spearman(*_columns(predicted, human)))


def kendall(predicted: ArrayLike, human: ArrayLike) -> float:
    """Kendall's tau-b (Kendall 1945): (P - Q) / sqrt((T - T_x) (T - T_y)); nan as `pearson`.

    Of the T = n (n - 1) / 2 pairs of rows, P are in the same and Q in opposite order, T_x and T_y are tied in a column.
    """
    return float(_kendall(*_columns(predicted, human)))


def mae(predicted: ArrayLike, human: ArrayLike) -> float:
    """Mean absolute error, on the score scale."""
    return float(_mae(*_columns(predicted, human)))


def rmse(predicted: ArrayLike, human: ArrayLike) -> float:
    """Root of the mean squared error, on the score scale."""
    return float(_rmse(*_columns(predicted, human)))


def macro_spearman(per_pair: Mapping[str, Agreement]) -> float:
    """Mean over language pairs of the per-pair Spearman; pooled correlations are inflated by the pairs' levels."""
    return float(np.mean([value.spearman for value in per_pair.values()]))


def jackknife_error(first: ArrayLike, second: ArrayLike, human: ArrayLike) -> float:
    """Standard error of the difference of two score columns' Spearman with human scores, by the jackknife.

    first, second, human: length n >= 3. Each row is left out in turn: SE^2 = (n - 1) / n sum_i (d_i - mean d)^2 (Efron
    and Tibshirani 1993, ch. 11). A bootstrap draws rows twice, and the ties that this makes blur ranks that hardly
    differ. nan where a correlation is undefined.
    """
    x, y = _columns(first, human)
    z, _ = _columns(second, human)
    n, columns = len(y), np.stack([x, z])
    parts = np.array_split(np.arange(n), -(-n * n // CELLS))
    others = (np.arange(n - 1) + (np.arange(n - 1) >= left_out[:, None]) for left_out in parts)
    one, two = np.concatenate([_spearman(columns[:, rows], y[rows]) for rows in others], axis=1)
    return float(np.std(one - two) * np.sqrt(n - 1))


def bootstrap_interval(
    predicted: Sequence[ArrayLike],
    human: Sequence[ArrayLike],
    statistic: str = "spearman",
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a measure, averaged over groups, rows resampled within each group.

    predicted, human: one column per group (language pair); statistic: a key of MEASURES. (nan, nan) if undefined.
    """
    generator = np.random.default_rng(seed)
    groups = [_columns(x, y) for x, y in zip(predicted, human, strict=True)]
    draws = [bootstrap_draws(x[None], y, [statistic], samples, generator)[0, 0] for x, y in groups]
    return interval(np.mean(draws, axis=0)) or (np.nan, np.nan)


def bootstrap_draws(
    predicted: FloatArray, human: FloatArray, measures: Sequence[str], samples: int, generator: np.random.Generator
) -> FloatArray:
    """Measures on bootstrap resamples of the rows: predicted [S, n] and human [n] -> [S, M, B], nan where undefined.

    All score columns are measured on the same resamples, so the difference of two columns has an interval too.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    def statistic(human: FloatArray, *predicted: FloatArray, axis: int) -> FloatArray:  # each [b, n] -> [S, M, b]
        columns = np.stack(predicted)
        return np.stack([MEASURES[name](columns, human) for name in measures], axis=1)

    with warnings.catch_warnings():
        # scipy has no interval when a measure is undefined on a resample; `interval` leaves such resamples out
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            (human, *predicted),
            statistic,
            n_resamples=samples,
            batch=max(1, CELLS // predicted.size),
            vectorized=True,
            paired=True,
            method="percentile",
            rng=generator,
        )
    return np.asarray(result.bootstrap_distribution)


def constant(values: FloatArray) -> NDArray[np.bool_]:
    """Whether values are the same over the last axis, for all that can be told: their differences may be rounding."""
    return np.asarray(np.isclose(values.min(axis=-1), values.max(axis=-1), rtol=ROUNDING, atol=0))


def interval(draws: FloatArray) -> tuple[float, float] | None:
    """95 % percentile interval of a measure's values on resamples [B]; None when it is defined (not nan) on none."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2])
    return float(low), float(high)


def _pearson(x: FloatArray, y: FloatArray) -> FloatArray:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, x, y)


def _spearman(x: FloatArray, y: FloatArray) -> FloatArray:
    from scipy.stats import rankdata

    return np.where(_defined(x, y), _pearson(rankdata(x, axis=-1), rankdata(y, axis=-1)), np.nan)


def _kendall(x: FloatArray, y: FloatArray) -> FloatArray:
    from scipy.stats import kendalltau

    return _correlation(kendalltau, x, y)


def _mae(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray(np.abs(x - y).mean(axis=-1))


def _rmse(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.square(x - y).mean(axis=-1)))


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {"spearman": _spearman, "pearson": _pearson, "kendall": _kendall, "mae": _mae, "rmse": _rmse}
)
"""All measures by name."""
CORRELATIONS = ("spearman", "pearson", "kendall")
"""those that are correlations, from -1 to 1"""


def _correlation(correlate: Callable[..., Any], x: FloatArray, y: FloatArray) -> FloatArray:
    """A correlation of scipy.stats over the last axis; nan, unwarned, where a column is constant or holds a nan."""
    x, y = np.broadcast_arrays(x, y)
    defined = _defined(x, y)
    result = np.full(x.shape[:-1], np.nan)
    if defined.any():
        result[defined] = correlate(x[defined], y[defined], axis=-1).statistic
    return result


def _defined(x: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
    """Whether neither column is constant or holds a nan."""
    return ~(constant(x) | constant(y) | np.isnan(x).any(axis=-1) | np.isnan(y).any(axis=-1))


def _columns(predicted: ArrayLike, human: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(predicted, np.float64), np.asarray(human, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"two columns of equal length >= 2 are needed, not {x.shape} and {y.shape}")
    return x, y
