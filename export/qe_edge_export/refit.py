"""Refitting the head to what it reads after quantisation.

Quantisation moves the states that the head was trained on, in part the same way for every row. The head is fitted
again so that, from the states of the quantised graph, it gives the scores of the model that was trained: ridge
regression towards the trained weights w0,

    minimise |X w + b - y|^2 + penalty |w - w0|^2

with X the states after the head's own LayerNorm (kept as it is) and y the trained model's scores in the head's
standard units. The bias b is not penalised; a head without one stays without.

Legend: n rows, H hidden size.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qe_edge_train.tapped import RegressionHead

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, float("inf"))
"""Candidates, in units of the mean squared length of a row of X per feature; infinite keeps the trained head."""

HELD_OUT = 5
"""Every fifth row chooses the penalty and is not fitted."""

FEWEST_ROWS = 2 * HELD_OUT
"""Rows below which there is nothing to fit."""

Doubles = NDArray[np.float64]


def refit_head(head: RegressionHead, states: NDArray[Any], scores: NDArray[Any]) -> RegressionHead:
    """A new head for states [n, H] of the quantised graph that reproduces scores [n] of the trained model.

    The penalty with the least squared error on the held-out rows is used to fit all rows. Raises ValueError
    for fewer than FEWEST_ROWS rows. `head` is not changed.
    """
    if len(states) < FEWEST_ROWS:
        raise ValueError(f"{len(states)} rows: at least {FEWEST_ROWS} are needed to refit a head")
    device = head.linear.weight.device
    with torch.no_grad():
        features = head.norm(torch.as_tensor(np.asarray(states, np.float32), device=device)).double().cpu().numpy()
    targets = (scores.astype(np.float64) - head.shift.item()) / head.scale.item()
    trained = head.linear.weight.detach().double().cpu().numpy()[0]
    offset = None if head.options.bias is False else head.linear.bias.item()
    held = np.arange(len(features)) % HELD_OUT == 0

    def held_error(penalty: float) -> float:
        weight, bias = _fit(features[~held], targets[~held], trained, offset, penalty)
        return float(np.square(features[held] @ weight + (bias or 0.0) - targets[held]).mean())

    penalty = min(PENALTIES, key=held_error)
    weight, bias = _fit(features, targets, trained, offset, penalty)
    refitted = copy.deepcopy(head)
    with torch.no_grad():
        refitted.linear.weight.copy_(torch.as_tensor(weight)[None])
        if bias is not None:
            refitted.linear.bias.fill_(bias)
    return refitted


def _fit(
    features: Doubles, targets: Doubles, trained: Doubles, offset: float | None, penalty: float
) -> tuple[Doubles, float | None]:
    """Weights [H] and bias that minimise the above; `offset` is the trained bias, or None for a head without one."""
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
