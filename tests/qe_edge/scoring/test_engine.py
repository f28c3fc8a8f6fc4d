"""Batches that find no memory are run in parts, and what is no number never counts as a score."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from qe_edge.errors import BundleError, UsageError
from qe_edge.scoring.batching import Family, plan
from qe_edge.scoring.engine import NO_MEMORY, WORTHWHILE, Engine, Outcome
from qe_edge.scoring.graph import Graph, Past

START: Past = {"sum": np.zeros(1)}


class Adding(Graph):
    """A row's score is the sum of its tokens and of those before it. More tokens than `room` find no memory."""

    def __init__(self, room: float = float("inf"), room_to_begin: float = float("inf")) -> None:
        self.room = room
        self.room_to_begin = room_to_begin
        self.tried: list[int] = []

    def extend(self, past: Past, beginnings: Sequence[Sequence[int]]) -> list[Past]:
        if sum(map(len, beginnings)) > self.room_to_begin:
            raise MemoryError
        return [{"sum": past["sum"] + sum(beginning)} for beginning in beginnings]

    def scores(self, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        self.tried.append(len(bodies))
        if len(bodies) * max(map(len, bodies)) > self.room:
            raise MemoryError("no room")
        return [float(past["sum"][0] + sum(body)) for body in bodies]


def outcomes(
    graph: Graph, bodies: list[list[int]], workers: int = 1, sources: list[str] | None = None
) -> list[Outcome]:
    """By row, of rows that are planned as the scorer does."""
    engine = Engine(graph, workers, token_budget=10**6)
    found: dict[int, Outcome] = {}
    try:
        units = plan(bodies, sources or [str(row) for row in range(len(bodies))], engine.token_budget)
        for unit in units:
            rows = [row for family in unit for row in family.rows]
            found |= zip(rows, engine.submit(START, unit, bodies).result(), strict=True)
    finally:
        engine.close()
    return [found[row] for row in range(len(bodies))]


def test_a_batch_without_memory_is_halved_until_its_parts_fit() -> None:
    bodies = [[row] * 3 for row in range(13)]
    graph = Adding(room=7)
    assert outcomes(graph, bodies) == [float(3 * row) for row in range(13)]
    assert graph.tried == [13, 13, 6, 3, 1, 2, 3, 1, 2, 7, 3, 1, 2, 4, 2, 2]


def test_a_row_that_does_not_fit_alone_has_a_reason_and_the_others_have_their_scores() -> None:
    bodies = [[1], [2] * 9, [3] * 2, [4] * 10, [5]]
    graph = Adding(room=4)
    assert outcomes(graph, bodies) == [1.0, NO_MEMORY, 6.0, NO_MEMORY, 5.0]
    assert len(graph.tried) <= 1 + 2 * len(bodies)


def test_without_memory_for_a_shared_source_its_rows_share_nothing_and_score_the_same() -> None:
    bodies = [[7] * 50 + [row] for row in range(4)] + [[9] * 60 + [row] for row in range(3)]
    sources = ["a"] * 4 + ["b"] * 3
    assert [family.beginning for unit in plan(bodies, sources, 10**6) for family in unit] == [[9] * 60, [7] * 50]
    plain = outcomes(Adding(), bodies, sources=sources)
    assert plain == [float(sum(body)) for body in bodies]
    assert outcomes(Adding(room_to_begin=100), bodies, sources=sources) == plain
    assert outcomes(Adding(room=130, room_to_begin=0), bodies, sources=sources) == plain


def test_workers_that_are_all_short_of_memory_finish() -> None:
    graph, bodies = Adding(room=1), [[row] for row in range(64)]
    engine = Engine(graph, workers=4)
    pending = [engine.submit(START, [Family([], list(range(start, start + 8)))], bodies) for start in range(0, 64, 8)]
    assert [score for future in pending for score in future.result(timeout=60)] == [float(row) for row in range(64)]
    engine.close()


class Moving(Adding):
    """Counts how many batches were run when its memory was moved. Waits until all units are there."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[int] = []
        self.all_there = threading.Event()

    def scores(self, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        assert self.all_there.wait(60)
        return super().scores(past, bodies)

    def use_huge_pages(self) -> None:
        self.moved.append(len(self.tried))


BODIES = [[7] * 500, [7] * 250 + [8] * 250]
LATER = WORTHWHILE // 500


@pytest.mark.parametrize(
    ("units", "moved"),
    [
        (6 + LATER - 1, []),  # too little to be worth it
        (6 + LATER, [6]),
        (24 + LATER, [6, 24]),
        (100 + LATER, [6, 24, 100]),
        (400, [6, 24, 100, 400]),
    ],
)
def test_memory_moves_into_huge_pages_when_enough_is_waiting(units: int, moved: list[int]) -> None:
    graph = Moving()
    engine = Engine(graph)
    pending = [engine.submit(START, [Family([], [0])], BODIES) for _ in range(units)]
    graph.all_there.set()
    assert [future.result(timeout=60) for future in pending] == [[3500.0]] * units
    engine.close()
    assert graph.moved == moved


def test_tokens_that_rows_share_are_counted_once() -> None:
    graph = Moving()
    engine = Engine(graph)
    family = Family([7] * 250, [0, 1])  # 250 tokens and twice 250 more
    pending = [engine.submit(START, [family], BODIES) for _ in range(4 + WORTHWHILE // 750 + 1)]
    graph.all_there.set()
    assert [future.result(timeout=60) for future in pending] == [[3500.0, 3750.0]] * len(pending)
    engine.close()
    assert graph.moved == [2 * 4]  # each a batch of its own


def test_memory_moves_in_the_end_where_units_come_one_by_one() -> None:
    graph = Moving()
    graph.all_there.set()
    engine = Engine(graph)
    for _ in range(450):
        assert engine.submit(START, [Family([], [0])], BODIES).result(timeout=60) == [3500.0]
    engine.close()
    assert graph.moved == [400]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_finite_number_is_no_score(number: float) -> None:
    class Overflowing(Adding):
        def scores(self, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
            return [number if body[0] == 1 else 2.0 for body in bodies]

    first, second = outcomes(Overflowing(), [[1], [2]])
    assert isinstance(first, str)
    assert first.startswith(f"the model's score is {number}, no finite number; take a bundle in fp32")
    assert second == 2.0


def test_any_other_error_is_raised_once_and_not_tried_again() -> None:
    class Broken(Adding):
        def scores(self, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
            self.tried.append(len(bodies))
            raise BundleError("the graph failed")

    graph = Broken()
    with pytest.raises(BundleError, match="the graph failed"):
        outcomes(graph, [[1], [2]])
    assert graph.tried == [2]


def test_a_thread_that_cannot_be_started_is_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    engine = Engine(Adding())
    with pytest.raises(MemoryError, match="can't start new thread"):
        engine.submit(START, [Family([], [0])], [[1]])
    engine.close()
    with pytest.raises(UsageError, match="this scorer is closed"):
        engine.submit(START, [Family([], [0])], [[1]])


def test_a_closed_engine_has_no_thread_left_and_leaves_out_what_was_not_begun() -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow(Adding):
        def scores(self, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
            begun.set()
            assert go.wait(60)
            return super().scores(past, bodies)

    engine = Engine(Slow())
    first, second = (engine.submit(START, [Family([], [row])], [[1], [2]]) for row in (0, 1))
    assert begun.wait(60)
    threading.Timer(0.05, go.set).start()
    engine.close()
    assert first.result() == [1.0]
    assert second.cancelled()
    assert not any(thread.name.startswith("qe-edge") for thread in threading.enumerate())


def test_a_failed_try_holds_no_memory() -> None:
    class Array:
        alive = 0

        def __init__(self) -> None:
            Array.alive += 1

        def __del__(self) -> None:
            Array.alive -= 1

    class Holding(Adding):
        def scores(self, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
            array = Array()
            assert Array.alive == 1, "what an earlier try held is still there"
            raise MemoryError(f"no room beside {array}")

    assert outcomes(Holding(), [[1], [2], [3]]) == [NO_MEMORY] * 3
    assert Array.alive == 0
