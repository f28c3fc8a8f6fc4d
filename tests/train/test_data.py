"""Training tables: read by the runtime's reader, duplicates and empty rows left out, faults named with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from qe_edge.errors import InputError
from qe_edge_train.data import load_examples
from qe_edge_train.recipe import DataFile

HEADER = "lp\toriginal\ttranslation\tmean\n"


def write(folder: Path, rows: str, name: str = "t.tsv") -> DataFile:
    (folder / name).write_text(HEADER + rows, encoding="utf-8")
    return DataFile(name)


def test_examples_carry_pair_names_texts_and_score(tmp_path: Path) -> None:
    file = write(tmp_path, 'et-en\tTere "maailm"\tHello\t93.5\n')

    (example,), (facts,) = load_examples([file], "mean", tmp_path, 1)

    assert (example.pair, example.names) == ("et-en", ("Estonian", "English"))
    assert (example.source, example.translation, example.score) == ('Tere "maailm"', "Hello", 93.5)
    assert (facts.rows, facts.used, facts.quoting) == (1, 1, "none")


def test_duplicates_and_empty_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    file = write(tmp_path, "et-en\ta\tb\t1\net-en\ta\tb\t2\nne-en\ta\tb\t3\net-en\t\tb\t4\n")

    examples, (facts,) = load_examples([file], "mean", tmp_path, 1)

    assert [example.score for example in examples] == [1.0, 3.0]
    assert (facts.rows, facts.used, facts.duplicates, facts.empty) == (4, 2, 1, 1)


def test_a_sample_is_random_and_the_same_every_time(tmp_path: Path) -> None:
    write(tmp_path, "".join(f"et-en\ts{i}\tt{i}\t{i}\n" for i in range(50)))
    file = DataFile("t.tsv", rows=10)

    first, _ = load_examples([file], "mean", tmp_path, 1)
    again, _ = load_examples([file], "mean", tmp_path, 1)
    other, _ = load_examples([file], "mean", tmp_path, 2)

    assert len(first) == 10
    assert first == again != other


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("et-en\ta\tb\tgood\n", "t.tsv:2: column `mean` holds 'good', not a finite number"),
        ("et-en\ta\tb\t1\net-en\ta\tc\tnan\n", "t.tsv:3: column `mean` holds 'nan', not a finite number"),
        ("et-en\ta\tb\n", "t.tsv:2: 3 instead of 4 cells"),
    ],
)
def test_faulty_rows_stop_training_with_file_and_line(tmp_path: Path, rows: str, expected: str) -> None:
    file = write(tmp_path, rows)

    with pytest.raises(InputError) as caught:
        load_examples([file], "mean", tmp_path, 1)

    assert expected in str(caught.value)


def test_a_missing_score_column_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "et-en\ta\tb\t1\n")

    with pytest.raises(InputError, match=r"t\.tsv:1: no column `z_mean`.*lp, original, translation, mean"):
        load_examples([file], "z_mean", tmp_path, 1)
