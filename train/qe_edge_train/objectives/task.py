"""The task: scores that come close to the human ones (mean squared error, weighted by row)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qe_edge.errors import InputError
from qe_edge_train.adapters.experts import balance_loss, has_experts, recorded_routing
from qe_edge_train.batches import Batch, EncodedSet, collate, plan_epoch
from qe_edge_train.data import check_train, constant
from qe_edge_train.evaluate import tapped_states
from qe_edge_train.frozen import FrozenStates, frozen_depth
from qe_edge_train.heads import RegressionHead
from qe_edge_train.objectives.step import Step
from qe_edge_train.recipe import Recipe, Target
from qe_edge_train.tapped import TappedRegressor, mixed_precision


class TaskObjective:
    """Batches of training rows in the order of the recipe's seed, over all epochs."""

    name = "task"

    def __init__(self, recipe: Recipe, model: TappedRegressor, data: EncodedSet, device: torch.device) -> None:
        """Raises InputError for rows from which nothing can be learnt."""
        check_train(data.examples)
        self.recipe, self.model, self.data, self.device = recipe, model, data, device
        options = recipe.optimiser
        self.weights = row_weights(data, recipe.target)
        set_scale(model.head, data, recipe.target)
        self.plan = [
            step
            for epoch in range(options.epochs)
            for step in plan_epoch(data, options.batch_size, options.micro_batch_size, options.seed, epoch)
        ]
        self.frozen = not any(parameter.requires_grad for parameter in model.decoder.parameters())
        self.routed = has_experts(model.decoder) and not self.frozen
        self.depth = frozen_depth(recipe, model)

    def __len__(self) -> int:
        return len(self.plan)

    def tokens(self, number: int) -> int:
        """Real body tokens of a step."""
        return sum(len(self.data.bodies[i]) for rows in self.plan[number] for i in rows)

    def run(self, number: int) -> Step:
        """One optimiser step's forward and backward, micro-batch by micro-batch."""
        self.model.train()
        micro_batches = self.plan[number]
        rows_in_step = sum(map(len, micro_batches))
        total = 0.0
        for rows in micro_batches:
            loss = self._loss(rows, rows_in_step)
            loss.backward()
            total += loss.item()
        return Step(total, self.tokens(number))

    def _loss(self, rows: list[int], rows_in_step: int) -> Tensor:
        """The micro-batch's part of the step's loss; the squared errors of several heads add up."""
        options, head = self.recipe.optimiser, self.model.head
        human = torch.tensor([self.data.examples[i].score for i in rows], device=self.device)  # [B]
        weight = self.weights[rows].to(self.device)  # [B]
        if self.frozen:
            scores = head.outputs(self._frozen_states[rows].to(self.device))
        elif self.depth:
            with mixed_precision(self.device, self.recipe.base.dtype):
                scores = self._lower_states.outputs(rows)
        else:
            batch = collate(self.data, rows, self.device, options.share_prefix)
            with mixed_precision(self.device, self.recipe.base.dtype):
                past = self.model.prefix(batch.prefix) if options.share_prefix else None
                with recorded_routing(self.model.decoder) as routing:
                    scores = self.model.outputs(batch.tokens, batch.last, past)  # [B, M]
        error = ((scores - human[:, None]) / head.scale).square().sum(1)
        loss: Tensor = self.recipe.target.loss_weight * (weight * error).sum() / rows_in_step
        if self.routed:
            uneven = balance_loss(routing, self._counted(batch)) * len(rows) / rows_in_step
            loss = loss + self.recipe.adapter.balance * uneven
        return loss

    @cached_property
    def _frozen_states(self) -> Tensor:
        """Tapped states of all rows [rows, K, H]: nothing below the head is trained, so they are run once."""
        with mixed_precision(self.device, self.recipe.base.dtype):
            return tapped_states(self.model, self.data, range(len(self.data.examples)), self.device)

    @cached_property
    def _lower_states(self) -> FrozenStates:
        """States after the frozen blocks, of all rows."""
        return FrozenStates(self.recipe, self.model, self.depth, self.data, self.device)

    def _counted(self, batch: Batch) -> Tensor:
        """[B, S] true where a token is real and of a body: a prefix is the same for all rows, shared or not."""
        every = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        shared = self.recipe.optimiser.share_prefix
        start = 0 if shared else len(self.data.prefixes[self.data.examples[batch.rows[0]].names])
        return (every >= start) & (every <= batch.last[:, None])


def row_weights(data: EncodedSet, target: Target) -> Tensor:
    """Weight of each row in the loss, mean 1 [rows].

    Raises InputError for a pair whose scores are all the same, if pairs are to be balanced by their spread.
    """
    pairs = np.array([example.pair for example in data.examples])
    scores = np.array([example.score for example in data.examples])
    weights = np.ones(len(scores))
    if target.balance == "inverse_sd":
        for pair in data.pairs:
            own = scores[pairs == pair]
            if constant(own):
                raise InputError(
                    f"all training scores of {pair} are the same: nothing to learn; leave the pair out, or set "
                    "[target] balance = 'none'"
                )
            weights[pairs == pair] = 1 / own.std()
        weights /= weights.mean()
    return torch.tensor(weights, dtype=torch.float32)


def set_scale(head: RegressionHead, data: EncodedSet, target: Target) -> None:
    """Let the head work in standard units of the training scores, if the target asks for it."""
    if target.standardise:
        scores = np.array([example.score for example in data.examples])
        head.shift.fill_(float(scores.mean()))
        head.scale.fill_(float(scores.std()))
