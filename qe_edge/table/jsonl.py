"""A JSONL file as a stream of items to be scored: one JSON object a line, which gets two more fields.

What is written for a line is its own text up to the closing brace, then `qe_score` (a number or null) and `qe_status`.
A line to which no fields can be added - it is no JSON object, or has these fields already - becomes an object with the
line as a string in `qe_line`, so that every line of the output is JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from qe_edge.errors import InputError
from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge.rows import Score, lone_surrogate
from qe_edge.table.columns import SCORE_COLUMN, STATUS_COLUMN, columns_said, from_header, settled
from qe_edge.table.first_rows import all_rows, first_rows
from qe_edge.table.items import Input, Item, score_cell
from qe_edge.table.languages import table_rule
from qe_edge.table.named import NamedCells, needed_cells
from qe_edge.table.text import BOM, Line, open_text, text_fault

LINE_FIELD = "qe_line"
"""holds a line of the input that cannot have more fields"""
WHITE_SPACE = " \t\r\n"
"""what JSON allows around a value"""


class _Repeating(dict[str, Any]):
    """The fields of an object that has some of them more than once."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.repeated = {name for name, count in counts.items() if count > 1}


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else _Repeating(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_fields)
_KINDS = {bool: "a truth value", int: "a number", float: "a number", list: "an array"}


@contextmanager
def open_jsonl(path: str, *, prompt: Prompt = ALOPE_PROMPT, lp: str | None = None) -> Iterator[Input]:
    """Open a JSONL file; its fields are named like the columns of a TSV file.

    prompt: its text fields say which fields make a row; lp: the language pair of all rows. Which fields there are is
    learnt from the first rows. Raises InputError for an input that cannot be used at all, UsageError for a bad `lp`.
    Lines that cannot be used stop nothing: their `Row.fault` says why. A field that is null counts as an empty cell.
    """
    with open_text(path) as text:
        records = map(_parse, text.lines())
        window = first_rows(records, lambda record: len(record.line.text))
        counts = Counter(name for record in window for name in record.fields)
        if not counts:
            raise InputError(
                f"{text.name}: no JSON object with fields in the first {len(window)} lines; give one a line"
            )
        names = settled(counts, sum(bool(record.fields) for record in window), prompt)
        columns = from_header(names, prompt, text.name, lp, fields_option=False)
        needed, picked = needed_cells(names, columns)
        usable = (cells for record in window if isinstance(cells := _cells(record, needed), list))
        rule = table_rule(lp, prompt, picked, needed, usable, text.name)
        reading = _Reading(text.name, NamedCells(needed, picked, rule), window[0].line.end or "\n")
        said = ("read as JSON lines", columns_said(names, prompt, columns), *rule.said)
        header = BOM.decode() if text.bom else ""
        yield Input(said, rule.assumed, map(reading.item, all_rows(window, records)), header, as_json_line, names)


def as_json_line(item: Item, score: Score) -> str:
    """The object as it was, with two more fields: the score with 4 decimals, or null, and the status."""
    value = score_cell(score) or "null"
    return f'{item.text}"{SCORE_COLUMN}": {value}, "{STATUS_COLUMN}": "{score.status}"}}{item.end}'


@dataclass(frozen=True, slots=True)
class _Record:
    """A line as parsed."""

    line: Line
    fields: Mapping[str, Any]
    """of its object; none without one"""
    fault: str | None
    """why the line cannot be scored, whatever its fields say"""
    is_object: bool = False


@dataclass(frozen=True)
class _Reading:
    """How the records of one file become items."""

    name: str
    cells: NamedCells
    end: str

    def item(self, record: _Record) -> Item:
        place = f"{self.name}:{record.line.number}"
        row = self.cells.row(_cells(record, self.cells.needed))
        return Item(row, place, _beginning(record), record.line.end or self.end)


def _parse(line: Line) -> _Record:
    try:
        value = _DECODER.decode(line.text)
    except json.JSONDecodeError as error:
        fault = f"not JSON: {error.msg} at character {error.pos + 1} of {line.text[:40]!r}; mend the line"
        return _Record(line, {}, text_fault(line.text) or fault)
    except (RecursionError, ValueError) as error:  # brackets nested too deep, or a number of thousands of digits
        return _Record(line, {}, f"JSON that is not read here ({error}): {line.text[:40]!r}; simplify the line")
    if not isinstance(value, dict):
        return _Record(line, {}, f"not a JSON object: {line.text[:40]!r}; give one object a line")
    return _Record(line, value, text_fault(line.text), True)


def _cells(record: _Record, needed: Sequence[str]) -> list[str] | str:
    """The fields of a record that are read, or why it cannot be scored."""
    if record.fault is not None:
        return record.fault
    taken = _taken(record)
    if taken is not None:
        return f"field {taken!r} is there already; rename it"
    repeated = record.fields.repeated if isinstance(record.fields, _Repeating) else ()
    cells = []
    for name in needed:
        if name in repeated:
            return f"field {shortened(name)} is there more than once; leave one"
        if name not in record.fields:
            return f"no field {shortened(name)}; every object needs it"
        value = record.fields[name]
        if value is not None and not isinstance(value, str):
            kind = _KINDS.get(type(value), "an object")
            return f"field {shortened(name)} is {kind}: {shortened(value)}; it must be a string"
        cells.append(value or "")
        at = lone_surrogate(cells[-1])
        fault = text_fault(cells[-1]) if at is None else f"half a character (\\u{ord(cells[-1][at]):04x})"
        if fault is not None:
            return f"field {shortened(name)}: {fault}; mend it"
    return cells


def _taken(record: _Record) -> str | None:
    """A field of the output that the record has already, or None."""
    return next((name for name in (SCORE_COLUMN, STATUS_COLUMN) if name in record.fields), None)


def _beginning(record: _Record) -> str:
    """The line as it will be written, up to where two more fields follow."""
    if not record.is_object or _taken(record) is not None:
        return f"{{{json.dumps(LINE_FIELD)}: {json.dumps(record.line.text)}, "
    opened = record.line.text.rstrip(WHITE_SPACE)[:-1].rstrip(WHITE_SPACE)
    return f"{opened}, " if record.fields else opened
