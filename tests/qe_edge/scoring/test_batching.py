"""Batches under a token budget: every row once, longest first, never over the budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qe_edge.scoring.batching import length_sorted_batches


def test_a_hand_worked_cut() -> None:
    # sorted: 9 | 5 4 | 3 2 1 with at most 10 padded tokens a batch
    assert list(length_sorted_batches([3, 9, 5, 1, 4, 2], budget=10)) == [[1], [2, 4], [0, 5, 3]]


def test_a_row_longer_than_the_budget_runs_alone() -> None:
    assert list(length_sorted_batches([50, 3], budget=10)) == [[0], [1]]


@given(st.lists(st.integers(1, 300)), st.integers(1, 900))
def test_every_row_runs_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(length_sorted_batches(lengths, budget))

    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
