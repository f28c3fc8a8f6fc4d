"""States of the last real token at every layer, in one forward pass over the data.

Shapes: B rows in a batch, S tokens, H hidden size, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qe_edge.errors import InputError
from qe_edge_train.batches import EncodedSet, collate, sorted_batches
from qe_edge_train.tapped import hidden_states, mixed_precision

BATCH = 16


@torch.no_grad()
def last_token_states(
    decoder: nn.Module, data: EncodedSet, rows: Sequence[int], layers: int, dtype: str, device: torch.device
) -> NDArray[np.float32]:
    """States [rows, L, H] of the given rows at hidden_states[1] to hidden_states[`layers`], in the rows' order.

    Prompts are run whole: no prefix is shared. `dtype`: that of the matrix products, as a recipe names it. Raises
    InputError when a state is not finite.
    """
    decoder.eval()
    place = {row: i for i, row in enumerate(rows)}
    wanted = range(1, layers + 1)
    states: NDArray[np.float32] | None = None
    for indices in sorted_batches(data, rows, BATCH):
        batch = collate(data, indices, device, share_prefix=False)
        with mixed_precision(device, dtype):
            hidden = hidden_states(decoder, batch.tokens, wanted)  # each [B, S, H]
        every = torch.arange(len(indices), device=device)
        picked = torch.stack([one[every, batch.last].float() for one in hidden], 1).cpu().numpy()  # [B, L, H]
        if states is None:
            states = np.empty((len(rows), layers, picked.shape[2]), np.float32)
        states[[place[i] for i in indices]] = picked
    if states is None:
        raise ValueError("no rows")
    if not np.isfinite(states).all():
        raise InputError(f"hidden states of this base are not finite in {dtype}; set [base] dtype = 'float32'")
    return states
