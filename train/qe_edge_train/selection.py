"""What chooses the best checkpoint of a run: agreement with human scores on dev, or retrieval of translations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from qe_edge.errors import InputError
from qe_edge_train.alignment.parallel import ParallelSet
from qe_edge_train.alignment.pooling import encode_sentences, pooled_states
from qe_edge_train.alignment.retrieval import all_hits, mean_accuracy
from qe_edge_train.batches import EncodedSet
from qe_edge_train.evaluate import dev_record, dev_sample, per_pair, predict
from qe_edge_train.recipe import Recipe
from qe_edge_train.tapped import TappedRegressor, mixed_precision


@dataclass(frozen=True)
class Measured:
    """One evaluation."""

    value: float
    """what is to be as high as possible"""
    record: dict[str, Any]
    """figures for history and run.json"""
    said: str
    """the same for a person"""
    whole: bool
    """whether it is on all there is to measure on"""


class Selection(Protocol):
    """Measures the model as it is now."""

    def measure(self, whole: bool) -> Measured:
        """whole: on all there is, not on the sample that is enough to choose a checkpoint."""


class DevScores:
    """Mean over language pairs of the Spearman correlation of dev rows."""

    def __init__(self, recipe: Recipe, model: TappedRegressor, dev: EncodedSet, device: torch.device) -> None:
        self.recipe, self.model, self.dev, self.device = recipe, model, dev, device

    def measure(self, whole: bool) -> Measured:
        """Score the sample of the recipe's `rows_per_pair`, or all rows. Raises InputError where a model diverged."""
        wanted = 0 if whole else self.recipe.evaluation.rows_per_pair
        rows = dev_sample(self.dev, wanted, self.recipe.optimiser.seed)
        with mixed_precision(self.device, self.recipe.base.dtype):
            scores = predict(self.model, self.dev, rows, self.device)
        if not np.isfinite(scores).all():
            count = np.count_nonzero(~np.isfinite(scores))
            raise InputError(
                f"{count} of {len(scores)} dev scores are no finite numbers: lower [optimiser] learning_rate"
            )
        result = per_pair(self.dev, rows, scores)
        record = dev_record(result)
        mean: float = record["macro_spearman"]
        pairs = "  ".join(f"{pair} {value.spearman:.3f}" for pair, value in result.items())
        return Measured(mean, record, f"mean Spearman {mean:.4f}  ({pairs})", len(rows) == len(self.dev.examples))


class Retrieval:
    """Accuracy over all directions with which held-out sentences find their translations at the aligned layer."""

    def __init__(
        self,
        recipe: Recipe,
        decoder: nn.Module,
        layer: int,
        held_out: ParallelSet,
        tokenizer: Tokenizer,
        bos: int | None,
        device: torch.device,
    ) -> None:
        assert recipe.alignment is not None
        self.decoder, self.layer, self.device = decoder, layer, device
        self.bfloat16, self.bos = recipe.base.dtype == "bfloat16", bos is not None
        limit = recipe.alignment.token_limit
        self.ids = [encode_sentences(tokenizer, bos, column, limit) for column in held_out.sentences.values()]

    def measure(self, whole: bool) -> Measured:
        """Always on all held-out lines: whether a sentence is found depends on how many there are."""
        layers = [self.layer]
        states = [pooled_states(self.decoder, ids, layers, self.device, self.bfloat16, self.bos)[0] for ids in self.ids]
        value, low, high = mean_accuracy(all_hits(states))
        record = {"retrieval_accuracy": value, "interval": [low, high], "lines": len(self.ids[0]), "layer": self.layer}
        return Measured(value, record, f"retrieval accuracy {value:.4f} at layer {self.layer}", True)
