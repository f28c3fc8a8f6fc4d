"""Columns are found by name or number; what is missing or ambiguous is named."""

from __future__ import annotations

import pytest

from qe_edge.errors import InputError, UsageError
from qe_edge.table.columns import Columns, from_fields, from_header


@pytest.mark.parametrize("source", ["source", "src", "original", "Source", " SRC "])
@pytest.mark.parametrize("translation", ["translation", "mt", "target", "hypothesis", "hyp", "MT"])
def test_source_and_translation_have_several_names_in_any_case(source: str, translation: str) -> None:
    assert from_header(["id", translation, source], "f:1") == Columns(source=2, translation=1)


def test_languages_are_one_column_or_two_and_the_pair_wins() -> None:
    assert from_header(["lp", "src", "mt"], "f:1").languages == (0,)
    assert from_header(["tgt_lang", "src_lang", "src", "mt"], "f:1").languages == (1, 0)
    assert from_header(["src_lang", "tgt_lang", "lp", "src", "mt"], "f:1").languages == (2,)
    assert from_header(["src_lang", "src", "mt"], "f:1").languages == ()


def test_a_missing_column_names_what_is_there_and_what_would_do() -> None:
    with pytest.raises(InputError) as caught:
        from_header(["id", "text", "mt"], "data.tsv:1")
    assert str(caught.value) == (
        "data.tsv:1: no source column among 'id', 'text', 'mt'; name it source, src or original, "
        "or give --fields SOURCE,TRANSLATION (numbers) for a file without a header"
    )
    with pytest.raises(InputError, match="no translation column among 'src', 'text'"):
        from_header(["src", "text"], "data.tsv:1")


def test_two_columns_that_could_be_the_same_are_named() -> None:
    with pytest.raises(InputError, match=r"f:1: columns 'mt' and 'Target' could each be the translation; rename"):
        from_header(["src", "mt", "Target"], "f:1")


@pytest.mark.parametrize("name", ["qe_score", "qe_status", "QE_SCORE"])
def test_a_column_that_the_output_adds_must_not_be_there(name: str) -> None:
    with pytest.raises(InputError, match=f"column '{name.casefold()}' is there already; rename it"):
        from_header(["src", "mt", name], "f:1")


def test_fields_count_from_one() -> None:
    assert from_fields("1,2") == Columns(source=0, translation=1)
    assert from_fields("3, 1") == Columns(source=2, translation=0)


@pytest.mark.parametrize("fields", ["", "1", "1,1", "0,1", "1,2,3", "a,b", "1,", "-1,2", "1;2"])
def test_fields_that_are_not_two_numbers_are_refused(fields: str) -> None:
    with pytest.raises(UsageError, match="--fields"):
        from_fields(fields)
