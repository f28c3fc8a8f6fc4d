"""A TSV file as a stream of items to be scored, each of which knows how it is written back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qe_edge.errors import InputError
from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge.rows import Row
from qe_edge.table.cells import quote
from qe_edge.table.columns import SCORE_COLUMN, STATUS_COLUMN, Columns, columns_said, from_fields, from_header
from qe_edge.table.first_rows import all_rows, first_rows
from qe_edge.table.items import Input, Item, as_table_row
from qe_edge.table.languages import PairRule, table_rule
from qe_edge.table.quoting import Quoting, decide
from qe_edge.table.records import Record, plain_records, quoted_records
from qe_edge.table.text import BOM, open_text, text_fault


@contextmanager
def open_table(
    path: str,
    *,
    prompt: Prompt = ALOPE_PROMPT,
    lp: str | None = None,
    quoting: Quoting | None = None,
    fields: str | None = None,
) -> Iterator[Input]:
    """Open a TSV file, or standard input for "-", and find out how to read it.

    prompt: its text fields say which columns make a row; lp: the language pair of all rows; quoting: told, or None to
    decide; fields: numbers of the text columns of a headerless table, "1,2".
    Raises InputError for an input that cannot be used at all (docs/scoring.md), UsageError for a bad `lp` or `fields`.
    Rows that cannot be used stop nothing: their `Row.fault` says why.
    """
    asked = None if fields is None else from_fields(fields, prompt)
    with open_text(path) as text:
        used = quoting or decide(text.sample_lines(), header=asked is None)
        if used is Quoting.NONE:
            records = plain_records(text.lines())
        else:  # without a header the first row may be a faulty one
            width = 0 if asked is None else _usual_width(quoted_records(text.sample_lines()))
            records = quoted_records(text.lines(), width)
        first = next(records)
        end = first.end or "\n"
        header = BOM.decode() if text.bom else ""
        window = first_rows(records, lambda record: len(record.text))
        if asked is None:
            width = len(first.cells)
            columns = _header_columns(first, prompt, text.name, lp)
            names = first.cells
            header += f"{first.text}\t{SCORE_COLUMN}\t{STATUS_COLUMN}{end}"
        else:
            window.appendleft(first)
            width = _usual_width(window) or len(first.cells)
            columns = _numbered_columns(asked, width, text.name)
            names = [str(number) for number in range(1, width + 1)]
        if not window:
            raise InputError(f"{text.name}: a header and no rows; give a table with at least one row")
        usable = (record.cells for record in window if _fault(record, width) is None)
        rule = table_rule(lp, prompt, columns, names, usable, text.name)
        reading = _Reading(text.name, columns, rule, width, used, end)
        decided = "decided from its start; override with --quoting" if quoting is None else "--quoting"
        said = (
            f"read as {'CSV-quoted' if used is Quoting.CSV else 'unquoted'} TSV ({decided})",
            columns_said(names, prompt, columns),
            *rule.said,
        )
        yield Input(
            said, rule.assumed, map(reading.item, all_rows(window, records)), header, as_table_row, names, str(used)
        )


@dataclass(frozen=True)
class _Reading:
    """How the records of one table become items."""

    name: str
    columns: Columns
    rule: PairRule
    width: int
    quoting: Quoting
    end: str

    def item(self, record: Record) -> Item:
        return Item(
            self._row(record), f"{self.name}:{record.line}", self._text(record), record.end or self.end, record.cells
        )

    def _row(self, record: Record) -> Row:
        fault = _fault(record, self.width)
        codes = ("", "")
        if fault is None:
            try:
                codes = self.rule.pair(record.cells)
            except InputError as error:
                fault = str(error)
        if fault is not None:
            return Row((), *codes, fault=fault)
        return Row(tuple(record.cells[at] for at in self.columns.texts), *codes)

    def _text(self, record: Record) -> str:
        """The record as written, or made as wide as the others so that two more cells land in their columns."""
        cells = record.cells
        missing = self.width - len(cells)
        if record.fault is None and missing >= 0:
            return record.text + "\t" * missing
        cells = [*cells[: self.width - 1], " ".join(cells[self.width - 1 :]), *[""] * (missing - 1)]
        return "\t".join(cells if self.quoting is Quoting.NONE else map(quote, cells))


def _header_columns(record: Record, prompt: Prompt, name: str, lp: str | None) -> Columns:
    place = f"{name}:{record.line}"
    fault = text_fault(record.text) or record.fault
    if fault is not None:
        raise InputError(f"{place}: {fault}; the header must be readable")
    return from_header(record.cells, prompt, place, lp)


def _usual_width(records: Iterable[Record]) -> int:
    """The number of cells that most records have; 0 if none can be read."""
    widths = Counter(len(record.cells) for record in records if record.fault is None)
    return max(widths, key=widths.__getitem__, default=0)


def _numbered_columns(columns: Columns, width: int, name: str) -> Columns:
    most = max(columns.texts) + 1
    if most > width:
        raise InputError(
            f"{name}: rows of {width} cells where --fields asks for column {most}; check --fields, "
            "and that tabs separate the cells"
        )
    return columns


def _fault(record: Record, width: int) -> str | None:
    """Why a record cannot be scored, languages aside, or None."""
    fault = text_fault(record.text)
    if fault is not None:
        return fault
    if record.fault is not None:
        return f"{record.fault}; double the quote marks inside quoted cells, or give --quoting none"
    if len(record.cells) != width:
        return f"{len(record.cells)} instead of {width} cells: {record.text[:40]!r}; check the tabs of this row"
    return None
