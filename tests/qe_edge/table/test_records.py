"""Records: a quote mark that is never closed costs its own line, not the rows after it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qe_edge.table import records as records_module
from qe_edge.table.records import Record, plain_records, quoted_records
from qe_edge.table.text import Line, decode


def lines(text: str) -> list[Line]:
    return [decode(raw, number) for number, raw in enumerate(io.BytesIO(text.encode()), 1)]


def summary(records: list[Record]) -> list[tuple[int, list[str], bool]]:
    return [(record.line, record.cells, record.fault is not None) for record in records]


def test_without_quoting_every_line_is_a_record_and_quote_marks_are_text() -> None:
    assert list(plain_records(lines('a\t"b\n"c"\t\n'))) == [
        Record(1, ["a", '"b'], 'a\t"b', "\n", None),
        Record(2, ['"c"', ""], '"c"\t', "\n", None),
    ]


def test_a_quoted_cell_holds_line_breaks_and_line_numbers_go_on_counting() -> None:
    found = list(quoted_records(lines('s\tt\n"a\r\nb"\tc\r\nd\te\n')))
    assert found == [
        Record(1, ["s", "t"], "s\tt", "\n", None),
        Record(2, ["a\r\nb", "c"], '"a\r\nb"\tc', "\r\n", None),
        Record(4, ["d", "e"], "d\te", "\n", None),
    ]


def test_a_quote_open_to_the_end_of_the_file_costs_its_own_line() -> None:
    found = list(quoted_records(lines('s\tt\n"a\tb\nc\td\ne\tf\n')))
    assert summary(found) == [
        (1, ["s", "t"], False),
        (2, ['"a', "b"], True),
        (3, ["c", "d"], False),
        (4, ["e", "f"], False),
    ]
    assert found[1].fault == "quote mark not closed: '\"a\\tb'"


def test_a_quote_closed_by_another_row_costs_its_own_line() -> None:
    found = list(quoted_records(lines('s\tt\n"a\tb\nc\td\n"e"\tf\ng"\th\n')))
    assert summary(found) == [
        (1, ["s", "t"], False),
        (2, ['"a', "b"], True),
        (3, ["c", "d"], False),
        (4, ["e", "f"], False),
        (5, ['g"', "h"], False),
    ]


def test_lines_joined_into_the_wrong_number_of_cells_are_taken_apart_again() -> None:
    # The quote on line 2 is closed at the end of line 3, but that makes one cell of two rows.
    found = list(quoted_records(lines('s\tt\n"a\tb\nc\td"\ne\tf\n')))
    assert summary(found) == [
        (1, ["s", "t"], False),
        (2, ['"a', "b"], True),
        (3, ["c", 'd"'], False),
        (4, ["e", "f"], False),
    ]
    assert found[1].fault == "quote mark not closed: '\"a\\tb'"


def test_whole_rows_tied_together_by_a_stray_quote_are_taken_apart_again() -> None:
    # Lines 2 to 4 would make one row of two cells, a+b+c+d+e and f; but each of them is a row by itself.
    found = list(quoted_records(lines('s\tt\n"a\tb\nc\td\ne"\tf\n')))
    assert summary(found) == [
        (1, ["s", "t"], False),
        (2, ['"a', "b"], True),
        (3, ["c", "d"], False),
        (4, ['e"', "f"], False),
    ]


def test_a_line_break_in_the_last_cell_is_no_stray_quote() -> None:
    found = list(quoted_records(lines('s\tt\na\t"b\nc"\n')))
    assert summary(found) == [(1, ["s", "t"], False), (2, ["a", "b\nc"], False)]


def test_several_open_quotes_cost_one_line_each() -> None:
    found = list(quoted_records(lines('s\tt\n"a\tb\nc\t"d\n"e\nf"\tg\n')))
    assert summary(found) == [
        (1, ["s", "t"], False),
        (2, ['"a', "b"], True),
        (3, ["c", '"d'], True),
        (4, ["e\nf", "g"], False),
    ]


def test_text_after_a_closing_quote_costs_its_own_line() -> None:
    found = list(quoted_records(lines('s\tt\n"a" b\tc\nd\te\n')))
    assert summary(found) == [(1, ["s", "t"], False), (2, ['"a" b', "c"], True), (3, ["d", "e"], False)]


def test_a_wrong_number_of_cells_on_one_line_is_no_quoting_fault() -> None:
    found = list(quoted_records(lines('s\tt\n"a"\nb\tc\td\n')))
    assert summary(found) == [(1, ["s", "t"], False), (2, ["a"], False), (3, ["b", "c", "d"], False)]


def test_looking_for_a_closing_quote_ends_after_a_bounded_number_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "RECORD_CHARACTERS", 50)
    taken = 0

    def endless() -> list[Line]:
        return lines('s\tt\n"a\tb\n' + "c\td\n" * 1000)

    def counted() -> object:
        nonlocal taken
        for line in endless():
            taken += 1
            yield line

    stream = quoted_records(counted())  # type: ignore[arg-type]
    assert [next(stream).line for _ in range(3)] == [1, 2, 3]
    # 4 characters, and 4 with each line break and line after them: 13 lines make more than 50
    assert taken == 1 + 13


def test_blank_lines_count_when_looking_for_a_closing_quote() -> None:
    taken = 0

    def counted() -> Iterator[Line]:
        nonlocal taken
        yield from lines('s\tt\n"a\tb\n')
        for number in range(3, 2 * records_module.RECORD_CHARACTERS):
            taken += 1
            yield Line(number, "", "\n")

    stream = quoted_records(counted())
    assert [next(stream).fault is None for _ in range(2)] == [True, False]
    assert taken <= records_module.RECORD_CHARACTERS


@pytest.mark.parametrize(
    ("first", "others"),
    [('"a', '""'), ('a\t"b', 'c"\t"d'), ('"a', ""), ('"a', '"'), ('"a""', '""""'), ('a\t"b', "c")],
)
@pytest.mark.parametrize("width", [2, 5000])
def test_reading_takes_time_in_proportion_to_the_text(first: str, others: str, width: int) -> None:
    text = [
        Line(1, "\t" * (width - 1), "\n"),
        Line(2, first, "\n"),
        *(Line(number, others, "\n") for number in range(3, 20_000)),
    ]

    before = time.process_time()
    found = list(quoted_records(text))

    assert sum(record.text.count("\n") + 1 for record in found) == len(text)
    assert (
        time.process_time() - before < 5
    )  # less than half a second; it took minutes to split a record anew for every line


PIECES = st.lists(st.sampled_from(['"', '""', "\t", "\n", "\r\n", "\r", "a", "é", "=1"]), max_size=30).map("".join)


@given(PIECES)
def test_records_put_together_are_the_text(text: str) -> None:
    for read in (plain_records, quoted_records):
        found = list(read(lines(text)))
        assert "".join(record.text + record.end for record in found) == text
        ends = [record.line + record.text.count("\n") for record in found]
        assert [record.line for record in found[1:]] == [end + 1 for end in ends[:-1]]
