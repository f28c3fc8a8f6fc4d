"""A Parquet file as a stream of items to be scored, and the same file with two more columns.

A Parquet file is readable only once it is complete, so it cannot be continued where a killed run left it. What is
written while rows are scored is therefore text, a score and a status a line, which can; the last step reads the input
again and joins the two. That step depends on nothing but these two files: however often a run was interrupted, the
output is the same to the last byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING

from qe_edge.commands.extras import require
from qe_edge.errors import InputError
from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge.table.columns import SCORE_COLUMN, STATUS_COLUMN, columns_said, from_header
from qe_edge.table.first_rows import all_rows, first_rows
from qe_edge.table.items import Input, Item, as_table_row
from qe_edge.table.languages import table_rule
from qe_edge.table.named import NamedCells, needed_cells
from qe_edge.table.paths import permit_like
from qe_edge.table.text import open_bytes, text_fault

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

READ_ROWS = 64
"""rows of the texts decoded at once: few, because a cell may be of any length"""
DICTIONARY_ROWS = 1024
"""the same where a column is a dictionary (a pandas categorical), which every batch brings along whole"""
READ_BYTES = 1 << 20
"""read at once of a column, instead of all its bytes in a row group"""
GROUP_ROWS = 1 << 16
"""most rows of a row group of the output, one of which is held in memory at a time"""
GROUP_BYTES = 1 << 26
"""with so many bytes it is large enough, however few its rows: a small file can hold texts of gigabytes"""


@contextmanager
def open_parquet(path: str, *, prompt: Prompt = ALOPE_PROMPT, lp: str | None = None) -> Iterator[Input]:
    """Open a Parquet file; its columns are named like those of a TSV file and must be strings.

    prompt: its text fields say which columns make a row; lp: the language pair of all rows. A null counts as an empty
    cell. `Input.finish` writes all columns of the file, with their types, metadata and compression, and after them
    `qe_score` (float64, null without a score) and `qe_status` (string).

    Raises InputError for an input that cannot be used at all, UsageError for a bad `lp`, MissingExtraError without
    pyarrow. Rows that cannot be used stop nothing: their `Row.fault` says why.
    """
    with _opened(path) as file:
        names = file.schema_arrow.names
        columns = from_header(names, prompt, path, lp, fields_option=False)
        needed, picked = needed_cells(names, columns)
        for name in needed:
            _check_type(file.schema_arrow.field(name), path)
        if file.metadata.num_rows == 0:
            raise InputError(f"{path}: columns and no rows; give a table with at least one row")
        rows = _rows(file, needed, path)
        window = first_rows(rows, lambda cells: sum(map(len, cells)))
        usable = (cells for cells in window if _fault(cells, needed) is None)
        rule = table_rule(lp, prompt, picked, needed, usable, path)
        reading = _Reading(path, NamedCells(needed, picked, rule))
        said = (f"read as Parquet of {file.num_row_groups} row groups", columns_said(names, prompt, columns))
        yield Input(
            (*said, *rule.said),
            rule.assumed,
            map(reading.item, all_rows(window, rows), count(1)),
            "",
            as_table_row,
            names,
            finish=partial(_join, file),
        )


@dataclass(frozen=True)
class _Reading:
    """How the rows of one file become items."""

    name: str
    cells: NamedCells

    def item(self, cells: Sequence[str], number: int) -> Item:
        """number: of the row, from 1."""
        fault = _fault(cells, self.cells.needed)
        return Item(self.cells.row(cells if fault is None else fault), f"{self.name}:row {number}")


def _fault(cells: Sequence[str], names: Sequence[str]) -> str | None:
    """Why a row cannot be scored, languages aside, or None."""
    faults = zip(names, map(text_fault, cells), strict=True)
    return next((f"column {shortened(name)}: {fault}" for name, fault in faults if fault is not None), None)


@contextmanager
def _opened(path: str) -> Iterator[parquet.ParquetFile]:
    require("parquet", "pyarrow")
    import pyarrow as pa
    from pyarrow import parquet

    with open_bytes(path) as stream:
        if not stream.seekable():
            raise InputError(f"{path}: Parquet cannot be read from a pipe; give a file")
        try:
            file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=READ_BYTES)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: not a Parquet file ({_first_line(error)}); check the file") from None
        with file:
            yield file


def _check_type(field: pa.Field, path: str) -> None:
    from pyarrow import types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    if not any(is_kind(kind) for is_kind in texts):
        raise InputError(f"{path}: column {field.name!r} is {field.type}; its type must be string: convert it")


def _rows(file: parquet.ParquetFile, names: Sequence[str], path: str) -> Iterator[list[str]]:
    """The cells of some columns, row by row; undecodable bytes as lone surrogates."""
    import pyarrow as pa

    try:
        at_once = DICTIONARY_ROWS if _has_dictionary(file, names) else READ_ROWS
        for batch in file.iter_batches(at_once, columns=names, use_threads=False):
            yield from map(list, zip(*(_texts(batch.column(name)) for name in names), strict=True))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: reading failed ({_first_line(error)}); the file may be damaged") from None


def _has_dictionary(file: parquet.ParquetFile, names: Sequence[str]) -> bool:
    """Whether a column is a dictionary, or holds one."""
    return any("dictionary<" in str(field.type) for field in file.schema_arrow if field.name in names)


def _texts(column: pa.Array) -> list[str]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # not as strings: one that is not valid UTF-8 would end the whole run
    return [(raw or b"").decode("utf-8", "surrogateescape") for raw in column.cast(pa.large_binary()).to_pylist()]


def _join(file: parquet.ParquetFile, scores: Path, final: Path) -> None:
    """Write the file with its scores, given as lines of `as_table_row`, which are then removed. Raises OSError."""
    import pyarrow as pa
    from pyarrow import parquet

    added = [pa.field(SCORE_COLUMN, pa.float64()), pa.field(STATUS_COLUMN, pa.string())]
    schema = pa.schema([*file.schema_arrow, *added], metadata=file.schema_arrow.metadata)
    new = scores.with_name(f"{scores.name}.parquet")
    try:
        with (
            scores.open(encoding="ascii") as lines,
            parquet.ParquetWriter(new, schema, compression=_compression(file)) as writer,
        ):
            permit_like(new, final)
            for group in range(file.num_row_groups):
                for table in _parts(file, group):
                    arrays = [*table.columns, *_score_arrays(list(islice(lines, table.num_rows)))]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema), GROUP_ROWS)
        with new.open("rb") as written:
            os.fsync(written.fileno())
        new.replace(final)
        scores.unlink()
    finally:
        new.unlink(missing_ok=True)


def _parts(file: parquet.ParquetFile, group: int) -> Iterator[pa.Table]:
    """All columns of a row group, GROUP_ROWS at most and about GROUP_BYTES at once.

    With a dictionary column GROUP_ROWS, whatever their size: its cells are not repeated in memory, but it would be.
    """
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = size = 0
    whole = _has_dictionary(file, file.schema_arrow.names)
    for batch in file.iter_batches(GROUP_ROWS if whole else READ_ROWS, row_groups=[group], use_threads=False):
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if whole or rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def _score_arrays(lines: Sequence[str]) -> list[pa.Array]:
    """The columns of scores and of statuses."""
    import pyarrow as pa

    cells = [line.rstrip("\n").split("\t") for line in lines]
    values = pa.array([float(value) if value else None for _, value, _ in cells], pa.float64())
    return [values, pa.array([status for *_, status in cells], pa.string())]


def _compression(file: parquet.ParquetFile) -> str | dict[str, str]:
    """The codec of each column, by its path; added columns get that of the first."""
    group = file.metadata.row_group(0)
    chunks = [group.column(at) for at in range(group.num_columns)]
    codecs: dict[str, str] = {
        chunk.path_in_schema: chunk.compression.replace("UNCOMPRESSED", "NONE") for chunk in chunks
    }
    first = next(iter(codecs.values()))
    if set(codecs.values()) == {first}:
        return first
    return codecs | {SCORE_COLUMN: first, STATUS_COLUMN: first}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")
