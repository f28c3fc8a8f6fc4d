"""Physical lines as records. A record is one line, or several when a CSV-quoted cell holds line breaks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qe_edge.table.cells import OpenQuoteError, QuoteFaultError, split_quoted, unquote
from qe_edge.table.text import Line

RECORD_CHARACTERS = 1 << 18
"""a quoted cell that is still open after this many characters counts as never closed"""


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read."""

    line: int
    """number of its first physical line"""
    cells: list[str]
    """values, unquoted"""
    text: str
    """as written, without the line ending"""
    end: str
    """its line ending"""
    fault: str | None
    """how it breaks the quoting rules, or None; such a record is one physical line, its cells split at every tab"""


def plain_records(lines: Iterable[Line]) -> Iterator[Record]:
    """Records of an unquoted table: one a line, quote marks are text."""
    for line in lines:
        yield Record(line.number, line.text.split("\t"), line.text, line.end, None)


def quoted_records(lines: Iterable[Line]) -> Iterator[Record]:
    """Records of a CSV-quoted table, as wide as the first one.

    A quote mark that is never closed must not swallow the rows after it: when a record does not come out right (not
    closed, text after a closing quote, several lines that make the wrong number of cells or are rows of their own),
    only its first line is given up, as a record with a fault, and reading goes on at the line after it.
    """
    stream = iter(lines)
    again: deque[Line] = deque()
    width = 0

    def next_line() -> Line | None:
        return again.popleft() if again else next(stream, None)

    while (first := next_line()) is not None:
        taken = [first]
        record = alone = _quoted_record(taken)
        size = len(first.text)
        while isinstance(record, OpenQuoteError) and size <= RECORD_CHARACTERS:
            line = next_line()
            if line is None:
                break
            taken.append(line)
            size += len(line.text)
            if '"' in line.text:  # no other line can close the cell
                record = _quoted_record(taken)
        if isinstance(record, Record) and (record is alone or not width or _is_one_row(record, taken, width)):
            width = width or len(record.cells)
            yield record
        else:
            again.extendleft(reversed(taken[1:]))
            yield Record(first.number, first.text.split("\t"), first.text, first.end, str(alone))


def _is_one_row(record: Record, lines: list[Line], width: int) -> bool:
    """Whether several lines are one row with line breaks, and not whole rows that a stray quote mark ties together."""
    whole_rows = all(line.text.count("\t") == width - 1 for line in lines)
    return len(record.cells) == width and not whole_rows


def _quoted_record(lines: list[Line]) -> Record | QuoteFaultError:
    last = lines[-1]
    text = "".join(line.text + line.end for line in lines[:-1]) + last.text
    try:
        cells = split_quoted(text)
    except QuoteFaultError as fault:
        return fault
    return Record(lines[0].number, [unquote(cell) for cell in cells], text, last.end, None)
