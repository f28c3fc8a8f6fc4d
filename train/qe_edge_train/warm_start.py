"""Starting a head from the closed-form solution on the untrained base, instead of at random.

A head that already fits the states it reads does not distort them in the first steps of fine-tuning (arXiv 2202.10054);
with few training rows it is most of what can be learnt (docs/methods.md).
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from qe_edge_train.evaluate import head_features
from qe_edge_train.objectives import TaskObjective
from qe_edge_train.probe.closed_form import fit_ridge
from qe_edge_train.tapped import mixed_precision

MOST_ROWS = 3000
"""Rows fitted; more add little to some hundreds of features."""


def start_head(task: TaskObjective) -> None:
    """Set every linear map of the task's head to the ridge solution for its own features, each on its own.

    Row weights are those of the training loss; the penalty is chosen by leave-one-out. The head's LayerNorm and mix
    are as they were initialised.
    """
    model, data, recipe = task.model, task.data, task.recipe
    rows = list(range(len(data.examples)))
    if len(rows) > MOST_ROWS:
        rows = random.Random(recipe.optimiser.seed).sample(rows, MOST_ROWS)
    with mixed_precision(task.device, recipe.base.dtype):
        features = head_features(model, data, rows, task.device)  # [n, M, H]
    human = np.array([data.examples[i].score for i in rows])
    target = (human - model.head.shift.item()) / model.head.scale.item()
    weights = task.weights[rows].double().numpy()
    for number, linear in enumerate(model.head.linears):
        assert isinstance(linear, nn.Linear)
        fitted = fit_ridge(features[:, number], target, weights)
        slope = fitted.weights / fitted.scale
        with torch.no_grad():
            linear.weight.copy_(torch.as_tensor(slope)[None])
            linear.bias.fill_(fitted.intercept - float(fitted.shift @ slope))
