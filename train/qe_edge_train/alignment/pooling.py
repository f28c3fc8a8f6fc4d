"""Sentence states: the mean of a layer's hidden states over the tokens of a sentence.

BOS stands before a sentence and is no token of it. Its state is the same before every sentence and often hundreds of
times larger than others (arXiv 2402.17762): in the mean it would make all sentences alike, so it is run and left out
(docs/log.md has the measurement).

Shapes: B sentences in a batch, S tokens, H hidden size, n sentences in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from qe_edge.errors import InputError
from qe_edge.tokens import TextEncoder
from qe_edge_train.tapped import hidden_states

StateArray = NDArray[np.float32]

BATCH_TOKENS = 4096
"""Most tokens of a batch, padding included, where no gradient is needed."""


def encode_sentences(
    tokenizer: Tokenizer, bos: int | None, sentences: Sequence[str], token_limit: int
) -> list[list[int]]:
    """Token ids of plain sentences: BOS if there is one, no prompt, cut after `token_limit` tokens.

    What looks like a control token inside a sentence is text. Raises InputError for a sentence of no token.
    """
    start = [] if bos is None else [bos]
    bodies = TextEncoder(tokenizer).ids(sentences)
    for ids, sentence in zip(bodies, sentences, strict=True):
        if not ids:
            raise InputError(f"the tokenizer makes no token of the sentence {sentence!r}; leave the line out")
    return [(start + ids)[:token_limit] for ids in bodies]


def mean_pool(hidden: Tensor, lengths: Tensor, bos: bool = False) -> Tensor:
    """Mean over the first `lengths` [B] tokens of hidden states [B, S, H] -> [B, H], in float32.

    bos: whether the first token is BOS and does not count. What stands at padded positions never counts, were it
    infinite, and gets no gradient.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        position = torch.arange(hidden.shape[1], device=hidden.device)  # [S]
        real = (position[None, :] < lengths[:, None]) & (position >= int(bos))  # [B, S]
        return torch.where(real.unsqueeze(-1), hidden.float(), 0.0).sum(dim=1) / real.sum(dim=1, keepdim=True)


def pooled(
    decoder: nn.Module, token_ids: Sequence[list[int]], layer: int, device: torch.device, bos: bool = False
) -> Tensor:
    """States [B, H] of sentences at `hidden_states[layer]`, differentiable, float32; only `layer` blocks are run.

    bos: whether every sentence begins with BOS.
    """
    tokens, lengths = _padded(token_ids, device)
    (hidden,) = hidden_states(decoder, tokens, [layer])
    return mean_pool(hidden, lengths, bos)


@torch.no_grad()
def pooled_states(
    decoder: nn.Module,
    token_ids: Sequence[list[int]],
    layers: Sequence[int],
    device: torch.device,
    bfloat16: bool = False,
    bos: bool = False,
) -> StateArray:
    """States of sentences at every `hidden_states[i]` for i in `layers`: [len(layers), n, H], sentences in their order.

    The decoder is put in evaluation mode. bfloat16: let its matrix products run in that type; bos: whether every
    sentence begins with BOS.
    """
    decoder.eval()
    states: StateArray | None = None
    for rows in _batches([len(ids) for ids in token_ids]):
        tokens, lengths = _padded([token_ids[row] for row in rows], device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            hidden = hidden_states(decoder, tokens, layers)
        means = [mean_pool(one, lengths, bos).cpu().numpy() for one in hidden]  # each [B, H]
        if states is None:
            states = np.empty((len(layers), len(token_ids), means[0].shape[1]), np.float32)
        states[:, rows] = np.stack(means)
    if states is None:
        raise ValueError("no sentences")
    return states


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row indices by length, so many a batch that their padded tokens stay within BATCH_TOKENS."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) + 1) * lengths[row] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _padded(token_ids: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens [B, S], padded on the right with id 0, and their lengths [B]."""
    lengths = [len(ids) for ids in token_ids]
    tokens = torch.tensor([ids + [0] * (max(lengths) - len(ids)) for ids in token_ids], device=device)
    return tokens, torch.tensor(lengths, device=device)
