"""Ridge regression in closed form: the best linear head on given features, without any training loop.

Notation: n rows x_i with targets y_i and weights w_i, H features, penalty p. Features are standardised with the
weighted mean and deviation of the training rows. The head minimises sum_i w_i (y_i - b - x_i.beta)^2 + p |beta|^2;
the intercept b is free, so the target's level and scale change the scores but never their ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qe_edge.metrics import FloatArray

PENALTIES = np.logspace(-3, 3, 25)
"""penalties tried, as multiples of the total row weight"""


@dataclass(frozen=True)
class RidgeHead:
    """A linear head on standardised features."""

    shift: FloatArray
    """mean of each feature [H]"""
    scale: FloatArray
    """deviation of each feature [H]; 1 for a constant one"""
    weights: FloatArray
    """weight of each standardised feature [H]"""
    intercept: float
    penalty: float
    """the chosen penalty, as a multiple of the total row weight"""

    def predict(self, features: FloatArray) -> FloatArray:
        """Scores [m] of features [m, H]."""
        scores: FloatArray = (features - self.shift) / self.scale @ self.weights + self.intercept
        return scores


def fit_ridge(
    features: FloatArray, target: FloatArray, row_weights: FloatArray, penalties: FloatArray = PENALTIES
) -> RidgeHead:
    """The ridge head on features [n, H], targets [n] and weights [n] above 0, with the penalty whose PRESS is smallest.

    One singular value decomposition serves every penalty, whether n or H is larger.
    """
    system = _weighted_system(features, target, row_weights)
    errors = _leave_one_out(system, row_weights, penalties)
    press = np.square(errors).sum(axis=1)  # [penalties]; the errors carry the root of their weight
    penalty = float(penalties[int(np.argmin(press))])
    shrunk = system.singular / (system.singular**2 + penalty * row_weights.sum())
    weights = system.right.T @ (shrunk * system.projected)
    return RidgeHead(system.shift, system.scale, weights, system.level, penalty)


def leave_one_out_errors(
    features: FloatArray, target: FloatArray, row_weights: FloatArray, penalties: FloatArray
) -> FloatArray:
    """Error [penalties, n] of every row under the head fitted without it, exact and without refitting (PRESS).

    Dropping row i changes its error from e_i to e_i / (1 - h_i), where h_i is its leverage (Allen, Technometrics
    16(1), 1974; with a penalty: Golub, Heath and Wahba, Technometrics 21(2), 1979). The standardisation is that of all
    rows; the intercept is fitted anew.
    """
    system = _weighted_system(features, target, row_weights)
    errors: FloatArray = _leave_one_out(system, row_weights, penalties) / np.sqrt(row_weights)
    return errors


@dataclass(frozen=True)
class _System:
    """The centred, weighted least-squares system and its singular value decomposition, r = min(n, H)."""

    shift: FloatArray
    scale: FloatArray
    level: float
    """weighted mean of the targets"""
    target: FloatArray
    """sqrt(w_i) (y_i - level) [n]"""
    left: FloatArray
    """[n, r]"""
    singular: FloatArray
    """[r]"""
    right: FloatArray
    """[r, H]"""
    projected: FloatArray
    """left^T target [r]"""


def _weighted_system(features: FloatArray, target: FloatArray, row_weights: FloatArray) -> _System:
    shift = np.average(features, axis=0, weights=row_weights)
    deviation = np.sqrt(np.average(np.square(features - shift), axis=0, weights=row_weights))
    scale = np.where(deviation > 0, deviation, 1.0)
    level = float(np.average(target, weights=row_weights))
    root = np.sqrt(row_weights)
    left, singular, right = np.linalg.svd(root[:, None] * (features - shift) / scale, full_matrices=False)
    centred = root * (target - level)
    return _System(shift, scale, level, centred, left, singular, right, left.T @ centred)


def _leave_one_out(system: _System, row_weights: FloatArray, penalties: FloatArray) -> FloatArray:
    """Leave-one-out errors times sqrt(w_i) [penalties, n]."""
    total = row_weights.sum()
    kept = system.singular**2 / (system.singular**2 + total * penalties[:, None])  # [penalties, r]
    fitted = (kept * system.projected) @ system.left.T  # [penalties, n]
    leverage = row_weights / total + kept @ np.square(system.left).T  # the first term is the intercept's
    errors: FloatArray = (system.target - fitted) / (1 - leverage)
    return errors
