"""Lower blocks that nothing trains: run once over all rows, their states read again in every epoch.

The states take, for every token of a row's body, the hidden size in the type that the decoder computes in: a million
tokens of hidden size 576 in float32 are 2.3 GB.

Shapes: B rows, S body tokens, P prefix tokens, H hidden size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from qe_edge.tokens import Pair
from qe_edge_train.batches import LENGTH_STEP, EncodedSet, collate, sorted_batches
from qe_edge_train.decoder import blocks, plain_decoder
from qe_edge_train.evaluate import SCORING_BATCH
from qe_edge_train.recipe import Recipe
from qe_edge_train.tapped import KeyValues, TappedRegressor, mixed_precision, states_and_keys


def frozen_depth(recipe: Recipe, model: TappedRegressor) -> int:
    """Blocks whose states are worth keeping: frozen ones that no tap lies below, when they are read more than once."""
    options = recipe.optimiser
    if options.epochs == 1 or not options.share_prefix:
        return 0
    return min(recipe.adapter.frozen_blocks, model.full_blocks, *model.layers)


class FrozenStates:
    """The states of a set's rows after the lowest blocks, and the regressor that goes on from there.

    `upper` shares its blocks and its head with `model`: what trains one trains the other.
    """

    def __init__(self, recipe: Recipe, model: TappedRegressor, depth: int, data: EncodedSet, device: torch.device):
        self.data, self.device = data, device
        self.upper = TappedRegressor(_part(model.decoder, depth, None), model.head, model.full_blocks - depth)
        lower = _part(model.decoder, 0, depth)
        lower.norm = nn.Identity()
        with torch.no_grad(), mixed_precision(device, recipe.base.dtype):
            self._fill(lower.eval(), depth)

    def _fill(self, lower: PreTrainedModel, depth: int) -> None:
        prefixes: dict[Pair, tuple[Tensor, KeyValues | None]] = {}
        found: dict[int, Tensor] = {}
        for rows in sorted_batches(self.data, range(len(self.data.examples)), SCORING_BATCH):
            batch = collate(self.data, rows, self.device)
            pair = self.data.examples[rows[0]].names
            if pair not in prefixes:
                prefixes[pair] = _prefix(lower, batch.prefix, depth)
            states, _ = states_and_keys(lower, batch.tokens, depth, prefixes[pair][1])
            found.update(
                (row, states[place, : last + 1].cpu())
                for place, (row, last) in enumerate(zip(rows, batch.last.tolist(), strict=True))
            )
        self._rows = [found.pop(row) for row in range(len(self.data.examples))]  # each [S, H]
        self._prefixes = {pair: states for pair, (states, _) in prefixes.items()}  # each [1, P, H]

    def outputs(self, rows: list[int]) -> Tensor:
        """The score of rows of one pair by every linear map of the head, [B, M]: `TappedRegressor.outputs`."""
        states = [self._rows[row] for row in rows]
        length = -(-max(map(len, states)) // LENGTH_STEP) * LENGTH_STEP
        padded = pad_sequence(states, batch_first=True)  # [B, longest, H]
        padded = nn.functional.pad(padded, (0, 0, 0, length - padded.shape[1])).to(self.device)
        last = torch.tensor([len(state) - 1 for state in states], device=self.device)
        prefix = self._prefixes[self.data.examples[rows[0]].names]
        return self.upper.outputs(padded, last, self.upper.prefix(prefix))


def _prefix(lower: PreTrainedModel, tokens: Tensor, depth: int) -> tuple[Tensor, KeyValues | None]:
    """States [1, P, H] of a prefix, tokens [1, P], and its keys and values in the lower blocks; none without tokens."""
    if tokens.shape[1] == 0:
        return torch.empty(1, 0, lower.config.hidden_size, device=tokens.device), None
    return states_and_keys(lower, tokens, depth, None)


def _part(decoder: nn.Module, start: int, stop: int | None) -> PreTrainedModel:
    """Some of a decoder's blocks as a decoder, which shares them with it. Adapters in the blocks stay in force."""
    part = copy.copy(plain_decoder(decoder))
    part._modules = dict(part._modules)
    part.layers = blocks(decoder)[start:stop]
    kinds = getattr(part.config, "layer_types", None)
    if kinds:  # the decoder gives its i-th block the positions and the mask of the i-th kind
        part.config = copy.copy(part.config)
        part.config.layer_types = kinds[start:stop]
    return part
