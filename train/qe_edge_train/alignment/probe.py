"""Retrieval of translations at every layer of a decoder: where its states depend least on the language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qe_edge.errors import InputError
from qe_edge_train.alignment.pooling import pooled_states
from qe_edge_train.alignment.retrieval import NEIGHBOURS, accuracies, all_hits, mean_accuracy


@dataclass(frozen=True)
class LayerRetrieval:
    """Retrieval at one layer, between L languages."""

    layer: int
    """index i of hidden_states[i]"""
    accuracy: float
    """mean over the L (L - 1) directions"""
    low: float
    """lower end of its 95 % bootstrap interval over sentences"""
    high: float
    directions: NDArray[np.float64]
    """accuracy from language (row) to language (column), [L, L], nan on the diagonal"""


def retrieval_curve(
    decoder: nn.Module,
    token_ids: Sequence[Sequence[list[int]]],
    layers: Sequence[int],
    device: torch.device,
    k: int = NEIGHBOURS,
    bfloat16: bool = False,
    bos: bool = False,
) -> list[LayerRetrieval]:
    """Retrieval at every `hidden_states[i]` for i in `layers`.

    token_ids: the sentences of each language (`encode_sentences`), the same lines in all; bfloat16, bos: as of
    `pooled_states`. The decoder runs once over every sentence; the states of all layers wait in temporary files (4
    bytes x layers x languages x sentences x hidden size) and are compared one layer at a time.
    Raises InputError for fewer than k sentences.
    """
    sentences = len(token_ids[0])
    if sentences < k:
        raise InputError(f"{sentences} lines of parallel text: retrieval by {k} neighbours needs at least {k}")
    with TemporaryDirectory(prefix="qe-edge-probe-") as folder:
        paths = [Path(folder) / f"{at}.npy" for at in range(len(token_ids))]
        for path, ids in zip(paths, token_ids, strict=True):
            np.save(path, pooled_states(decoder, ids, layers, device, bfloat16, bos))
        return [_retrieval(paths, at, layer, k) for at, layer in enumerate(layers)]


def _retrieval(paths: Sequence[Path], at: int, layer: int, k: int) -> LayerRetrieval:
    """Retrieval at the `at`-th of the stored layers, each file being [layers, n, H] of one language."""
    hits = all_hits([np.array(np.load(path, mmap_mode="r")[at]) for path in paths], k)
    accuracy, low, high = mean_accuracy(hits)
    return LayerRetrieval(layer, accuracy, low, high, accuracies(hits))
