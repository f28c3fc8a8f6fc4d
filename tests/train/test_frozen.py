"""What goes on from the states of frozen blocks is the decoder itself, also where its blocks differ in kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import Gemma3TextConfig, Gemma3TextModel

from qe_edge_train import attention
from qe_edge_train.frozen import _part
from qe_edge_train.tapped import hidden_states, states_and_keys

TOKENS = torch.tensor([[3, 9, 4, 27, 11], [5, 33, 2, 61, 8]])


@pytest.mark.parametrize("depth", [1, 2])
def test_blocks_above_frozen_ones_keep_the_positions_of_their_own_kind(depth: int) -> None:
    config = Gemma3TextConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    config._attn_implementation = attention.NAME
    torch.manual_seed(3)
    decoder = Gemma3TextModel(config).eval()
    lower, upper = _part(decoder, 0, depth), _part(decoder, depth, None)
    lower.norm = nn.Identity()

    with torch.no_grad():
        (whole,) = hidden_states(decoder, TOKENS, [3])
        below, _ = states_and_keys(lower, TOKENS, depth, None)
        above, _ = states_and_keys(upper, below, 3 - depth, None)

    torch.testing.assert_close(above, whole)
    assert decoder.config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
