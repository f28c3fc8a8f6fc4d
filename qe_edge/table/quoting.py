"""Whether a table is CSV-quoted. Both kinds are common; one read as the other loses rows or leaks quote marks."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from qe_edge.table.cells import NEEDS_QUOTES, split_quoted
from qe_edge.table.records import quoted_records
from qe_edge.table.text import Line

SUPPORT = 20
"""how many records must speak for quoting for each one that speaks against it"""


class Quoting(StrEnum):
    """How the cells of a table are written."""

    NONE = "none"
    """as they are; a quote mark is text"""
    CSV = "csv"
    """in quotes where needed, inner quote marks doubled, tabs and line breaks allowed inside"""


def decide(lines: Sequence[Line], header: bool) -> Quoting:
    """The quoting of a table from its first lines.

    The lines are read as CSV. A record speaks *for* quoting when only a CSV writer would have written it so: a quoted
    cell holds a doubled quote mark, a tab or a line break; or it is the header and has a quoted cell. It speaks
    *against* when it breaks the rules: a quote that is not closed, text after a closing quote, a quote mark in an
    unquoted cell, or quotes that join cells so that the number is no longer the first record's. The table is quoted
    when some records speak for it, and at least SUPPORT for each one against; or, without a header, when every cell
    is quoted.
    """
    support = against = width = 0
    all_quoted = True
    for record in quoted_records(lines):
        width = width or len(record.cells)
        written = [] if record.fault is not None else split_quoted(record.text)
        quoted = [cell for cell in written if cell.startswith('"')]
        all_quoted = all_quoted and len(quoted) == width
        if not written or _breaks_rules(written, width):
            against += 1
        elif len(written) == width:
            support += any(map(_needs_quotes, quoted)) or (header and record.line == 1 and bool(quoted))
    if all_quoted and not header:
        return Quoting.CSV
    return Quoting.CSV if support and support >= SUPPORT * against else Quoting.NONE


def _breaks_rules(written: Sequence[str], width: int) -> bool:
    lone_mark = any('"' in cell and not cell.startswith('"') for cell in written)
    joined = len(written) != width and any("\t" in cell for cell in written)
    return lone_mark or joined


def _needs_quotes(quoted: str) -> bool:
    return NEEDS_QUOTES.search(quoted, 1, len(quoted) - 1) is not None
