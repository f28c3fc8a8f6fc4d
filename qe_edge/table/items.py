"""What every kind of input becomes: items to be scored, and how each is written back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qe_edge.rows import Row, Score


@dataclass(frozen=True, slots=True)
class Item:
    """One row of an input: what to score, and where it stands."""

    row: Row
    place: str
    """the input and the physical line, as FILE:LINE"""
    text: str = ""
    """the row as it will be written, without the line ending"""
    end: str = "\n"
    """the line ending it will be written with"""
    cells: Sequence[str] = ()
    """the cells as read, for columns that are not scored"""


@dataclass(frozen=True)
class Input:
    """An open input; its items can be read once."""

    said: tuple[str, ...]
    """for the person who runs it: how the input is read"""
    assumed: tuple[str, ...]
    """the same, for what nobody told and the input did not say; never left out"""
    items: Iterator[Item]
    header: str
    """what the output begins with, line ending included; may be empty"""
    render: Callable[[Item, Score], str]
    """what is written for an item, line ending included"""
    columns: Sequence[str] = ()
    """names of the columns, or their numbers in a table without a header"""
    quoting: str = "none"
    """how cells are written: none or csv"""
    finish: Callable[[Path, Path], object] = Path.replace
    """makes the output, its second argument, of the file in which all that was written lies, and which goes away"""


def as_table_row(item: Item, score: Score) -> str:
    """The row as it was, with two more cells: the score with 4 decimals, or empty, and the status."""
    return f"{item.text}\t{score_cell(score)}\t{score.status}{item.end}"


def as_score_line(item: Item, score: Score) -> str:
    """The score alone, with 4 decimals, or an empty line."""
    return f"{score_cell(score)}{item.end}"


def score_cell(score: Score) -> str:
    """The score with 4 decimals, or nothing."""
    return "" if score.value is None else f"{score.value:.4f}"
