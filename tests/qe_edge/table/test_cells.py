"""Cells of a CSV-quoted record: as written, unquoted, and quoted again."""

from __future__ import annotations

import csv
import io
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qe_edge.table.cells import OpenQuoteError, QuoteFaultError, quote, split_quoted, unquote

TEXT = st.text(alphabet='ab "\t\n\r,é', max_size=8)


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("a\tb", ["a", "b"]),
        ("", [""]),
        ("a\t", ["a", ""]),
        ('"a"\t"b"', ['"a"', '"b"']),
        ('""\tb', ['""', "b"]),
        ('"a\tb"\tc', ['"a\tb"', "c"]),
        ('"say ""a"""\tb', ['"say ""a"""', "b"]),
        ('"a\nb"', ['"a\nb"']),
        ('a "b"\tc', ['a "b"', "c"]),  # no quoted cell: the marks are text
    ],
)
def test_tabs_inside_quotes_do_not_split(text: str, cells: list[str]) -> None:
    assert split_quoted(text) == cells


@pytest.mark.parametrize("text", ['"a', '"a""', 'x\t"a\tb', '"', '"a"" b'])
def test_an_open_quote_is_told_apart_because_more_lines_may_close_it(text: str) -> None:
    with pytest.raises(OpenQuoteError, match="quote mark not closed"):
        split_quoted(text)


@pytest.mark.parametrize("text", ['"a"b', '"a" \tb', 'x\t"Tere," ütles ta.'])
def test_text_after_a_closing_quote_is_a_fault(text: str) -> None:
    with pytest.raises(QuoteFaultError, match="text after a closing quote mark") as caught:
        split_quoted(text)
    assert not isinstance(caught.value, OpenQuoteError)


@given(st.lists(TEXT, min_size=1, max_size=5), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_what_the_csv_module_writes_is_read_as_it_was(values: list[str], quoting: Literal[0, 1]) -> None:
    file = io.StringIO()
    csv.writer(file, delimiter="\t", lineterminator="", quoting=quoting).writerow(values)
    assert [unquote(cell) for cell in split_quoted(file.getvalue())] == values


@given(TEXT)
def test_a_quoted_value_is_read_back(value: str) -> None:
    assert [unquote(cell) for cell in split_quoted(quote(value))] == [value]


def test_a_value_is_quoted_only_where_it_must_be() -> None:
    assert quote("a, b") == "a, b"
    assert quote('say "a"') == '"say ""a"""'
