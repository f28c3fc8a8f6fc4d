"""Items through a scorer into an output, in order and in constant memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from itertools import islice
from typing import Protocol

from qe_edge.errors import InputError
from qe_edge.rows import Row, Score, Status
from qe_edge.table.items import Input, Item
from qe_edge.table.journal import Progress, RowHash
from qe_edge.table.output import Output
from qe_edge.table.report import Report


class OnTruncate(StrEnum):
    """What to do with a row whose texts are too long for the model."""

    SCORE = "score"
    """score what fits"""
    SKIP = "skip"
    """leave its score empty"""
    FAIL = "fail"
    """stop"""


class RowScorer(Protocol):
    """What is needed of `qe_edge.Scorer`."""

    @property
    def signature(self) -> str:
        """Version, bundle, tap, precision and device, in one line."""

    def score(self, rows: Iterable[Row]) -> Iterator[Score]:
        """One score per row, in order; may read some rows ahead."""

    def close(self) -> None:
        """Let go of what scoring needs; nothing can be scored any more."""


def score_input(
    source: Input, scorer: RowScorer, output: Output, on_truncate: OnTruncate, report: Report
) -> Counter[Status]:
    """Score all items of an input and write them; faults and progress go to the report. Returns rows per status.

    An output that an interrupted run left is continued: its rows are read again and not scored. Raises InputError for a
    truncated row when `on_truncate` is FAIL and for rows that are not those of the interrupted run; OutputError when
    the output cannot be written.
    """
    earlier, read = output.progress, RowHash()
    if earlier.rows:
        _skip(source.items, earlier, read)
        report.resumed(earlier.rows)
    else:
        output.write(source.header)
    tally = Counter(earlier.tally)
    for done, (item, score) in enumerate(_scored(source.items, scorer), earlier.rows + 1):
        fault = item.row.fault or score.reason
        if fault is not None:
            report.fault(item.place, fault)
        if score.status is Status.TRUNCATED and on_truncate is not OnTruncate.SCORE:
            if on_truncate is OnTruncate.FAIL:
                lengths = " + ".join(str(len(text)) for text in item.row.texts)
                raise InputError(
                    f"{item.place}: {lengths} characters are too long for the model; shorten the row, "
                    "or use --on-truncate score or skip"
                )
            score = Score(None, Status.TRUNCATED)
        output.write(source.render(item, score))
        tally[score.status] += 1
        if output.resumable:
            read.add(item)
            if output.due(done):
                output.checkpoint(done, tally, read.digest)
        report.progress(done)
    output.flush()
    return tally


def _skip(items: Iterator[Item], earlier: Progress, read: RowHash) -> None:
    """Read the rows of an interrupted run again, and make sure that they are the same."""
    last = None
    for item in islice(items, earlier.rows):
        read.add(item)
        last = item
    if read.digest != earlier.read:
        place = "the input" if last is None else last.place
        raise InputError(f"{place}: the rows up to here are not the {earlier.rows} that were scored; use --restart")


def _scored(items: Iterable[Item], scorer: RowScorer) -> Iterator[tuple[Item, Score]]:
    """Items with their scores; holds as many items as the scorer reads ahead."""
    waiting: deque[Item] = deque()

    def rows() -> Iterator[Row]:
        for item in items:
            waiting.append(item)
            yield replace(item.row, beside=len(item.text))

    for score in scorer.score(rows()):
        yield waiting.popleft(), score
    if waiting:
        raise RuntimeError(f"the scorer returned no score for {len(waiting)} rows")
