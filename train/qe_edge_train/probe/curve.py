"""The dev curve over layers, its intervals, and the tap that it recommends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qe_edge.metrics import FloatArray, bootstrap_draws, spearman

SAMPLES = 1000
TAP_SET_SIZE = 4

Interval = tuple[float, float]
"""95 % interval: low, high"""


@dataclass(frozen=True)
class Layer:
    """What a closed-form head reaches on the states after one block."""

    blocks_kept: int
    """blocks run to get there: index i of hidden_states[i]"""
    tap: int
    """the same place counted from the end: k of TL-k"""
    pairs: dict[str, float]
    """dev Spearman of each language pair"""
    pair_intervals: dict[str, Interval]
    macro: float
    """mean over the pairs"""
    macro_interval: Interval
    difference: float
    """macro minus that of the best layer; paired: every layer is measured on the same resampled rows"""
    difference_interval: Interval
    difference_error: float
    """standard error of the difference"""


@dataclass(frozen=True)
class Recommendation:
    """The tap to train at, and the figures that led to it."""

    best: Layer
    """the layer with the highest macro Spearman"""
    chosen: Layer
    """the layer with the fewest blocks that is no more than one standard error worse"""
    tap_set: tuple[int, ...]
    """taps for the strategies dynamic and multi"""


def dev_curve(
    predicted: FloatArray, human: FloatArray, pairs: Sequence[str], blocks: int, seed: int, samples: int = SAMPLES
) -> list[Layer]:
    """Layers 1..L from predictions [L, rows], human scores [rows] and the language pair of every row.

    `blocks` is the depth of the uncut base, which taps are counted from. Intervals are percentile bootstrap intervals
    over dev rows, resampled within pairs.
    """
    names = list(dict.fromkeys(pairs))
    generator = np.random.default_rng(seed)
    values: list[list[float]] = []  # [pairs][L]
    draws: list[FloatArray] = []  # [pairs] of [L, B], B resamples, the same for every layer
    for name in names:
        rows = [i for i, pair in enumerate(pairs) if pair == name]
        values.append([spearman(scores[rows], human[rows]) for scores in predicted])
        draws.append(bootstrap_draws(predicted[:, rows], human[rows], ["spearman"], samples, generator)[:, 0])
    per_pair, resampled = np.array(values), np.array(draws)  # [pairs, L], [pairs, L, B]
    macro, macro_resampled = per_pair.mean(axis=0), resampled.mean(axis=0)
    best = int(np.nanargmax(macro))
    differences = macro_resampled - macro_resampled[best]

    pair_low, pair_high = _interval(resampled)  # each [pairs, L]
    low, high = _interval(macro_resampled)  # each [L]
    difference_low, difference_high = _interval(differences)
    errors = np.nanstd(differences, axis=1, ddof=1)
    return [
        Layer(
            blocks_kept=i + 1,
            tap=blocks - i,
            pairs={name: float(per_pair[p, i]) for p, name in enumerate(names)},
            pair_intervals={name: (float(pair_low[p, i]), float(pair_high[p, i])) for p, name in enumerate(names)},
            macro=float(macro[i]),
            macro_interval=(float(low[i]), float(high[i])),
            difference=float(macro[i] - macro[best]),
            difference_interval=(float(difference_low[i]), float(difference_high[i])),
            difference_error=float(errors[i]),
        )
        for i in range(len(predicted))
    ]


def recommend(curve: Sequence[Layer]) -> Recommendation:
    """The shallowest layer that is not clearly worse than the best one.

    One-standard-error rule (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984): the fewest
    blocks whose macro Spearman is at least that of the best layer minus one standard error, here of the paired
    difference. The tap set is that tap and the three right below it (the published sets are runs of neighbours too,
    arXiv 2508.07484): none lies above it, so no further block is kept.
    """
    best = max(curve, key=lambda layer: layer.macro)
    chosen = next(layer for layer in curve if layer.difference >= -layer.difference_error)
    size = min(TAP_SET_SIZE, chosen.blocks_kept)
    return Recommendation(best, chosen, tuple(range(chosen.tap, chosen.tap + size)))


def _interval(draws: FloatArray) -> FloatArray:
    """95 % percentile interval [2, ...] over the last axis; resamples without a correlation (nan) are left out."""
    interval: FloatArray = np.nanpercentile(draws, [2.5, 97.5], axis=-1)
    return interval
