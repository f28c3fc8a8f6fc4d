"""What must hold for a table of any bytes: it is refused in a line, or every row comes out, in order, byte for byte."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from unittest.mock import patch

from qe_edge.errors import QeEdgeError
from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge.rows import Score, Status
from qe_edge.table.items import Input, Item
from qe_edge.table.quoting import Quoting
from qe_edge.table.table import open_table
from qe_edge.table.text import BOM

ANSWER = Score(1.0, Status.OK)
ADDED = b"\t1.0000\tok"
HEADERS = (b"", b"src\tmt\n", b"lp\tid\tsrc\tmt\r\n", b'"text"\t"note"\n')
"""what stands before the input, so that not every one has to invent a header"""
QUOTINGS = (None, Quoting.NONE, Quoting.CSV)
LANGUAGES_READ = {*range(126, 135), *range(189, 192)}
"""first bytes with which languages come from the table: few, because looking up what is no language takes long"""
KEPT_FAULTS = ("not valid UTF-8", "NUL byte", "unknown language", "'")
"""beginnings of faults that leave a row as it is; the last is that of a cell that names no language pair"""
MADE_UP = re.compile(b'[\t "]')
"""what may be added to or changed in a row whose cells do not fit the table"""


def check(data: bytes) -> None:
    """Read and write a table; the first byte says how. Raises AssertionError when a promise is broken."""
    if not data:
        return
    how, content = data[0], data[1:]
    options: dict[str, Any] = {
        "quoting": QUOTINGS[how % 3],
        "fields": (None, "1", "2,1")[how // 3 % 3],
        "prompt": Prompt("{text}") if how // 3 % 3 == 1 or how & 64 else ALOPE_PROMPT,
    }
    if options["prompt"] is ALOPE_PROMPT:
        options["lp"] = None if how in LANGUAGES_READ else "et-en"
    content = HEADERS[how // 9 % 4] + content
    refusal = ""
    try:
        with opened(content, options) as table:
            items = list(table.items)
    except QeEdgeError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) <= 1
    assert len(refusal) < 1000
    if refusal:
        return
    body = content.removeprefix(BOM)
    lines = list(io.BytesIO(body))
    starts = [int(item.place.rpartition(":")[2]) for item in items]
    assert starts[0] == 1 + table.header.count("\n"), "the rows begin after the header, which may have line breaks"
    assert table.header.startswith("\ufeff") == content.startswith(BOM)
    for item, (start, after) in zip(items, pairwise([*starts, len(lines) + 1]), strict=True):
        assert start < after, "rows are in the order of the input, and none is lost"
        _check_row(item, b"".join(lines[start - 1 : after - 1]), table)
    if table.quoting == "csv":
        _check_with_csv_module(items, table)


@contextmanager
def opened(content: bytes, options: dict[str, Any]) -> Iterator[Input]:
    """`open_table` on standard input with this content."""
    with patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(content))), open_table("-", **options) as table:
        yield table


def _check_row(item: Item, written: bytes, table: Input) -> None:
    """What is written for a row against its bytes in the input."""
    answer = table.render(item, ANSWER).encode("utf-8", "surrogateescape")
    end = next((end for end in (b"\r\n", b"\n") if written.endswith(end)), b"")
    text = written.removesuffix(end)
    kept = answer.removesuffix(end or item.end.encode()).removesuffix(ADDED)
    assert kept + ADDED + (end or item.end.encode()) == answer
    if kept == text:
        return
    fault = item.row.fault
    assert fault is not None, "only a row with a fault is written in another way"
    assert "\n" not in fault
    assert not fault.startswith(KEPT_FAULTS) or len(item.cells) != len(table.columns) or b'"' in text
    assert MADE_UP.sub(b"", kept) == MADE_UP.sub(b"", text), "in which all but tabs, spaces and quotes is the same"


def _check_with_csv_module(items: Sequence[Item], table: Input) -> None:
    """Python's own reader finds the same rows in the output, where it takes line ends as this one does."""
    text = "".join(table.render(item, ANSWER) for item in items)
    if "\r" in text.replace("\r\n", ""):
        return
    again = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
    assert len(again) == len(items)
    for item, cells in zip(items, again, strict=True):
        if item.row.fault is None:
            assert cells == [*item.cells, "1.0000", "ok"]
        assert len(cells) == len(table.columns) + 2
