"""An encoder of the shape of XLM-RoBERTa-large with random weights: for speed, its numbers mean nothing."""

from __future__ import annotations

import torch
from torch import nn
from transformers import XLMRobertaConfig, XLMRobertaModel


def load_encoder(dtype: torch.dtype = torch.float32) -> nn.Module:
    """The encoder without a pooler, in evaluation mode. Sizes of XLM-RoBERTa-large (arXiv 1911.02116)."""
    config = XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    torch.manual_seed(1)
    encoder: nn.Module = XLMRobertaModel(config, add_pooling_layer=False)
    return encoder.to(dtype).eval()
