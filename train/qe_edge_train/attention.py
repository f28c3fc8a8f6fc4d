"""The attention that tapped decoders use, plugged into transformers' attention interface as "qe_edge".

Legend: B rows, N query heads, G key/value heads, R = N / G queries per key, S queries, T keys, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "qe_edge"


def tapped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    keys_only: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """Grouped-query attention of query [B, N, S, D] to key, value [B, G, T, D] under a boolean mask [1 or B, 1, S, T].

    keys_only: keys and values are all that is wanted, which the caller has by now; nothing is mixed.

    On a CPU the queries that share a key are stacked into one matrix product: a training step is 16 to 44 % faster than
    with torch's fused kernel on texts of 70 to 260 tokens (docs/log.md). Elsewhere, and in the
    exported graph, it is torch's `scaled_dot_product_attention`, which becomes one ONNX `Attention` node.
    """
    if keys_only:
        return query.transpose(1, 2).contiguous(), None
    if query.device.type != "cpu" or torch.compiler.is_exporting():
        alone = query.shape[2] == 1 and torch.compiler.is_exporting()
        if alone:
            # ONNX Runtime multiplies a single row by a kernel of its own, whose sums depend on how many keys follow, so
            # on the padding of a batch: a score would move (docs/log.md). Of two equal rows neither does.
            query, attention_mask = (torch.cat([each, each], 2) for each in (query, attention_mask))
        grouped = query.shape[1] != key.shape[1]  # the ONNX exporter refuses groups of one query
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=grouped
        )
        mixed = mixed[:, :, :1] if alone else mixed
        return mixed.transpose(1, 2).contiguous(), None
    batch, heads, length, size = query.shape
    groups, seen = key.shape[1], key.shape[2]
    scale = size**-0.5 if scaling is None else scaling
    stacked = (query * scale).reshape(batch, groups, -1, size)  # [B, G, R*S, D]
    weights = (stacked @ key.transpose(2, 3)).view(batch, groups, -1, length, seen)  # [B, G, R, S, T]
    weights = weights.float().masked_fill(~attention_mask[:, :, None], float("-inf")).softmax(-1).to(value.dtype)
    mixed = weights.view(batch, groups, -1, seen) @ value  # [B, G, R*S, D]
    return mixed.view(batch, heads, length, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, tapped_attention)
