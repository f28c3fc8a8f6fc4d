"""The first rows of an input: they are read to learn how to read it, and scored all the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from qe_edge.rows import HELD_CHARACTERS
from qe_edge.table.detection import DETECTION_ROWS

T = TypeVar("T")


def first_rows(rows: Iterator[T], characters: Callable[[T], int]) -> deque[T]:
    """DETECTION_ROWS rows, or fewer of about HELD_CHARACTERS; at least one, if there is one.

    characters: the length of a row.
    """
    first: deque[T] = deque()
    held = 0
    for row in islice(rows, DETECTION_ROWS):
        first.append(row)
        held += characters(row)
        if held >= HELD_CHARACTERS:
            break
    return first


def all_rows(first: deque[T], rest: Iterator[T]) -> Iterator[T]:
    """The first rows, which are let go one by one, and the rest."""
    while first:
        yield first.popleft()
    yield from rest
