"""Workers that run planned units of rows on a graph, several at once."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock, RLock

from qe_edge.errors import UsageError
from qe_edge.scoring.batching import TOKEN_BUDGET, Family, Unit, length_sorted_batches
from qe_edge.scoring.denormals import flush_denormals
from qe_edge.scoring.graph import Graph, Past

LOOKS = (3_000, 12_000, 50_000, 200_000)
"""Tokens done after which memory is moved into huge pages: batches have taken most of theirs by the first, the longest
being run first. After the last it is moved in any case, for more may come where so many came before."""
WORTHWHILE = 25_000
"""Tokens that must be waiting earlier: moving takes as long as it saves on them."""
Outcome = float | str
"""The score of a row, which is finite, or why there is none: one line with what to do."""
NO_MEMORY = "not enough memory to run this row even alone; free some memory, give fewer --threads, or shorten the row"


class Engine:
    """A graph and the threads that run it: on a CPU one a core, each with a batch of its own (docs/architecture.md).

    workers: batches run at once; token_budget: padded tokens of a batch. Neither changes a score. A batch for which
    there is not enough memory is run in halves, down to single rows. It works in the process that made it only: a
    forked child has none of its threads, and ONNX Runtime is not made to be forked.
    """

    def __init__(self, graph: Graph, workers: int = 1, token_budget: int = TOKEN_BUDGET) -> None:
        self.graph = graph
        self.workers = workers
        self.token_budget = token_budget
        self._pool = ThreadPoolExecutor(workers, "qe-edge", flush_denormals)
        self._process = os.getpid()
        self._closed = False
        self._short_of_memory = RLock()
        self._counting = Lock()
        self._waiting = self._done = 0

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that made the engine."""
        return os.getpid() != self._process

    def check_usable(self) -> None:
        """Raise UsageError in a forked child, where the workers would be waited for in vain, and once it is closed."""
        if self.forked:
            raise UsageError(
                "this scorer was loaded before the process was forked; load one in each process, or start processes "
                'with multiprocessing.get_context("spawn")'
            )
        if self._closed:
            raise UsageError("this scorer is closed; load another one")

    def submit(self, past: Past, unit: Unit, bodies: Sequence[list[int]]) -> Future[list[Outcome]]:
        """The outcomes of a unit's rows, in the order of its families, once a worker has run it.

        past: of the language pair's prefix; bodies: token ids of all rows, which the unit's indices point into.
        Raises MemoryError when the system has no room for a worker's thread, UsageError as `check_usable`.
        """
        self.check_usable()
        try:
            future = self._pool.submit(self._run, past, unit, bodies)
        except RuntimeError as error:
            self.check_usable()  # another thread may have closed it just now
            if "start new thread" not in str(error):
                raise
            raise MemoryError(str(error)) from error
        tokens = _tokens(unit, bodies)
        with self._counting:
            self._waiting += tokens
        future.add_done_callback(lambda _: self._after(tokens))
        return future

    def _after(self, tokens: int) -> None:
        """Look whether memory should be moved, after a unit of so many tokens."""
        with self._counting:
            passed = [look for look in LOOKS if self._done < look <= self._done + tokens]
            self._waiting -= tokens
            self._done += tokens
            due = passed and (self._waiting >= WORTHWHILE or passed[-1] == LOOKS[-1])
        if due:
            self.graph.use_huge_pages()

    def close(self) -> None:
        """Wait for what the workers are running and let them go; what they have not begun is left out.

        In a forked child there is nothing to wait for.
        """
        self._closed = True
        if not self.forked:
            self._pool.shutdown(cancel_futures=True)

    def _run(self, past: Past, unit: Unit, bodies: Sequence[list[int]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for family, before in self._begun(past, unit):
            rest = [bodies[row][len(family.beginning) :] for row in family.rows]
            found: dict[int, Outcome] = {}
            for batch in length_sorted_batches([len(ids) for ids in rest], self.token_budget):
                found |= zip(batch, self._outcomes(before, [rest[i] for i in batch]), strict=True)
            outcomes += [found[row] for row in range(len(rest))]
        return outcomes

    def _begun(self, past: Past, unit: Unit) -> list[tuple[Family, Past]]:
        """Each family with the past of its rows. Without memory for that, the same rows sharing nothing."""
        with suppress(MemoryError):
            return list(zip(unit, self.graph.extend(past, [family.beginning for family in unit]), strict=True))
        return [(Family([], family.rows), past) for family in unit]

    def _outcomes(self, past: Past, bodies: Sequence[list[int]]) -> list[Outcome]:
        """Outcomes of a batch.

        Without memory for it the batch is tried again, and in parts, while no other worker does so: what they hold
        meanwhile would be missing once more.
        """
        with suppress(MemoryError):
            return self._scores(past, bodies)
        with self._short_of_memory:
            return self._in_parts(past, bodies)

    def _in_parts(self, past: Past, bodies: Sequence[list[int]]) -> list[Outcome]:
        """Outcomes of a batch, run in halves of halves as far as the memory asks for it."""
        with suppress(MemoryError):
            return self._scores(past, bodies)
        if len(bodies) == 1:
            return [NO_MEMORY]
        half = len(bodies) // 2
        return self._in_parts(past, bodies[:half]) + self._in_parts(past, bodies[half:])

    def _scores(self, past: Past, bodies: Sequence[list[int]]) -> list[Outcome]:
        return [_checked(score) for score in self.graph.scores(past, bodies)]


def _tokens(unit: Unit, bodies: Sequence[list[int]]) -> int:
    """Tokens that a unit runs, padding left out."""
    return sum(
        len(family.beginning) + sum(len(bodies[row]) - len(family.beginning) for row in family.rows) for family in unit
    )


def _checked(score: float) -> Outcome:
    """The score, unless it is infinite or not a number, as when 16 bits overflow."""
    if math.isfinite(score):
        return score
    return (
        f"the model's score is {score}, no finite number; take a bundle in fp32 (export --precision), or drop the row"
    )
