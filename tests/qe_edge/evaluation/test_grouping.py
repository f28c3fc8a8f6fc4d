"""Rows are grouped by language pair, or by what is asked for, and never pooled in silence."""

from __future__ import annotations

import numpy as np
import pytest

from qe_edge.errors import InputError
from qe_edge.evaluation.grouping import group_rows
from qe_edge.evaluation.reading import ScoreTable
from qe_edge.table.quoting import Quoting


def table(name: str = "a.tsv", rows: int = 2, **labels: list[str]) -> ScoreTable:
    return ScoreTable(name, Quoting.NONE, rows, {"mean": np.zeros(rows)}, labels)


def test_the_column_lp_groups_the_rows() -> None:
    grouping = group_rows([table(lp=["et-en", "ro-en"], src_lang=["x", "x"], tgt_lang=["y", "y"])])

    assert (grouping.by, grouping.names, grouping.pairs) == ("lp", ["et-en", "ro-en"], ["et-en", "ro-en"])


def test_without_it_two_language_columns_do() -> None:
    grouping = group_rows([table(src_lang=["et", "(empty)"], tgt_lang=["en", "en"])])

    assert (grouping.by, grouping.names) == ("src_lang and tgt_lang", ["et-en", "(empty)"])


def test_one_language_column_alone_says_nothing() -> None:
    grouping = group_rows([table(src_lang=["et", "ro"])])

    assert (grouping.by, grouping.names, grouping.pairs) == (None, ["all", "all"], None)


def test_several_files_without_languages_are_groups() -> None:
    grouping = group_rows([table("x/a.tsv", 1), table("b.tsv", 2)])

    assert (grouping.by, grouping.names, grouping.pairs) == ("file", ["a.tsv", "b.tsv", "b.tsv"], None)


def test_files_of_the_same_name_keep_their_folders() -> None:
    assert group_rows([table("x/a.tsv", 1), table("y/a.tsv", 1)]).names == ["x/a.tsv", "y/a.tsv"]


def test_the_same_pair_in_several_files_is_one_group() -> None:
    tables = [table("a.tsv", 1, lp=["et-en"]), table("b.tsv", 1, src_lang=["et"], tgt_lang=["en"])]

    assert group_rows(tables).names == ["et-en", "et-en"]


def test_a_file_that_does_not_tell_its_pair_is_refused_unless_something_else_groups_the_rows() -> None:
    tables = [table("a.tsv", 1, lp=["et-en"], system=["s"]), table("b.tsv", 1, system=["t"])]

    with pytest.raises(InputError) as caught:
        group_rows(tables)
    assert str(caught.value) == (
        "b.tsv:1: no column 'lp', which another file has; add it, or give --by COLUMN or --pool"
    )
    assert group_rows(tables, by="system").names == ["s", "t"]
    assert group_rows(tables, pool=True).names == ["all", "all"]


def test_pooled_rows_still_know_their_pairs() -> None:
    grouping = group_rows([table(lp=["et-en", "ro-en"])], pool=True)

    assert (grouping.by, grouping.names, grouping.pairs) == (None, ["all", "all"], ["et-en", "ro-en"])
