"""Alignment: sentences and their translations are nearest to each other at one layer (mid-align, arXiv 2502.14830)."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from qe_edge_train.alignment.contrastive import alignment_loss
from qe_edge_train.alignment.parallel import ParallelSet
from qe_edge_train.alignment.pooling import encode_sentences, pooled
from qe_edge_train.alignment.sampling import PairSampler
from qe_edge_train.objectives.step import Step
from qe_edge_train.recipe import Recipe
from qe_edge_train.tapped import mixed_precision

SENTENCES_PER_PASS = 16
"""Sentences of similar length that are run together; all of a step are contrasted with each other."""


class AlignmentObjective:
    """Contrastive steps on a parallel set, uniform over its languages. Blocks above the aligned layer are not run."""

    name = "alignment"

    def __init__(
        self,
        recipe: Recipe,
        decoder: nn.Module,
        layer: int,
        parallel: ParallelSet,
        tokenizer: Tokenizer,
        bos: int | None,
        device: torch.device,
    ) -> None:
        """layer: index of the aligned hidden state."""
        assert recipe.alignment is not None
        self.options, self.decoder, self.layer, self.device = recipe.alignment, decoder, layer, device
        self.dtype, self.bos = recipe.base.dtype, bos is not None
        self.sampler = PairSampler(parallel, self.options.pivot, self.options.pairs_per_batch, recipe.optimiser.seed)
        self.ids = {
            language: encode_sentences(tokenizer, bos, parallel.sentences[language], self.options.token_limit)
            for language in parallel.languages
        }

    def one_pass(self) -> int:
        """Steps that draw as many pairs as there are."""
        return -(-self.sampler.pairs // self.options.pairs_per_batch)

    def tokens(self, number: int) -> int:
        """Tokens of both sides of a step's pairs."""
        return sum(map(len, self._sentences(number)))

    def run(self, number: int) -> Step:
        """Forward and backward over one batch of pairs."""
        self.decoder.train()
        sentences = self._sentences(number)
        with mixed_precision(self.device, self.dtype):
            states = self._states(sentences)
        source, target = states.chunk(2)
        loss = alignment_loss(source, target, self.options.temperature, self.options.symmetric)
        loss.backward()
        return Step(loss.item(), sum(map(len, sentences)))

    def _sentences(self, number: int) -> list[list[int]]:
        """Token ids of all sources of a batch, then of their targets in the same order."""
        pairs = self.sampler.batch(number)
        sources = [self.ids[pair.source][pair.line] for pair in pairs]
        return sources + [self.ids[pair.target][pair.line] for pair in pairs]

    def _states(self, sentences: list[list[int]]) -> Tensor:
        """[n, H] in the order of the sentences."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        passes = [order[i : i + SENTENCES_PER_PASS] for i in range(0, len(order), SENTENCES_PER_PASS)]
        parts = [
            pooled(self.decoder, [sentences[i] for i in rows], self.layer, self.device, self.bos) for rows in passes
        ]
        return torch.cat(parts)[torch.tensor(order, device=self.device).argsort()]
