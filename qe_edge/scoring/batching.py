"""Which rows run together: sorted by length, cut under a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

TOKEN_BUDGET = 768
"""Padded tokens per batch. Small batches stay in the CPU's cache (docs/log.md has the measurement)."""


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
