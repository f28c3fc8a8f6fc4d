"""The alignment loss: translations should be nearest to each other among the pairs of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def alignment_loss(source: Tensor, target: Tensor, temperature: float, symmetric: bool = False) -> Tensor:
    """InfoNCE over cosines with in-batch negatives, a scalar in float32 (arXiv 2502.14830).

    -mean_i log softmax_j( cos(s_i, t_j) / temperature )[i] for source and target states [n, H], row i of both being
    one pair. symmetric: the mean of this loss and that of the targets looking for their sources. Gradients reach both.
    """
    with torch.autocast(source.device.type, enabled=False):
        cosines = normalize(source.float(), dim=-1) @ normalize(target.float(), dim=-1).T  # [n, n]
        logits = cosines / temperature
        own = torch.arange(len(logits), device=logits.device)
        loss = cross_entropy(logits, own)
        if symmetric:
            loss = (loss + cross_entropy(logits.T, own)) / 2
    return loss
