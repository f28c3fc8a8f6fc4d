"""Where a block runs on the last position of a row alone, the padding of a batch must not move its state."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaModel

from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.samples import opened
from qe_edge_train.attention import NAME
from qe_edge_train.decoder import cut_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.tapped import TappedRegressor


def test_a_row_scores_the_same_to_the_last_bit_whatever_it_is_padded_to() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=90,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
    )
    decoder = LlamaModel._from_config(config, attn_implementation=NAME)
    head = RegressionHead(HeadOptions(128, layer_norm=True, bias=True))
    model = TappedRegressor(cut_decoder(decoder, 1), head, full_blocks=1).requires_grad_(False).eval()
    states = export_states(model)
    shape = key_value_shape(states)
    attach_head(states, model.head)
    random = np.random.default_rng(0)
    with opened(states, shape) as graph:
        past = graph.prefix(random.integers(3, 90, 51).tolist())
        for length in range(20, 60, 3):
            body = random.integers(3, 90, length).tolist()
            alone = graph.scores(past, [body])[0]
            for longer in range(1, 30, 4):
                beside = random.integers(3, 90, length + longer).tolist()
                assert graph.scores(past, [body, beside])[0] == alone, (length, longer)
