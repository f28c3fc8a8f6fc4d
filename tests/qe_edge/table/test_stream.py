"""Items meet their scores in order, whatever the scorer reads ahead, and in constant memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice

import pytest

from qe_edge.errors import InputError
from qe_edge.rows import Row, Score, Status
from qe_edge.table.items import Input, Item, as_table_row
from qe_edge.table.output import Output
from qe_edge.table.report import Report
from qe_edge.table.stream import OnTruncate, score_input


class WindowScorer:
    """Scores a row with the number in its first text; reads `window` rows ahead. A text "long" is truncated."""

    signature = "test"

    def __init__(self, window: int) -> None:
        self.window = window

    def close(self) -> None:
        pass

    def score(self, rows: Iterable[Row]) -> Iterator[Score]:
        stream = iter(rows)
        while window := list(islice(stream, self.window)):
            for row in window:
                if row.fault is not None:
                    yield Score(None, Status.INVALID)
                elif row.texts[0] == "long":
                    yield Score(1.0, Status.TRUNCATED)
                else:
                    yield Score(float(row.texts[0]), Status.OK)


def item(source: str, line: int, fault: str | None = None) -> Item:
    return Item(Row((source, "mt"), "et", "en", fault), f"f.tsv:{line}", source)


def run(
    items: Iterable[Item], on_truncate: OnTruncate = OnTruncate.SCORE, window: int = 3
) -> tuple[list[str], list[str], dict[Status, int]]:
    """Output lines, messages, rows per status."""
    written, messages = io.BytesIO(), io.StringIO()
    source = Input((), (), iter(items), "header\n", as_table_row)
    tally = score_input(source, WindowScorer(window), Output(written, "out"), on_truncate, Report(messages))
    return written.getvalue().decode().splitlines(), messages.getvalue().splitlines(), dict(tally)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_scores_meet_their_rows_in_order(window: int) -> None:
    lines, _, tally = run([item(str(n), n) for n in range(10)], window=window)
    assert lines == ["header", *(f"{n}\t{n}.0000\tok" for n in range(10))]
    assert tally == {Status.OK: 10}


def test_a_fault_is_named_with_its_place_and_the_rows_after_it_are_scored() -> None:
    lines, messages, tally = run([item("1", 2), item("x", 3, "it is broken; mend it"), item("2", 4)])
    assert lines[1:] == ["1\t1.0000\tok", "x\t\tinvalid", "2\t2.0000\tok"]
    assert messages == ["f.tsv:3: it is broken; mend it"]
    assert tally == {Status.OK: 2, Status.INVALID: 1}


def test_a_truncated_row_is_scored_skipped_or_stops_the_run() -> None:
    items = [item("1", 2), item("long", 3)]
    assert run(items)[0][2] == "long\t1.0000\ttruncated"
    assert run(items, OnTruncate.SKIP)[0][2] == "long\t\ttruncated"
    with pytest.raises(InputError, match=r"f\.tsv:3: 4 \+ 2 characters are too long for the model; shorten the row"):
        run(items, OnTruncate.FAIL)


def test_no_more_items_are_held_than_the_scorer_reads_ahead() -> None:
    scored = 0
    furthest = 0

    def items() -> Iterator[Item]:
        nonlocal furthest
        for n in range(1000):
            furthest = max(furthest, n - scored)
            yield item(str(n), n)

    class Counting(Output):
        def write(self, text: str) -> None:
            nonlocal scored
            scored += 1

    source = Input((), (), items(), "", as_table_row)
    score_input(source, WindowScorer(10), Counting(io.BytesIO(), "out"), OnTruncate.SCORE, Report(io.StringIO()))
    assert scored == 1001
    assert furthest <= 10


def test_a_scorer_that_loses_rows_is_caught() -> None:
    class Losing(WindowScorer):
        def score(self, rows: Iterable[Row]) -> Iterator[Score]:
            return islice(super().score(rows), 1)

    source = Input((), (), iter([item("1", 2), item("2", 3)]), "", as_table_row)
    with pytest.raises(RuntimeError, match="no score for 1 rows"):
        score_input(source, Losing(2), Output(io.BytesIO(), "out"), OnTruncate.SCORE, Report(io.StringIO()))
