"""Score tables are read whole or not at all: every number, missing column and broken row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qe_edge.errors import InputError
from qe_edge.evaluation.reading import read_scores
from qe_edge.table.quoting import Quoting


def written(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "t.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def failure(path: str, *numbers: str, needed: tuple[str, ...] = ()) -> str:
    with pytest.raises(InputError) as caught:
        read_scores(path, numbers, needed, needed)
    return str(caught.value).removeprefix(str(Path(path).parent) + "/")


def test_numbers_and_labels_are_read_and_empty_cells_are_kept_apart(tmp_path: Path) -> None:
    path = written(tmp_path, "lp\tmean\ttext\tqe_score\net-en\t1.5\tx\t-2e1\n\t 3 \ty\t\net-en\t\tz\t+.5\n")

    table = read_scores(path, ["mean", "qe_score"], ["lp", "src_lang"])

    assert (table.name, table.rows, table.quoting) == (path, 3, Quoting.NONE)
    np.testing.assert_array_equal(table.numbers["mean"], [1.5, 3, np.nan])
    np.testing.assert_array_equal(table.numbers["qe_score"], [-20, np.nan, 0.5])
    assert table.labels == {"lp": ["et-en", "(empty)", "et-en"]}


def test_columns_match_in_any_case_and_as_written_first(tmp_path: Path) -> None:
    path = written(tmp_path, "Mean\tMEAN\t Other\n1\t2\t3\n")

    table = read_scores(path, ["MEAN", "other"], [])

    assert {name: column.tolist() for name, column in table.numbers.items()} == {"MEAN": [2], "other": [3]}
    assert failure(path, "mean") == "t.tsv:1: 2 columns are called 'mean'; rename all but one"


def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_the_cells(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfmean\tqe_score\r\n1\t2\r\n3\t4")

    table = read_scores(path, ["mean", "qe_score"], [])

    assert table.numbers["mean"].tolist() == [1, 3]
    assert table.numbers["qe_score"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("header", "row", "quoting"),
    [
        ("text\tmean", '"say\t{}', Quoting.NONE),  # a quote mark that is text, as in MLQE-PE
        ("text\tmean", '"say ""a""\nb"\t{}', Quoting.CSV),  # a cell over two lines, with quote marks
        ('"text"\t"mean"', '"say"\t"{}"', Quoting.CSV),
    ],
)
def test_quoting_is_told_apart(tmp_path: Path, header: str, row: str, quoting: Quoting) -> None:
    path = written(tmp_path, "\n".join([header, *(row.format(n) for n in range(40))]) + "\n")

    table = read_scores(path, ["mean"], [])

    assert table.quoting is quoting
    assert table.numbers["mean"].tolist() == list(range(40))


def test_quoting_can_be_told(tmp_path: Path) -> None:
    path = written(tmp_path, 'text\tmean\n"a\nb"\t2\n')

    assert read_scores(path, ["mean"], [], quoting=Quoting.CSV).numbers["mean"].tolist() == [2]


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "x", "1,5", "1_000", "1e400", "0x1f", "NA", "1 2", "٣"])
def test_a_cell_that_is_not_a_finite_number_is_refused(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, f"mean\tqe_score\n1\t2\n3\t{cell}\n")

    assert failure(path, "mean", "qe_score") == (
        f"t.tsv:3: column 'qe_score' holds {cell!r}, not a finite number up to 1e+60; "
        "correct it, or leave the cell empty to leave the row out"
    )


def test_a_missing_column_names_the_others_and_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, "lp\tMean\tz_mean\nx\t1\t2\n")

    assert failure(path, "zmean") == (
        "t.tsv:1: no column 'zmean' among 'lp', 'Mean', 'z_mean'; did you mean 'z_mean'? "
        "name columns with --gold, --score and --by"
    )
    assert failure(path, "z_mean", needed=("lq",)).startswith("t.tsv:1: no column 'lq' among 'lp', 'Mean', 'z_mean'")


def test_a_column_unlike_all_others_is_not_guessed(tmp_path: Path) -> None:
    path = written(tmp_path, "lp\toriginal\tmean\nx\ty\t1\n")

    assert failure(path, "qe_score") == (
        "t.tsv:1: no column 'qe_score' among 'lp', 'original', 'mean'; name columns with --gold, --score and --by"
    )


@pytest.mark.parametrize("header", ["lp,mean,qe_score", "lp;mean;qe_score", '{"mean": 1, "qe_score": 2}'])
def test_a_header_without_tabs_is_said_to_be_no_tsv(tmp_path: Path, header: str) -> None:
    path = written(tmp_path, f"{header}\n1,2,3\n")

    assert failure(path, "mean") == (
        f"t.tsv:1: no tab in the header {header!r}; only TSV is read here: write tabs between cells"
    )


def test_of_ten_thousand_columns_a_message_names_some(tmp_path: Path) -> None:
    path = written(tmp_path, "\t".join([*(f"c{n}" for n in range(9999)), "x" * 5000]) + "\n")
    assert "'c10', 'c11', 9988 more; did you mean 'c7777'? " in failure(path, "c_7777")
    assert len(failure(path, "xxxxx")) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mean\tlp\n1\ta\n2\n", "t.tsv:3: 1 instead of 2 cells: '2'; check the tabs of this row"),
        (b"mean\tlp\n", "t.tsv: a header and no rows; give a table with at least one row"),
        (b"", "t.tsv: the file is empty; give a table with at least one row"),
        (b"mean\tlp\n1\tCaf\xe9\n", "t.tsv:2: column 'lp': not valid UTF-8: byte 0xe9 after 'Caf'; save the file"),
        (b"m\xe9an\tlp\n1\ta\n", "t.tsv:1: not valid UTF-8: byte 0xe9 after 'm'; save the file as UTF-8; the header"),
    ],
)
def test_a_table_that_would_lose_rows_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert failure(written(tmp_path, content), "mean", needed=("lp",)).startswith(message)


def test_a_quote_that_breaks_the_rules_is_refused(tmp_path: Path) -> None:
    rows = ['"a ""b"""\t1\n'] * 40
    path = written(tmp_path, "text\tmean\n" + "".join(rows) + '"open\t2\n')

    assert failure(path, "mean").startswith("t.tsv:42: quote mark not closed")


def test_bytes_that_are_not_utf8_in_other_columns_do_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, b"text\tmean\nCaf\xe9\t1\n")

    assert read_scores(path, ["mean"], []).numbers["mean"].tolist() == [1]
