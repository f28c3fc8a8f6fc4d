"""Blocks that run on the last position of a row alone.

A score is read at one position. What earlier positions add to it in a block are their keys and values, and those can be
computed from the state that the lower blocks left behind, for all upper blocks at once (SwiftKV, arXiv 2410.03960). An
upper block then costs two small matrix products a token, and everything else once a row. It has to be trained that way:
a decoder that was not gives other states.

Legend: B rows, S body tokens, P prefix tokens, H hidden size, G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache


@contextmanager
def last_position_above(every: nn.ModuleList, full: int, last: Tensor) -> Iterator[None]:
    """The blocks from index `full` on run on positions `last` [B] alone for the time of a call.

    The first of them is given states [B, S, H] of all positions, which all of them take keys and values from, and gives
    [B, 1, H]. The masks that blocks are given must be [1, 1, S, P + S].
    """
    upper = _Upper(last)
    with ExitStack() as undo:
        for index in range(full, len(every)):
            block = every[index]
            undo.callback(_restore, block, block.__dict__.get("forward"))
            block.forward = partial(upper.run, block, block.forward, index == full)
        yield


class _Upper:
    """What the upper blocks share: the position of each row, and the states that keys and values come from."""

    def __init__(self, last: Tensor) -> None:
        self.last = last
        self.states: Tensor | None = None

    def run(
        self,
        block: Any,
        forward: Any,
        first: bool,
        hidden: Tensor,
        *,
        attention_mask: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        position_ids: Tensor,
        past_key_values: Cache | None = None,
        **others: Any,
    ) -> Any:
        """One block: hidden [B, 1, H], of the first block [B, S, H], to [B, 1, H]."""
        if first:
            self.states, hidden = hidden, self._picked(hidden)
        keys = _Once(past_key_values)
        block.self_attn(
            hidden_states=block.input_layernorm(self.states),
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
            position_ids=position_ids,
            past_key_values=keys,
            keys_only=True,
            **others,
        )
        cosines, sines = position_embeddings
        return forward(
            hidden,
            attention_mask=attention_mask[0, 0][self.last][:, None, None],  # [B, 1, 1, P + S]
            position_embeddings=(self._picked(cosines), self._picked(sines)),
            position_ids=self._picked(position_ids),
            past_key_values=keys,
            **others,
        )

    def _picked(self, values: Tensor) -> Tensor:
        """values [B, S, ..] at each row's position, [B, 1, ..]."""
        return values[torch.arange(self.last.shape[0], device=values.device), self.last][:, None]


class _Once:
    """In place of a cache for one block: keeps the keys and values that it is given first and returns them again."""

    def __init__(self, cache: Cache | None) -> None:
        self.cache = cache
        self.kept: tuple[Tensor, Tensor] | None = None

    def update(self, key: Tensor, value: Tensor, block: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [B, G, P + S, D] of the first call."""
        if self.kept is None:
            self.kept = (key, value) if self.cache is None else self.cache.update(key, value, block)
        return self.kept


def _restore(block: nn.Module, forward: Any) -> None:
    """Give a block the forward back that was set on it, or that of its class."""
    if forward is None:
        del block.forward
    else:
        block.forward = forward
