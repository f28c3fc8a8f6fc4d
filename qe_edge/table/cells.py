"""One record as cells: split at tabs, or with CSV quotes (RFC 4180, with a tab for the comma)."""

from __future__ import annotations

import re

# A quoted cell: inner quote marks are doubled. Possessive, so that a doubled mark is never taken for the closing one.
_QUOTED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
# The same without the opening mark: the rest of a cell that an earlier line has begun.
_CLOSING = re.compile(_QUOTED.pattern[1:])
NEEDS_QUOTES = re.compile(r'["\t\r\n]')


class QuoteFaultError(ValueError):
    """A record that breaks the quoting rules; the message says how."""


class OpenQuoteError(QuoteFaultError):
    """A quoted cell that is not closed by the end of the text; more lines may close it.

    cells: those before it, as written; begun: what there is of it.
    """

    def __init__(self, cells: list[str], begun: str) -> None:
        super().__init__(f"quote mark not closed: {begun[:20]!r}")
        self.cells = cells
        self.begun = begun


def split_quoted(text: str) -> list[str]:
    """Cells of a CSV-quoted record, each as written, quotes included.

    Quote marks inside a cell that does not begin with one are plain text. Raises OpenQuoteError when a quoted cell
    is not closed, QuoteFaultError when text follows the closing quote.
    """
    cells: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            match = _QUOTED.match(text, at)
            if match is None:
                raise OpenQuoteError(cells, text[at:])
            end = match.end()
            if end < len(text) and text[end] != "\t":
                raise QuoteFaultError(f"text after a closing quote mark: {text[end - 1 : end + 20]!r}")
        else:
            tab = text.find("\t", at)
            end = len(text) if tab < 0 else tab
        cells.append(text[at:end])
        if end == len(text):
            return cells
        at = end + 1


def closes_quote(line: str) -> bool:
    """Whether a line ends the quoted cell that a line before it has begun."""
    return _CLOSING.match(line) is not None


def unquote(cell: str) -> str:
    """The value of a cell as written: without its quotes, if it has them, and with inner ones single."""
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def quote(value: str) -> str:
    """A value as a CSV cell, quoted only where it must be."""
    if not NEEDS_QUOTES.search(value):
        return value
    return '"' + value.replace('"', '""') + '"'
