"""The dev curve over layers, its intervals, and the tap that it recommends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qe_edge.errors import InputError
from qe_edge.metrics import FloatArray, bootstrap_draws, interval, spearman

SAMPLES = 1000
TAP_SET_SIZE = 4

Interval = tuple[float, float]
"""95 % interval: low, high; both nan when undefined on every resample"""


@dataclass(frozen=True)
class Layer:
    """What a closed-form head reaches on the states after one block."""

    blocks_kept: int
    """blocks run to get there: index i of hidden_states[i]"""
    tap: int
    """the same place counted from the end: k of TL-k"""
    pairs: dict[str, float]
    """dev Spearman of each language pair; nan when all dev rows of the pair get one score"""
    pair_intervals: dict[str, Interval]
    macro: float
    """mean over the pairs; nan when it is for one of them"""
    macro_interval: Interval
    difference: float
    """macro minus that of the best layer; paired: every layer is measured on the same resampled rows"""
    difference_interval: Interval
    difference_error: float
    """standard error of the difference; nan when fewer than two resamples have one"""


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
    over dev rows, resampled within pairs; resamples without a correlation are left out. Raises InputError when no layer
    has a macro Spearman.
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
    best = _best(macro.tolist())
    differences = macro_resampled - macro_resampled[best]  # [L, B]
    return [
        Layer(
            blocks_kept=i + 1,
            tap=blocks - i,
            pairs={name: float(per_pair[p, i]) for p, name in enumerate(names)},
            pair_intervals={name: _interval(resampled[p, i]) for p, name in enumerate(names)},
            macro=float(macro[i]),
            macro_interval=_interval(macro_resampled[i]),
            difference=float(macro[i] - macro[best]),
            difference_interval=_interval(differences[i]),
            difference_error=_standard_error(differences[i]),
        )
        for i in range(len(predicted))
    ]


def recommend(curve: Sequence[Layer]) -> Recommendation:
    """The shallowest layer that is not clearly worse than the best one.

    One-standard-error rule (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984): the fewest
    blocks whose macro Spearman is at least that of the best layer minus one standard error, here of the paired
    difference. The tap set is that tap and the three right below it (the published sets are runs of neighbours too,
    arXiv 2508.07484): none lies above it, so no further block is kept. A layer below the best without a macro Spearman
    or without a standard error is not chosen. Raises InputError when no layer has a macro Spearman.
    """
    best = curve[_best([layer.macro for layer in curve])]
    chosen = next(layer for layer in curve if layer is best or layer.difference >= -layer.difference_error)
    size = min(TAP_SET_SIZE, chosen.blocks_kept)
    return Recommendation(best, chosen, tuple(range(chosen.tap, chosen.tap + size)))


def _best(macros: Sequence[float]) -> int:
    """Position of the highest macro Spearman that is defined, the first of equal ones."""
    defined = [i for i, macro in enumerate(macros) if not math.isnan(macro)]
    if not defined:
        raise InputError(
            "no layer has a dev Spearman for every language pair: the dev rows of a pair all get one score; "
            "give other [[train]] tables, or more --rows and --dev-rows"
        )
    return max(defined, key=lambda i: macros[i])


def _interval(draws: FloatArray) -> Interval:
    return interval(draws) or (math.nan, math.nan)


def _standard_error(draws: FloatArray) -> float:
    defined = draws[~np.isnan(draws)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan
