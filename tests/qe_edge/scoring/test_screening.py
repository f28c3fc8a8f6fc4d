"""Statuses of rows."""

from __future__ import annotations

import pytest

from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge.rows import Row, Status
from qe_edge.scoring.screening import blocking_status, scored_status


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (Row.translation("a", "b", "et", "en"), None),
        (Row.translation("", "b", "et", "en"), Status.EMPTY_SOURCE),
        (Row.translation(" \u00a0", "b", "et", "en"), Status.EMPTY_SOURCE),
        (Row.translation("a", "\t", "et", "en"), Status.EMPTY_TRANSLATION),
        (Row.translation("", "", "et", "en"), Status.EMPTY_SOURCE),
        (Row((), fault="f.tsv:3: 2 cells"), Status.INVALID),
    ],
)
def test_translations_that_cannot_be_scored(row: Row, status: Status | None) -> None:
    assert blocking_status(row, ALOPE_PROMPT) is status


@pytest.mark.parametrize(
    ("row", "truncated", "status"),
    [
        (Row.translation("Tere", "Hello", "et", "en"), False, Status.OK),
        (Row.translation("Tere  maailm", " tere maailm", "et", "en"), False, Status.COPIED_SOURCE),
        (Row.translation("Tere", "Hello", "et", "en"), True, Status.TRUNCATED),
        (Row.translation("Tere", "Tere", "et", "en"), True, Status.TRUNCATED),
        (Row.translation("Tere", "Tere", "fi", "en"), True, Status.TRUNCATED),
        (Row.translation("Tere", "Tere", "fi", "en"), False, Status.UNSUPPORTED_LANGUAGE),
    ],
)
def test_a_scored_translation_carries_the_first_suspicion(row: Row, truncated: bool, status: Status) -> None:
    assert scored_status(row, ALOPE_PROMPT, truncated, {"et-en"}) is status


SUMMARY = Prompt("{text} // {summary} =")
"""a prompt whose two texts are not a translation, and which names no language"""


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (Row(("a", "b")), None),
        (Row(("", "b")), Status.EMPTY_TEXT),
        (Row(("a", " \u00a0")), Status.EMPTY_TEXT),
        (Row((), fault="f.tsv:3: 2 cells"), Status.INVALID),
    ],
)
def test_rows_of_other_texts_that_cannot_be_scored(row: Row, status: Status | None) -> None:
    assert blocking_status(row, SUMMARY) is status


def test_other_texts_may_be_equal_and_in_any_language() -> None:
    row = Row(("a", "a"), "fi", "en")
    assert scored_status(row, SUMMARY, False, set()) is Status.OK
    assert scored_status(row, SUMMARY, True, set()) is Status.TRUNCATED


def test_a_language_counts_wherever_the_prompt_names_one() -> None:
    fluency = Prompt("{tl}: {text}")
    assert scored_status(Row(("a",), "et", "en"), fluency, False, {"et-en"}) is Status.OK
    assert scored_status(Row(("a",), "fi", "en"), fluency, False, {"et-en"}) is Status.UNSUPPORTED_LANGUAGE
    nameless = Prompt("{src} = {mt}")
    assert scored_status(Row(("a", "b")), nameless, False, set()) is Status.OK
    assert scored_status(Row(("a", "A")), nameless, False, set()) is Status.COPIED_SOURCE
