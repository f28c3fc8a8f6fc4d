"""Dev metrics of a model in training, per language pair."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qe_edge.metrics import Agreement, FloatArray, agreement, macro_spearman
from qe_edge_train.batches import Batch, EncodedSet, collate, sorted_batches
from qe_edge_train.tapped import KeyValues, TappedRegressor

SCORING_BATCH = 32


@torch.no_grad()
def predict(model: TappedRegressor, data: EncodedSet, rows: Sequence[int], device: torch.device) -> FloatArray:
    """Scores of the given rows, in their order, on the score scale; the prefix of a pair is run once."""
    model.eval()
    scores: dict[int, float] = {}
    for batch, past in _batches(model, data, rows, device):
        values, _ = model(batch.tokens, batch.last, past)
        scores.update(zip(batch.rows, values.tolist(), strict=True))
    return np.array([scores[i] for i in rows])


@torch.no_grad()
def tapped_states(model: TappedRegressor, data: EncodedSet, rows: Sequence[int], device: torch.device) -> Tensor:
    """Tapped states of the given rows, float32 [rows, K, H] on the CPU, in their order."""
    model.eval()
    found: dict[int, Tensor] = {}
    for batch, past in _batches(model, data, rows, device):
        states, _ = model.last_states(batch.tokens, batch.last, past)
        found.update(zip(batch.rows, torch.stack(states, 1).float().cpu(), strict=True))
    return torch.stack([found.pop(i) for i in rows])


@torch.no_grad()
def head_features(model: TappedRegressor, data: EncodedSet, rows: Sequence[int], device: torch.device) -> FloatArray:
    """What the head's linear maps read of the given rows, [rows, M, H], in their order."""
    states = tapped_states(model, data, rows, device).split(SCORING_BATCH)
    with torch.autocast(device.type, enabled=False):
        features = [model.head.features(some.to(device)).double().cpu().numpy() for some in states]
    return np.concatenate(features)


def _batches(
    model: TappedRegressor, data: EncodedSet, rows: Sequence[int], device: torch.device
) -> Iterator[tuple[Batch, KeyValues | None]]:
    """Length-sorted batches of some rows, each with the keys and values of its pair's prefix."""
    prefixes: dict[str, KeyValues | None] = {}
    for indices in sorted_batches(data, rows, SCORING_BATCH):
        batch = collate(data, indices, device)
        pair = data.examples[indices[0]].pair
        if pair not in prefixes:
            prefixes[pair] = model.prefix(batch.prefix)
        yield batch, prefixes[pair]


def dev_sample(data: EncodedSet, rows_per_pair: int, seed: int) -> list[int]:
    """Indices of a fixed random sample of each pair's rows; all of them when rows_per_pair is 0."""
    chosen: list[int] = []
    for pair in data.pairs:
        rows = [i for i, example in enumerate(data.examples) if example.pair == pair]
        if 0 < rows_per_pair < len(rows):
            rows = random.Random(seed).sample(rows, rows_per_pair)
        chosen += rows
    return chosen


def per_pair(data: EncodedSet, rows: Sequence[int], scores: FloatArray) -> dict[str, Agreement]:
    """Agreement of scores with the human scores of the same rows, by language pair."""
    pairs = np.array([data.examples[i].pair for i in rows])
    human = np.array([data.examples[i].score for i in rows])
    return {pair: agreement(scores[pairs == pair], human[pairs == pair]) for pair in dict.fromkeys(pairs.tolist())}


def dev_record(result: dict[str, Agreement]) -> dict[str, Any]:
    """Metrics as a JSON object."""
    return {
        "macro_spearman": macro_spearman(result),
        "pairs": {pair: asdict(value) for pair, value in result.items()},
    }
