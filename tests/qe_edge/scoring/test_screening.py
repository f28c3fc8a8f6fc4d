"""Statuses of rows."""

from __future__ import annotations

import pytest

from qe_edge.rows import Row, Status
from qe_edge.scoring.screening import blocking_status, scored_status


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (Row("a", "b", "et", "en"), None),
        (Row("", "b", "et", "en"), Status.EMPTY_SOURCE),
        (Row(" \u00a0", "b", "et", "en"), Status.EMPTY_SOURCE),
        (Row("a", "\t", "et", "en"), Status.EMPTY_TRANSLATION),
        (Row("", "", "et", "en"), Status.EMPTY_SOURCE),
        (Row("", "", "", "", fault="f.tsv:3: 2 cells"), Status.INVALID),
    ],
)
def test_rows_that_cannot_be_scored(row: Row, status: Status | None) -> None:
    assert blocking_status(row) is status


@pytest.mark.parametrize(
    ("row", "truncated", "status"),
    [
        (Row("Tere", "Hello", "et", "en"), False, Status.OK),
        (Row("Tere  maailm", " tere maailm", "et", "en"), False, Status.COPIED_SOURCE),
        (Row("Tere", "Hello", "et", "en"), True, Status.TRUNCATED),
        (Row("Tere", "Tere", "et", "en"), True, Status.TRUNCATED),
        (Row("Tere", "Tere", "fi", "en"), True, Status.TRUNCATED),
        (Row("Tere", "Tere", "fi", "en"), False, Status.UNSUPPORTED_LANGUAGE),
    ],
)
def test_a_scored_row_carries_the_first_suspicion(row: Row, truncated: bool, status: Status) -> None:
    assert scored_status(row, truncated, {"et-en"}) is status
