"""The tapped decoder: a causal decoder cut above its highest tap, with a regression head on the last real token.

This is the one forward pass of the project: training, probing and alignment run it, and export wraps the very same
module.

Shapes: B rows, S body tokens, P prefix tokens, H hidden size, K taps, G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from qe_edge_train.decoder import blocks, plain_decoder
from qe_edge_train.heads import RegressionHead
from qe_edge_train.last_position import last_position_above

KeyValues = list[tuple[Tensor, Tensor]]
"""Keys and values of every block, each [B or 1, G, P, D]."""


def mixed_precision(device: torch.device, dtype: str) -> torch.autocast:
    """Matrix products in bfloat16 if that is a recipe's `[base] dtype`; the adapter's own weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def hidden_states(decoder: nn.Module, tokens: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """hidden_states[i] [B, S, H] of tokens [B, S], padded on the right, for every index i of `layers`.

    Index 0 is the embedding output, i the residual stream after block i, without the final norm; only the last index
    of a decoder that has its final norm is normed. Blocks above the highest index are not run.
    """
    with _only(decoder, max(layers)):
        return _run(decoder, tokens, layers, None, None)


def states_and_keys(decoder: nn.Module, tokens: Tensor, layer: int, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
    """hidden_states[layer] [B, S, H] of tokens [B, S] after a prefix, and the keys and values of every block."""
    cache = DynamicCache()
    (states,) = _run(decoder, tokens, [layer], past, cache)
    return states, _key_values(cache)


class TappedRegressor(nn.Module):
    """A cut decoder and its head. `decoder` may be wrapped by peft; only its forward is used.

    full_blocks: blocks that run on all positions, 0 for all of them; those above run on each row's last position alone,
    with keys and values from the state after the last full block (`last_position.py`).
    """

    def __init__(self, decoder: nn.Module, head: RegressionHead, full_blocks: int = 0) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = head
        self.full_blocks = full_blocks or len(blocks(decoder))
        self.layers = [len(blocks(decoder)) - offset for offset in head.options.offsets]
        """index of the hidden state that each tap reads"""
        self.recomputes = False
        """whether training recomputes activations; then no keys and values are kept and no prefix can be shared"""

    def prefix(self, tokens: Tensor) -> KeyValues | None:
        """Keys and values of the shared prefix, tokens [1, P]; differentiable. None when the prefix is empty.

        Here and below, states [.., H] from under the decoder's first block may stand for tokens (`frozen.py`).
        """
        length = tokens.shape[1]
        return self.last_states(tokens, torch.tensor([length - 1], device=tokens.device), None)[1] if length else None

    def last_states(self, tokens: Tensor, last: Tensor, past: KeyValues | None) -> tuple[list[Tensor], KeyValues]:
        """Hidden states [B, H], one a tap, at position `last` [B] of tokens [B, S]; keys and values of all blocks.

        `past` holds [1, G, P, D] or [B, G, P, D] for every block. Attention is causal and padding is on the right,
        so no real position ever sees padding.
        """
        cache = None if self.recomputes and self.training else DynamicCache()
        with last_position_above(blocks(self.decoder), self.full_blocks, last):
            states = _run(self.decoder, tokens, self.layers, past, cache)
        rows = torch.arange(last.shape[0], device=tokens.device)
        picked = [
            state[rows, last] if layer <= self.full_blocks else state[:, 0]
            for state, layer in zip(states, self.layers, strict=True)
        ]
        return picked, [] if cache is None else _key_values(cache)

    def outputs(self, tokens: Tensor, last: Tensor, past: KeyValues | None) -> Tensor:
        """The score by every linear map of the head, [B, M]; what training compares with the human score."""
        states, _ = self.last_states(tokens, last, past)
        return self.head.outputs(torch.stack(states, 1))

    def forward(self, tokens: Tensor, last: Tensor, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        """Scores [B] read at position `last` [B] of tokens [B, S], and the keys and values of every block."""
        states, present = self.last_states(tokens, last, past)
        return self.head(torch.stack(states, 1)), present


def _run(
    decoder: nn.Module, tokens: Tensor, layers: Sequence[int], past: KeyValues | None, cache: DynamicCache | None
) -> list[Tensor]:
    """Run all blocks over tokens [B, S] after a prefix; leave keys and values in `cache`; read states [B, S, H].

    tokens: ids, or in their place what the first block reads, [B, S, H].
    """
    batch, length = tokens.shape[:2]
    if past is not None:
        assert cache is not None, "a prefix cannot be shared while activations are recomputed"
        for block, (key, value) in zip(blocks(decoder), past, strict=True):
            shape = (batch, -1, -1, -1)
            cache.update(key.expand(shape), value.expand(shape), _number(block))
    before = 0 if past is None else past[0][0].shape[2]
    position = torch.arange(length, device=tokens.device) + before  # [S]
    every = torch.arange(length + before, device=tokens.device)  # [P + S]
    visible = (every[None, :] <= position[:, None])[None, None]  # [1, 1, S, P + S]
    depth = len(blocks(decoder))
    with _inputs_of_blocks(decoder, [layer for layer in layers if layer < depth]) as read:
        output = plain_decoder(decoder)(
            **{"input_ids" if tokens.dim() == 2 else "inputs_embeds": tokens},
            attention_mask=visible,
            position_ids=position.expand(batch, -1),  # one row each: ONNX RotaryEmbedding does not broadcast
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return [output.last_hidden_state if layer == depth else read[layer] for layer in layers]


@contextmanager
def _inputs_of_blocks(decoder: nn.Module, indices: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collects what the blocks of these indices read: the hidden state of the same index."""
    read: dict[int, Tensor] = {}

    def collect(index: int, arguments: tuple[Any, ...]) -> None:
        read[index] = arguments[0]

    with ExitStack() as hooks:
        for index in indices:
            handle = blocks(decoder)[index].register_forward_pre_hook(
                lambda _, arguments, index=index: collect(index, arguments)
            )
            hooks.callback(handle.remove)
        yield read


@contextmanager
def _only(decoder: nn.Module, count: int) -> Iterator[None]:
    """The decoder with its first `count` blocks alone; without its final norm if some are left out."""
    inner, every = plain_decoder(decoder), blocks(decoder)
    if not 0 <= count <= len(every):
        raise ValueError(f"hidden state {count} of a decoder with {len(every)} blocks")
    norm = inner.norm
    if count < len(every):
        inner.layers, inner.norm = every[:count], nn.Identity()
    try:
        yield
    finally:
        inner.layers, inner.norm = every, norm


def _number(block: Any) -> int:
    """The block's index in the whole decoder, which a cache knows its keys and values by."""
    return int(block.self_attn.layer_idx)


def _key_values(cache: DynamicCache) -> KeyValues:
    """Keys and values of every block that ran, [B, G, P + S, D]."""
    present: KeyValues = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        if layer.keys is not None and layer.values is not None:
            present.append((layer.keys, layer.values))
    return present
