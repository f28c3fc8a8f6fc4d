"""Batches of sentence pairs, uniform over languages."""

from __future__ import annotations

import random
from dataclasses import dataclass

from qe_edge.errors import InputError
from qe_edge.languages import resolve
from qe_edge_train.alignment.parallel import ParallelSet


@dataclass(frozen=True)
class SentencePair:
    """One line in two languages."""

    line: int
    """position in the parallel set"""
    source: str
    """language of the side that looks for its translation"""
    target: str


class PairSampler:
    """Draws batches of pairs of a pivot language with the other languages of a parallel set.

    All pairs of a batch are of one language and the pivot, in one direction: with several languages in a batch a
    sentence is told from its negatives by their language, and little is learnt of what it says (docs/log.md). Languages
    take turns: every len(others) batches hold each once, in random order; a fair coin decides which side is the source.
    The lines of a batch are drawn without repetition: a line occurring twice would be a false negative.

    A batch depends on seed and number alone, so a resumed run continues as an uninterrupted one. Raises InputError when
    the pivot is not a language of the set, and when the set has fewer lines than a batch.
    """

    def __init__(self, parallel: ParallelSet, pivot: str, pairs_per_batch: int, seed: int) -> None:
        self.pivot = resolve(pivot) if pivot else parallel.languages[0]
        if self.pivot not in parallel.languages:
            raise InputError(
                f"pivot {pivot!r} is not a language of the parallel texts ({', '.join(parallel.languages)})"
            )
        if pairs_per_batch > len(parallel):
            raise InputError(
                f"pairs_per_batch = {pairs_per_batch}, but the parallel texts have {len(parallel)} whole lines, and a "
                "batch holds no line twice; lower pairs_per_batch or use more lines"
            )
        self.others = [language for language in parallel.languages if language != self.pivot]
        self.pairs = len(parallel) * len(self.others)
        """pairs of a line and another language that can be drawn"""
        self._lines = len(parallel)
        self._pairs_per_batch = pairs_per_batch
        self._seed = seed

    def batch(self, number: int) -> list[SentencePair]:
        """The pairs of batch `number`, from 0."""
        turn, place = divmod(number, len(self.others))
        order = random.Random(f"{self._seed}/turn {turn}").sample(self.others, len(self.others))
        generator = random.Random(f"{self._seed}/{number}")
        sides = (self.pivot, order[place])
        source, target = sides if generator.random() < 0.5 else sides[::-1]
        lines = generator.sample(range(self._lines), self._pairs_per_batch)
        return [SentencePair(line, source, target) for line in lines]
