"""Tables with human and predicted scores, read by the same rules as tables to be scored (docs/scoring.md)."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from reprlib import repr as shortened

import numpy as np

from qe_edge.errors import InputError, UsageError
from qe_edge.metrics import FloatArray
from qe_edge.table.columns import listed, without_tabs
from qe_edge.table.formats import Format, format_of
from qe_edge.table.quoting import Quoting, decide
from qe_edge.table.records import Record, plain_records, quoted_records
from qe_edge.table.text import open_text, text_fault

LARGEST = 1e60
"""the largest magnitude accepted, far beyond any score; squares of much larger numbers overflow"""
EMPTY = "(empty)"
"""label of an empty cell"""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class ScoreTable:
    """The columns of one table that an evaluation needs; n rows."""

    name: str
    """path, or stdin"""
    quoting: Quoting
    rows: int
    numbers: dict[str, FloatArray]
    """[n] by the name asked for; nan where a cell is empty"""
    labels: dict[str, list[str]]
    """n cells, by the name asked for; only columns that the table has"""


def read_scores(
    path: str, numbers: Sequence[str], labels: Sequence[str], needed: Sequence[str] = (), quoting: Quoting | None = None
) -> ScoreTable:
    """Read a TSV file with a header, or standard input for "-".

    numbers: names of columns that must be there and hold finite numbers or empty cells; labels: names of columns that
    are read if they are there, and must be there if they are also in `needed`. Names match in any case.
    quoting: told, or None to decide.
    Raises InputError with file and line for an input that cannot be read (docs/scoring.md), a table of another kind, a
    missing column, a row with the wrong number of cells, and a cell that is not a number. No row is passed over: it
    would go unnoticed. Raises UsageError where two names are those of one column.
    """
    kind = format_of(path)
    if kind is not Format.TSV:
        raise InputError(f"{path}: is {kind} by its name, and only TSV is read here; give its columns as a .tsv file")
    with _open_records(path, quoting) as (name, used, header, records):
        place = f"{name}:{header.line}"
        at = {column: _position(header.cells, column, place) for column in numbers}
        _check_different(at, place)
        label_at = {
            column: _position(header.cells, column, place)
            for column in labels
            if column in needed or _positions(header.cells, column)
        }
        values: dict[str, list[float]] = {column: [] for column in at}
        cells: dict[str, list[str]] = {column: [] for column in label_at}
        rows = 0
        for record in records:
            rows += 1
            place = f"{name}:{record.line}"
            _check(record, len(header.cells), place)
            for column, position in at.items():
                values[column].append(_number(record.cells[position], column, place))
            for column, position in label_at.items():
                cells[column].append(_label(record.cells[position], column, place))
    if not rows:
        raise InputError(f"{name}: a header and no rows; give a table with at least one row")
    arrays = {column: np.array(column_values) for column, column_values in values.items()}
    return ScoreTable(name, used, rows, arrays, cells)


@contextmanager
def _open_records(path: str, quoting: Quoting | None) -> Iterator[tuple[str, Quoting, Record, Iterator[Record]]]:
    """Name, quoting, header and rows of a table."""
    with open_text(path) as text:
        used = quoting or decide(text.sample_lines(), header=True)
        records = plain_records(text.lines()) if used is Quoting.NONE else quoted_records(text.lines())
        header = next(records)
        fault = text_fault(header.text) or header.fault
        if fault is not None:
            raise InputError(f"{text.name}:{header.line}: {fault}; the header must be readable")
        yield text.name, used, header, records


def _positions(header: Sequence[str], column: str) -> list[int]:
    """Where a column stands: as written if there is one, else in any case."""
    exact = [at for at, name in enumerate(header) if name.strip() == column.strip()]
    wanted = column.strip().casefold()
    return exact or [at for at, name in enumerate(header) if name.strip().casefold() == wanted]


def _position(header: Sequence[str], column: str, place: str) -> int:
    positions = _positions(header, column)
    if len(positions) > 1:
        raise InputError(f"{place}: {len(positions)} columns are called {column!r}; rename all but one")
    if not positions:
        if without_tabs(header):
            raise InputError(
                f"{place}: no tab in the header {shortened(header[0])}; only TSV is read here: write tabs between cells"
            )
        names = {name.strip().casefold(): name.strip() for name in header}
        near = difflib.get_close_matches(column.strip().casefold(), names, n=1)
        meant = f"did you mean {shortened(names[near[0]])}? " if near else ""
        raise InputError(
            f"{place}: no column {column!r} among {listed(header, ', ')}; {meant}"
            "name columns with --gold, --score and --by"
        )
    return positions[0]


def _check_different(positions: Mapping[str, int], place: str) -> None:
    names: dict[int, str] = {}
    for column, position in positions.items():
        other = names.setdefault(position, column)
        if other != column:
            raise UsageError(f"{place}: {other!r} and {column!r} are the same column; name it once")


def _check(record: Record, width: int, place: str) -> None:
    if record.fault is not None:
        raise InputError(f"{place}: {record.fault}; double the quote marks inside quoted cells, or give --quoting none")
    if len(record.cells) != width:
        raise InputError(
            f"{place}: {len(record.cells)} instead of {width} cells: {record.text[:40]!r}; check the tabs of this row"
        )


def parse_number(text: str) -> float:
    """The number that a cell holds, spaces around it aside; nan for what is not written as one.

    Digits are 0 to 9, with a point and an exponent if need be: `float` would also take 1_0, nan and digits of other
    scripts. A number that is too large for a float is infinite.
    """
    return float(text) if _NUMBER.fullmatch(text.strip()) else math.nan


def _number(cell: str, column: str, place: str) -> float:
    if not cell.strip():
        return math.nan
    value = parse_number(cell)
    if not abs(value) <= LARGEST:
        raise InputError(
            f"{place}: column {column!r} holds {cell[:40]!r}, not a finite number up to {LARGEST:g}; "
            "correct it, or leave the cell empty to leave the row out"
        )
    return value


def _label(cell: str, column: str, place: str) -> str:
    fault = text_fault(cell)
    if fault is not None:
        raise InputError(f"{place}: column {column!r}: {fault}")
    return cell.strip() or EMPTY
