"""How well states of one language find their translations in another: the ratio margin and its accuracy.

Shapes: n source sentences, m target sentences, H hidden size, L languages.

States are compared in float32: a margin is then within 1e-4 of its float64 value, so an accuracy can differ only where
two candidates are closer than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qe_edge.errors import InputError

Array = NDArray[np.floating[Any]]
Hits = NDArray[np.bool_]

NEIGHBOURS = 4
"""k of the ratio margin, as published for mid-align (arXiv 2502.14830)."""


def margin(x: Array, y: Array, k: int = NEIGHBOURS) -> Array:
    """Ratio margin of every source state x [n, H] with every target state y [m, H]: [n, m], in the type of the states.

    m(x, y) = cos(x, y) / ( sum_{z in NN_k(x)} cos(x, z) / 2k + sum_{z in NN_k(y)} cos(y, z) / 2k ), where NN_k(x) are
    the k nearest targets of x and NN_k(y) the k nearest sources of y (arXiv 1811.01136).
    Raises InputError when either side has fewer than k sentences.
    """
    return _margin(_unit(x), _unit(y), k)


def direction_accuracy(x: Array, y: Array, k: int = NEIGHBOURS) -> float:
    """Share of the sources x [n, H] whose best target among y [n, H] by margin is that of their own row."""
    return float(_hits(margin(x, y, k)).mean())


def all_hits(states: Sequence[Array], k: int = NEIGHBOURS) -> Hits:
    """Whether sentence i of language a finds its own translation in language b: [L, L, n], False where a = b.

    states: [n, H] for each language, row i being the same sentence in all. The margin is symmetric, so one matrix
    serves both directions of a pair.
    """
    units = [_unit(one) for one in states]
    hits = np.zeros((len(units), len(units), len(units[0])), bool)
    for a, b in combinations(range(len(units)), 2):
        scores = _margin(units[a], units[b], k)
        hits[a, b] = _hits(scores)
        hits[b, a] = _hits(scores.T)
    return hits


def all_directions(states: Sequence[Array], k: int = NEIGHBOURS) -> NDArray[np.float64]:
    """Accuracy from language a (row) to language b (column): [L, L], nan on the diagonal."""
    return accuracies(all_hits(states, k))


def accuracies(hits: Hits) -> NDArray[np.float64]:
    """Accuracy of every direction [L, L] of hits [L, L, n], nan on the diagonal."""
    matrix: NDArray[np.float64] = hits.mean(axis=2, dtype=np.float64)
    np.fill_diagonal(matrix, np.nan)
    return matrix


def mean_accuracy(hits: Hits, samples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Accuracy averaged over all directions of hits [L, L, n], and the ends of its 95 % percentile bootstrap interval.

    Sentences are resampled, each with all its directions; what they are compared with stays as it is.
    """
    languages, _, n = hits.shape
    share = hits.sum(axis=(0, 1)) / (languages * (languages - 1))  # [n]: directions in which a sentence is found
    draws = np.random.default_rng(seed).integers(0, n, (samples, n))
    low, high = np.percentile(share[draws].mean(axis=1), [2.5, 97.5])
    return float(share.mean()), float(low), float(high)


def _unit(states: Array) -> Array:
    """States [n, H] at length 1; a state of zeros stays zero, with cosine 0 to everything."""
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    unit: Array = states / np.maximum(lengths, np.finfo(states.dtype).tiny)
    return unit


def _margin(x: Array, y: Array, k: int) -> Array:
    cosines = x @ y.T  # [n, m]
    if min(cosines.shape) < k:
        raise InputError(
            f"the {k} nearest of {min(cosines.shape)} sentences: retrieval needs at least {k} lines; raise "
            "[alignment] held_out"
        )
    near_x = _nearest_sum(cosines, k)  # [n]
    near_y = _nearest_sum(np.ascontiguousarray(cosines.T), k)  # [m]
    return cosines / ((near_x[:, None] + near_y[None, :]) / (2 * k))


def _nearest_sum(cosines: Array, k: int) -> Array:
    """Sum of the k highest values of each row."""
    total: Array = np.partition(cosines, cosines.shape[1] - k, axis=1)[:, -k:].sum(axis=1)
    return total


def _hits(scores: Array) -> Hits:
    """Whether the best column of each row is the row's own; of equal ones the first counts as the best."""
    hits: Hits = scores.argmax(axis=1) == np.arange(len(scores))
    return hits
