"""The optimiser and its learning rate over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.optim import AdamW, Optimizer

from qe_edge_train.recipe import Optimiser as OptimiserOptions


def make_optimiser(parameters: list[torch.nn.Parameter], options: OptimiserOptions, device: torch.device) -> Optimizer:
    """AdamW; on a GPU bitsandbytes' paged form, whose states may leave the card when memory is short."""
    paged = options.algorithm == "paged_adamw_32bit" or (options.algorithm == "auto" and device.type == "cuda")
    if paged:
        from bitsandbytes.optim.adamw import PagedAdamW32bit

        optimiser: Optimizer = PagedAdamW32bit(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
        return optimiser
    return AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)


def learning_rate_factor(options: OptimiserOptions, steps: int) -> Callable[[int], float]:
    """Factor on the peak learning rate at each optimiser step: linear warm-up, then the schedule."""
    warm = round(options.warmup * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        if options.schedule == "inverse_sqrt":
            return math.sqrt(max(warm, 1) / (step + 1))
        share = (step - warm) / max(steps - warm, 1)
        if options.schedule == "linear":
            return 1 - share
        if options.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        return 1.0

    return factor
