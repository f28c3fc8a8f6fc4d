"""Batches under a token budget, and rows that share a source: every row once, longest first, never over the budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qe_edge.scoring.batching import LEAST_SAVED, MOST_ROWS, Family, length_sorted_batches, plan


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


SOURCE = list(range(100, 160))
"""the beginning of a long source: sharing it once saves enough"""


def test_rows_of_one_source_become_a_family_before_the_others() -> None:
    bodies = [[*SOURCE, 1, 2], [7, 8, 9], [*SOURCE, 1], [5]]
    units = plan(bodies, ["a", "b", "a", "c"], budget=100)
    assert units == [[Family(SOURCE, [0, 2])], [Family([], [1, 3])]]


def test_families_run_their_beginnings_together_within_the_budget() -> None:
    bodies = [[first, *SOURCE, last] for first in (1, 2, 3) for last in (4, 5)]
    units = plan(bodies, [body[0] for body in bodies], budget=2 * (len(SOURCE) + 1))
    assert [[family.rows for family in unit] for unit in units] == [[[0, 1], [2, 3]], [[4, 5]]]


def test_a_unit_of_families_is_not_much_larger_than_a_batch() -> None:
    bodies = [[first, *SOURCE, last, *range(20)] for first in range(6) for last in range(10)]
    units = plan(bodies, [body[0] for body in bodies], budget=200)
    # a family is 61 + 10 * 21 tokens, and 4 budgets are 800
    assert [len(unit) for unit in units] == [2, 1, 2, 1]


def test_a_beginning_leaves_something_of_every_row() -> None:
    bodies = [SOURCE, [*SOURCE, 1], [*SOURCE, 1, 2]]  # the first is the beginning of the others
    ((family,),) = plan(bodies, ["a"] * 3)
    assert family == Family(SOURCE[:-1], [0, 1, 2])


def test_a_family_that_saves_little_is_run_as_other_rows_are() -> None:
    short = SOURCE[: LEAST_SAVED - 1]
    bodies = [[*short, 1], [*short, 2]]
    assert plan(bodies, ["a", "a"], budget=1000) == [[Family([], [0, 1])]]


def test_many_translations_of_one_source_are_several_families() -> None:
    bodies = [[*SOURCE, row] for row in range(2 * MOST_ROWS + 1)]
    families = [family for unit in plan(bodies, ["a"] * len(bodies)) for family in unit]
    assert [len(family.rows) for family in families] == [MOST_ROWS, MOST_ROWS, 1]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 80), st.lists(st.integers(0, 2), min_size=1, max_size=5))),
    st.integers(1, 400),
)
def test_every_row_is_planned_once_and_begins_as_its_family_says(
    rows: list[tuple[int, int, list[int]]], budget: int
) -> None:
    bodies = [[source] * length + rest for source, length, rest in rows]
    families = [family for unit in plan(bodies, [row[0] for row in rows], budget) for family in unit]

    assert sorted(row for family in families for row in family.rows) == list(range(len(rows)))
    for family in families:
        for row in family.rows:
            assert bodies[row][: len(family.beginning)] == family.beginning
            assert len(bodies[row]) > len(family.beginning)
