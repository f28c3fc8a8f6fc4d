"""Which rows run together: sorted by length, cut under a budget of padded tokens; translations of one source in
families, whose common beginning is run once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

TOKEN_BUDGET = 384
"""Padded tokens per batch. Small batches stay in a core's cache (docs/performance.md has the measurement)."""
UNIT_BUDGETS = 4
"""A unit of families holds at most about so many budgets of tokens, so that there are units for all workers."""
LEAST_SAVED = 48
"""Tokens that a family must save to be worth a run of its own, which is shorter and uses the matrix units less well: an
estimate, of which only lists of ten translations have been measured (docs/performance.md)."""
MOST_ROWS = 32
"""Rows of a family at most: more translations of one source are several families, for several workers."""


@dataclass(frozen=True)
class Family:
    """Rows whose bodies begin alike."""

    beginning: list[int]
    """token ids that all bodies begin with and that are run once; none: the rows share nothing"""
    rows: list[int]
    """indices of the rows; the body of each is longer than the beginning"""


Unit = list[Family]
"""What one worker runs in one go: beginnings of families in one batch, then each family's rows. A single family
without a beginning is a plain batch."""


def length_sorted_batches(lengths: Sequence[int], budget: int = TOKEN_BUDGET) -> Iterator[list[int]]:
    """Indices of rows, longest first, in batches whose rows times longest row stay within `budget`.

    A row longer than the budget is a batch of its own. Longest first, so that the time left is never underestimated
    and memory peaks at the start.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def plan(bodies: Sequence[list[int]], sources: Sequence[Hashable], budget: int = TOKEN_BUDGET) -> list[Unit]:
    """Units in which rows of one language pair are run, every row in exactly one.

    bodies: token ids of each row; sources: what rows must have in common to be looked at as a family, the first text.
    Families run before the other rows: they are the longest units.
    """
    families, single = _families(bodies, sources)
    units: list[Unit] = []
    for batch in length_sorted_batches([len(family.beginning) for family in families], budget):
        units += _within([families[i] for i in batch], bodies, UNIT_BUDGETS * budget)
    lengths = [len(bodies[row]) for row in single]
    units += [[Family([], [single[i] for i in batch])] for batch in length_sorted_batches(lengths, budget)]
    return units


def _within(families: Sequence[Family], bodies: Sequence[list[int]], most: int) -> Iterator[Unit]:
    """Families in units of at most `most` tokens, or of a single family."""
    unit: Unit = []
    held = 0
    for family in families:
        begun = len(family.beginning)
        tokens = begun + sum(len(bodies[row]) - begun for row in family.rows)
        if unit and held + tokens > most:
            yield unit
            unit, held = [], 0
        unit.append(family)
        held += tokens
    yield unit


def _families(bodies: Sequence[list[int]], sources: Sequence[Hashable]) -> tuple[list[Family], list[int]]:
    """Families worth a run of their own, and the rows in none."""
    together: dict[Hashable, list[int]] = defaultdict(list)
    for row, source in enumerate(sources):
        together[source].append(row)
    families: list[Family] = []
    single: list[int] = []
    for rows in together.values():
        shared = _common_beginning([bodies[row] for row in rows])
        if (len(rows) - 1) * len(shared) >= LEAST_SAVED:
            families += [Family(shared, rows[first : first + MOST_ROWS]) for first in range(0, len(rows), MOST_ROWS)]
        else:
            single += rows
    return families, single


def _common_beginning(bodies: Sequence[list[int]]) -> list[int]:
    """The longest beginning of all bodies that leaves something of each."""
    first, last = min(bodies), max(bodies)  # all others lie between the two, and so begin as they do
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return [token for token, _ in pairs][: min(map(len, bodies)) - 1]
