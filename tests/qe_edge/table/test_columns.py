"""Columns are found by name or number; what is missing or ambiguous is named."""

from __future__ import annotations

import pytest

from qe_edge.errors import InputError, UsageError
from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge.table.columns import Columns, from_fields, from_header, settled, usual_names

TEXT = Prompt("{text} =")
THREE = Prompt("{Premise} {claim} {review text}")


@pytest.mark.parametrize("source", ["source", "src", "original", "Source", " SRC "])
@pytest.mark.parametrize("translation", ["translation", "mt", "target", "hypothesis", "hyp", "MT"])
def test_source_and_translation_have_several_names_in_any_case(source: str, translation: str) -> None:
    assert from_header(["id", translation, source], ALOPE_PROMPT, "f:1") == Columns((2, 1))


def test_languages_are_one_column_or_two_and_the_pair_wins() -> None:
    assert from_header(["lp", "src", "mt"], ALOPE_PROMPT, "f:1").languages == (0,)
    assert from_header(["tgt_lang", "src_lang", "src", "mt"], ALOPE_PROMPT, "f:1").languages == (1, 0)
    assert from_header(["src_lang", "tgt_lang", "lp", "src", "mt"], ALOPE_PROMPT, "f:1").languages == (2,)
    assert from_header(["Src_Lang", "src", "mt"], ALOPE_PROMPT, "f:1") == Columns((1, 2), (), "Src_Lang")
    assert from_header(["lp", "tgt_lang", "src", "mt"], ALOPE_PROMPT, "f:1") == Columns((2, 3), (0,))


def test_language_columns_are_named_but_not_read_where_the_languages_are_told() -> None:
    header = ["LP", "src", "mt", "lp ", "src_lang", "tgt_lang", "Src_Lang", "note"]
    told = from_header(header, ALOPE_PROMPT, "f:1", "et-en")
    assert told == Columns((1, 2), overridden=("LP", "lp ", "src_lang", "tgt_lang", "Src_Lang"))
    assert from_header(["src_lang", "src", "mt"], ALOPE_PROMPT, "f:1", "et-en").lone_language == ""
    assert from_header(["lp", "text"], Prompt("{lp} {text} {tl}"), "f:1", "et-en") == Columns((0, 1))


def test_a_missing_column_names_what_is_there_and_what_would_do() -> None:
    with pytest.raises(InputError) as caught:
        from_header(["id", "text", "mt"], ALOPE_PROMPT, "data.tsv:1")
    assert str(caught.value) == (
        "data.tsv:1: no source column among 'id', 'text', 'mt'; name it source, src or original, "
        "or give --fields SOURCE,TRANSLATION (numbers) for a file without a header"
    )
    with pytest.raises(InputError, match="no translation column among 'src', 'text'"):
        from_header(["src", "text"], ALOPE_PROMPT, "data.tsv:1")


@pytest.mark.parametrize("header", ["source,translation", "source;translation", '{"source": "Tere"}', '[{"source":'])
def test_a_table_without_tabs_is_told_so(header: str) -> None:
    with pytest.raises(InputError) as caught:
        from_header([header], ALOPE_PROMPT, "data.csv:1")
    assert str(caught.value) == (
        f"data.csv:1: no tab in the header {header!r}; write tabs between cells, not commas or semicolons, "
        "or JSON lines in a file whose name ends in .jsonl"
    )


def test_two_columns_that_could_be_the_same_are_named() -> None:
    with pytest.raises(InputError, match=r"f:1: columns 'mt' and 'Target' could each be the translation; rename"):
        from_header(["src", "mt", "Target"], ALOPE_PROMPT, "f:1")


@pytest.mark.parametrize("name", ["qe_score", "qe_status", "QE_SCORE"])
def test_a_column_that_the_output_adds_must_not_be_there(name: str) -> None:
    with pytest.raises(InputError, match=f"column '{name.casefold()}' is there already; rename it"):
        from_header(["src", "mt", name], ALOPE_PROMPT, "f:1")


def test_fields_count_from_one() -> None:
    assert from_fields("1,2", ALOPE_PROMPT) == Columns((0, 1))
    assert from_fields("3, 1", ALOPE_PROMPT) == Columns((2, 0))


@pytest.mark.parametrize("fields", ["", "1", "1,1", "0,1", "1,2,3", "a,b", "1,", "-1,2", "1;2"])
def test_fields_that_are_not_two_numbers_are_refused(fields: str) -> None:
    with pytest.raises(UsageError, match="--fields"):
        from_fields(fields, ALOPE_PROMPT)


@pytest.mark.parametrize("number", ["9" * 10, "9" * 5000])
def test_a_number_of_endless_digits_is_refused_and_shown_in_short(number: str) -> None:
    with pytest.raises(UsageError, match=r"^--fields 1,9+\.*: give the numbers of the") as caught:
        from_fields(f"1,{number}", ALOPE_PROMPT)
    assert len(str(caught.value)) < 200


def test_of_names_that_could_be_the_same_column_the_one_of_most_objects_counts() -> None:
    counts = {"id": 1, "source": 6, "Source": 4, "mt": 5, "hyp": 5, "lp": 10, "LP": 1, "QE_score": 9, "qe_status": 10}
    assert settled(counts, 10, ALOPE_PROMPT) == ["id", "source", "mt", "hyp", "lp", "qe_status"]
    assert settled({"text": 9, "Text": 1, "lp": 9, "LP": 1}, 10, TEXT) == ["text", "lp", "LP"]


def test_other_texts_are_the_columns_of_their_names_in_any_case() -> None:
    assert from_header(["id", "Text ", "score"], TEXT, "f:1") == Columns((1,))
    assert from_header(["REVIEW TEXT", "x", "claim", "premise"], THREE, "f:1") == Columns((3, 2, 0))


def test_source_and_translation_have_their_names_in_every_prompt() -> None:
    prompt = Prompt("{mt} in {context}")
    assert usual_names(prompt) == ["translation", "context"]
    assert from_header(["context", "Hypothesis"], prompt, "f:1") == Columns((1, 0))


def test_language_columns_are_not_looked_for_where_the_prompt_names_no_language() -> None:
    assert from_header(["lp", "LP", "text"], TEXT, "f:1") == Columns((2,))
    assert from_header(["lp", "text"], Prompt("{lp} {text}"), "f:1") == Columns((0, 1))
    assert from_header(["lp", "text"], Prompt("{tl} {text}"), "f:1") == Columns((1,), (0,))


def test_a_missing_text_names_the_columns_that_are_there_and_the_way_without_a_header() -> None:
    with pytest.raises(InputError) as caught:
        from_header(["id", "tweet"], TEXT, "f.tsv:1")
    assert str(caught.value) == (
        "f.tsv:1: no text column among 'id', 'tweet'; name it text, "
        "or give --fields TEXT (its number) for a file without a header"
    )
    with pytest.raises(InputError, match=r"no claim column .* --fields PREMISE,CLAIM,REVIEW TEXT \(numbers\)"):
        from_header(["premise"], THREE, "f.tsv:1")
    with pytest.raises(InputError, match="columns 'text' and 'Text' could each be the text"):
        from_header(["text", "Text"], TEXT, "f.tsv:1")


def test_a_long_line_in_place_of_a_header_is_shown_in_short() -> None:
    with pytest.raises(InputError) as caught:
        from_header(["word " * 1000], TEXT, "f.tsv:1")
    assert len(str(caught.value)) < 200


def test_as_many_fields_are_given_as_there_are_texts() -> None:
    assert from_fields("2", TEXT) == Columns((1,))
    assert from_fields("3,1,2", THREE) == Columns((2, 0, 1))
    with pytest.raises(UsageError) as caught:
        from_fields("1,2", TEXT)
    assert str(caught.value) == "--fields 1,2: give the number of the text column, counted from 1, as 1"
    with pytest.raises(UsageError) as caught:
        from_fields("1,2", THREE)
    assert str(caught.value) == (
        "--fields 1,2: give the numbers of the Premise and the claim and the review text column, "
        "counted from 1, as 1,2,3"
    )


def test_of_ten_thousand_columns_a_message_names_some() -> None:
    with pytest.raises(InputError) as caught:
        from_header([f"column {number}" for number in range(10_000)], ALOPE_PROMPT, "f.tsv:1")
    assert "among 'column 0', 'column 1'," in str(caught.value)
    assert "'column 11', 9988 more; name it" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_of_ten_thousand_columns_of_one_name_a_message_names_some() -> None:
    with pytest.raises(InputError, match=r"columns 'mt' and 'mt' and .* and 9988 more could each be the translation"):
        from_header(["src", *["mt"] * 10_000], ALOPE_PROMPT, "f.tsv:1")
    with pytest.raises(InputError) as caught:
        from_header(["src", "mt", f"mt{' ' * 10_000}"], ALOPE_PROMPT, "f.tsv:1")
    assert len(str(caught.value)) < 200
