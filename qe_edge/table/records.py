"""Physical lines as records. A record is one line, or several when a CSV-quoted cell holds line breaks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from qe_edge.table.cells import OpenQuoteError, QuoteFaultError, closes_quote, split_quoted, unquote
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


def quoted_records(lines: Iterable[Line], width: int = 0) -> Iterator[Record]:
    """Records of a CSV-quoted table, of `width` cells, or as wide as the first one.

    A quote mark that is never closed must not swallow the rows after it: when a record does not come out right (not
    closed, text after a closing quote, several lines that make the wrong number of cells or are rows of their own),
    only its first line is given up, as a record with a fault, and reading goes on at the line after it. A line that the
    failed record ran over is not tried as the beginning of a longer one: that would end at the same place, and a file
    could make it take time with the square of its length.
    """
    stream = iter(lines)
    again: deque[Line] = deque()
    tried = 0

    def next_line() -> Line | None:
        return again.popleft() if again else next(stream, None)

    while (first := next_line()) is not None:
        taken = [first]
        try:
            cells = _written_cells(taken, next_line if first.number >= tried else lambda: None, width)
        except QuoteFaultError as fault:
            tried = max(tried, taken[-1].number)
            again.extendleft(reversed(taken[1:]))
            yield Record(first.number, first.text.split("\t"), first.text, first.end, str(fault))
        else:
            width = width or len(cells)
            text = "".join(line.text + line.end for line in taken[:-1]) + taken[-1].text
            yield Record(first.number, [unquote(cell) for cell in cells], text, taken[-1].end, None)


def _written_cells(taken: list[Line], next_line: Callable[[], Line | None], width: int) -> list[str]:
    """Cells, as written, of the record that begins with the one line in `taken`; lines that it goes on with are added.

    width: the number of cells of a row, or 0 if unknown. Raises the fault of the first line when no record comes out.
    A record is not split anew for every line: no file can make it slow.
    """
    try:
        return split_quoted(taken[0].text)
    except OpenQuoteError as fault:
        alone, cells, begun = fault, fault.cells, [fault.begun]
    size = len(taken[0].text)
    while size <= RECORD_CHARACTERS and (line := next_line()) is not None:
        begun += (taken[-1].end, line.text)
        size += len(taken[-1].end) + len(line.text)
        taken.append(line)
        if not closes_quote(line.text):
            continue
        try:
            cells += split_quoted("".join(begun))
        except OpenQuoteError as fault:  # this line begins another cell that goes on
            cells += fault.cells
            begun = [fault.begun]
        except QuoteFaultError:
            break
        else:
            if width and not _is_one_row(cells, taken, width):
                break
            return cells
    raise alone


def _is_one_row(cells: list[str], lines: list[Line], width: int) -> bool:
    """Whether several lines are one row with line breaks, and not whole rows that a stray quote mark ties together."""
    whole_rows = all(line.text.count("\t") == width - 1 for line in lines)
    return len(cells) == width and not whole_rows
