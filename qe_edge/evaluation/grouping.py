"""Which rows are evaluated together: those of one language pair, unless something else is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from qe_edge.errors import InputError
from qe_edge.evaluation.reading import EMPTY, ScoreTable
from qe_edge.table.columns import PAIR_NAMES, SOURCE_LANGUAGE_NAMES, TARGET_LANGUAGE_NAMES

PAIR, SOURCE, TARGET = PAIR_NAMES[0], SOURCE_LANGUAGE_NAMES[0], TARGET_LANGUAGE_NAMES[0]
LANGUAGE_COLUMNS = (PAIR, SOURCE, TARGET)
"""columns that are read even when they do not group the rows, so that pooled language pairs are noticed"""
ALL = "all"
"""name of the only group when rows are not grouped"""


@dataclass(frozen=True)
class Grouping:
    """The group of each of the n rows of all tables, in their order."""

    by: str | None
    """what the rows are grouped by, for people; None: they are one group"""
    names: list[str]
    """[n] groups"""
    pairs: list[str] | None
    """[n] language pairs, if all tables tell them"""
    files: list[str]
    """[n] names of the tables"""


def group_rows(tables: Sequence[ScoreTable], by: str | None = None, *, pool: bool = False) -> Grouping:
    """Group the rows of all tables.

    by: a label column that all tables have; None: the language pair, from the column lp or else src_lang and tgt_lang;
    else the file, if there are several. pool: no groups.
    Raises InputError when only some tables tell the language pair by which the rows would be grouped.
    """
    of_tables = [_pairs(table) for table in tables]
    told = [pairs for pairs in of_tables if pairs is not None]
    pairs = [pair for pairs in told for pair in pairs] if len(told) == len(tables) else None
    files = [name for name, table in zip(_file_names(tables), tables, strict=True) for _ in range(table.rows)]
    if pool:
        return Grouping(None, [ALL] * len(files), pairs, files)
    if by is not None:
        return Grouping(by, [label for table in tables for label in table.labels[by]], pairs, files)
    if pairs is not None:
        columns = {PAIR if PAIR in table.labels else f"{SOURCE} and {TARGET}" for table in tables}
        return Grouping(" or ".join(sorted(columns)), pairs, pairs, files)
    if told:
        silent = tables[of_tables.index(None)].name
        raise InputError(
            f"{silent}:1: no column {PAIR!r}, which another file has; add it, or give --by COLUMN or --pool"
        )
    if len(tables) > 1:
        return Grouping("file", files, None, files)
    return Grouping(None, [ALL] * len(files), None, files)


def _pairs(table: ScoreTable) -> list[str] | None:
    """The language pair of each row, as written, if the table tells it."""
    if PAIR in table.labels:
        return table.labels[PAIR]
    if SOURCE in table.labels and TARGET in table.labels:
        both = zip(table.labels[SOURCE], table.labels[TARGET], strict=True)
        return [EMPTY if EMPTY in pair else "-".join(pair) for pair in both]
    return None


def _file_names(tables: Sequence[ScoreTable]) -> list[str]:
    """The tables' names without folders, or as given where that would make two the same."""
    names = [PurePath(table.name).name for table in tables]
    return [name if names.count(name) == 1 else table.name for name, table in zip(names, tables, strict=True)]
