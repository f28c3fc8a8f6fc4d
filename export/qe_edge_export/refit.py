"""Refitting the head to what it reads after quantisation.

Quantisation moves the states that the head was trained on, in part the same way for every row. The head is fitted
again so that, from the states of the quantised graph, it gives the scores of the model that was trained: ridge
regression towards the trained weights w0,

    minimise |X w + b - y|^2 + penalty |w - w0|^2

with X what the head's linear maps read (the states, mixed and after their LayerNorm, both kept as they are) and y the
trained model's scores in the head's standard units. The bias b is not penalised; a head without one stays without.

Legend: n rows, K taps, M linear maps, H hidden size, F = M H features.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qe_edge_train.heads import RegressionHead

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, float("inf"))
"""Candidates, in units of the mean squared length of a row of X per feature; infinite keeps the trained head."""

HELD_OUT = 5
"""Every fifth row chooses the penalty and is not fitted."""

FEWEST_ROWS = 2 * HELD_OUT
"""Rows below which there is nothing to fit."""

Doubles = NDArray[np.float64]


def refit_head(head: RegressionHead, states: NDArray[Any], scores: NDArray[Any]) -> RegressionHead:
    """A new head for states [n, K, H] of the quantised graph that reproduces scores [n] of the trained model.

    The penalty with the least squared error on the held-out rows is used to fit all rows. Raises ValueError
    for fewer than FEWEST_ROWS rows. `head` is not changed.
    """
    if len(states) < FEWEST_ROWS:
        raise ValueError(f"{len(states)} rows: at least {FEWEST_ROWS} are needed to refit a head")
    device = head.shift.device
    with torch.no_grad():
        features = head.features(torch.as_tensor(np.asarray(states, np.float32), device=device))  # [n, M, H]
        weights, bias = head.readout()
    x = features.flatten(1).double().cpu().numpy()  # [n, F]
    targets = (scores.astype(np.float64) - head.shift.item()) / head.scale.item()
    trained = weights.flatten().double().cpu().numpy()
    offset = None if bias is None else bias.item()
    held = np.arange(len(x)) % HELD_OUT == 0

    def held_error(penalty: float) -> float:
        weight, level = _fit(x[~held], targets[~held], trained, offset, penalty)
        return float(np.square(x[held] @ weight + (level or 0.0) - targets[held]).mean())

    penalty = min(PENALTIES, key=held_error)
    weight, level = _fit(x, targets, trained, offset, penalty)
    refitted = copy.deepcopy(head)
    fitted = torch.as_tensor(weight, dtype=weights.dtype, device=device).view_as(weights)
    refitted.set_readout(fitted, None if level is None else torch.tensor(level))
    return refitted


def _fit(
    features: Doubles, targets: Doubles, trained: Doubles, offset: float | None, penalty: float
) -> tuple[Doubles, float | None]:
    """Weights [F] and bias that minimise the above; `offset` is the trained bias, or None for a head without one."""
    if np.isinf(penalty):
        return trained, offset
    residual = targets - features @ trained  # what a change of the weights has to explain
    centre = np.zeros(features.shape[1]) if offset is None else features.mean(axis=0)
    level = 0.0 if offset is None else float(residual.mean())
    centred = features - centre
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    change = np.linalg.solve(gram, centred.T @ (residual - level))
    return trained + change, None if offset is None else level - float(centre @ change)
