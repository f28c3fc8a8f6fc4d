"""Workers that run planned units of rows on a graph, several at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from qe_edge.scoring.batching import TOKEN_BUDGET, Unit, length_sorted_batches
from qe_edge.scoring.graph import Graph, Past


class Engine:
    """A graph and the threads that run it: on a CPU one a core, each with a batch of its own (docs/architecture.md).

    workers: batches run at once; token_budget: padded tokens of a batch. Neither changes a score.
    """

    def __init__(self, graph: Graph, workers: int = 1, token_budget: int = TOKEN_BUDGET) -> None:
        self.graph = graph
        self.workers = workers
        self.token_budget = token_budget
        self._pool = ThreadPoolExecutor(workers, "qe-edge")

    def submit(self, past: Past, unit: Unit, bodies: Sequence[list[int]]) -> Future[list[float]]:
        """The scores of a unit's rows, in the order of its families, once a worker has run it.

        past: of the language pair's prefix; bodies: token ids of all rows, which the unit's indices point into.
        """
        return self._pool.submit(self._run, past, unit, bodies)

    def close(self) -> None:
        """Let the workers go once they have finished what they are running; what they have not begun is left out."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, past: Past, unit: Unit, bodies: Sequence[list[int]]) -> list[float]:
        scores: list[float] = []
        pasts = self.graph.extend(past, [family.beginning for family in unit])
        for family, before in zip(unit, pasts, strict=True):
            rest = [bodies[row][len(family.beginning) :] for row in family.rows]
            found = [0.0] * len(rest)
            for batch in length_sorted_batches([len(ids) for ids in rest], self.token_budget):
                for row, score in zip(batch, self.graph.scores(before, [rest[i] for i in batch]), strict=True):
                    found[row] = score
            scores += found
        return scores
