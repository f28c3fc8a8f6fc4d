"""Length-grouped batches of token ids, each of one language pair so that it shares one prompt prefix."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qe_edge.tokens import Pair, PromptEncoder
from qe_edge_train.data import Example

LENGTH_STEP = 16
"""Batches are padded to a multiple of this: with few different shapes the allocator reuses what it has, with hundreds
its memory grows for as long as a training lasts (docs/log.md)."""

POOL = 50
"""Micro-batches among which rows are sorted by length: little padding, and still a random order."""


@dataclass(frozen=True)
class EncodedSet:
    """Examples with their token ids. Index i of every list is the same row."""

    examples: Sequence[Example]
    bodies: list[list[int]]
    """token ids after the shared prefix"""
    prefixes: dict[Pair, list[int]]

    @property
    def pairs(self) -> list[str]:
        """Language pairs in order of first appearance."""
        return list(dict.fromkeys(example.pair for example in self.examples))


@dataclass(frozen=True)
class Batch:
    """Rows of one language pair. B rows, S tokens, P prefix tokens."""

    prefix: Tensor
    """[1, P] int64; P = 0 when every row carries its prefix itself"""
    tokens: Tensor
    """[B, S] int64, padded on the right"""
    last: Tensor
    """[B] int64, index of each row's last real token"""
    rows: list[int]
    """index of each row in its EncodedSet"""


def encode(examples: Sequence[Example], encoder: PromptEncoder) -> EncodedSet:
    """Tokenise examples."""
    bodies = encoder.bodies([(example.names, example.texts) for example in examples])
    names = {example.names for example in examples}
    return EncodedSet(examples, [body.ids for body in bodies], {pair: encoder.fixed(pair).prefix for pair in names})


def plan_epoch(
    data: EncodedSet, batch_size: int, micro_batch_size: int, seed: int, epoch: int
) -> list[list[list[int]]]:
    """The optimiser steps of one epoch: steps -> micro-batches -> row indices. The same arguments give the same plan.

    Every row occurs exactly once. Rows of a pair are shuffled, sorted by length within pools, cut into micro-batches;
    all micro-batches are then shuffled together.
    """
    generator = random.Random(f"{seed}/{epoch}")
    micro: list[list[int]] = []
    for pair in data.pairs:
        rows = [i for i, example in enumerate(data.examples) if example.pair == pair]
        generator.shuffle(rows)
        for start in range(0, len(rows), POOL * micro_batch_size):
            pool = sorted(rows[start : start + POOL * micro_batch_size], key=lambda i: len(data.bodies[i]))
            micro += [pool[i : i + micro_batch_size] for i in range(0, len(pool), micro_batch_size)]
    generator.shuffle(micro)
    per_step = batch_size // micro_batch_size
    return [micro[i : i + per_step] for i in range(0, len(micro), per_step)]


def sorted_batches(data: EncodedSet, rows: Sequence[int], size: int) -> Iterator[list[int]]:
    """Row indices for scoring: by pair and length, at most `size` a batch."""
    for pair in data.pairs:
        own = sorted((i for i in rows if data.examples[i].pair == pair), key=lambda i: len(data.bodies[i]))
        for start in range(0, len(own), size):
            yield own[start : start + size]


def collate(data: EncodedSet, rows: list[int], device: torch.device, share_prefix: bool = True) -> Batch:
    """Tensors of rows of one pair, padded on the right with id 0 (never read: attention is causal).

    S is a multiple of LENGTH_STEP.
    """
    prefix = data.prefixes[data.examples[rows[0]].names]
    own = [data.bodies[i] if share_prefix else prefix + data.bodies[i] for i in rows]
    length = -(-max(map(len, own)) // LENGTH_STEP) * LENGTH_STEP
    tokens = torch.tensor([ids + [0] * (length - len(ids)) for ids in own], device=device)
    last = torch.tensor([len(ids) - 1 for ids in own], device=device)
    shared = torch.tensor([prefix if share_prefix else []], dtype=torch.int64, device=device)
    return Batch(shared, tokens, last, rows)
