"""Training tables: read by the runtime's reader, duplicates and empty rows left out, faults named with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from qe_edge.errors import InputError
from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge_train.data import ALL, Example, check_train, load_examples, without
from qe_edge_train.recipe import DataFile

HEADER = "lp\toriginal\ttranslation\tmean\n"


def write(folder: Path, rows: str, name: str = "t.tsv") -> DataFile:
    (folder / name).write_text(HEADER + rows, encoding="utf-8")
    return DataFile(name)


def test_examples_carry_pair_names_texts_and_score(tmp_path: Path) -> None:
    file = write(tmp_path, 'et-en\tTere "maailm"\tHello\t93.5\n')

    (example,), (facts,) = load_examples([file], "mean", tmp_path, 1, ALOPE_PROMPT)

    assert (example.pair, example.names) == ("et-en", ("Estonian", "English"))
    assert (example.texts, example.score) == (('Tere "maailm"', "Hello"), 93.5)
    assert (facts.rows, facts.used, facts.quoting) == (1, 1, "none")


def test_duplicates_and_empty_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    file = write(tmp_path, "et-en\ta\tb\t1\net-en\ta\tb\t2\nne-en\ta\tb\t3\net-en\t\tb\t4\n")

    examples, (facts,) = load_examples([file], "mean", tmp_path, 1, ALOPE_PROMPT)

    assert [example.score for example in examples] == [1.0, 3.0]
    assert (facts.rows, facts.used, facts.duplicates, facts.empty) == (4, 2, 1, 1)


def test_a_sample_is_random_and_the_same_every_time(tmp_path: Path) -> None:
    write(tmp_path, "".join(f"et-en\ts{i}\tt{i}\t{i}\n" for i in range(50)))
    file = DataFile("t.tsv", rows=10)

    first, _ = load_examples([file], "mean", tmp_path, 1, ALOPE_PROMPT)
    again, _ = load_examples([file], "mean", tmp_path, 1, ALOPE_PROMPT)
    other, _ = load_examples([file], "mean", tmp_path, 2, ALOPE_PROMPT)

    assert len(first) == 10
    assert first == again != other


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("et-en\ta\tb\tgood\n", "t.tsv:2: column `mean` holds 'good', not a finite number"),
        ("et-en\ta\tb\t1\net-en\ta\tc\tnan\n", "t.tsv:3: column `mean` holds 'nan', not a finite number"),
        ("et-en\ta\tb\t1_0\n", "t.tsv:2: column `mean` holds '1_0', not a finite number"),
        ("et-en\ta\tb\t\u0663\n", "t.tsv:2: column `mean` holds '\u0663', not a finite number"),
        ("et-en\ta\tb\t1e39\n", "t.tsv:2: column `mean` holds '1e39', not a finite number up to 1e+18"),
        ("et-en\ta\tb\t-1e300\n", "t.tsv:2: column `mean` holds '-1e300', not a finite number up to 1e+18"),
        ("et-en\ta\tb\n", "t.tsv:2: 3 instead of 4 cells"),
    ],
)
def test_faulty_rows_stop_training_with_file_and_line(tmp_path: Path, rows: str, expected: str) -> None:
    file = write(tmp_path, rows)

    with pytest.raises(InputError) as caught:
        load_examples([file], "mean", tmp_path, 1, ALOPE_PROMPT)

    assert expected in str(caught.value)


def test_a_missing_score_column_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "et-en\ta\tb\t1\n")

    with pytest.raises(InputError, match=r"t\.tsv:1: no column `z_mean`.*lp, original, translation, mean"):
        load_examples([file], "z_mean", tmp_path, 1, ALOPE_PROMPT)


def test_the_nearest_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("lp\toriginal\ttranslation\tz_mean\tMean\net-en\ta\tb\t1\t2\n", encoding="utf-8")

    with pytest.raises(InputError, match=r"t\.tsv:1: no column `mean`.*the nearest to \[target\] column is `Mean`$"):
        load_examples([DataFile("t.tsv")], "mean", tmp_path, 1, ALOPE_PROMPT)


def test_two_columns_with_the_score_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("lp\tmean\toriginal\ttranslation\tmean\net-en\t1\ta\tb\t2\n", encoding="utf-8")

    with pytest.raises(InputError, match=r"t\.tsv:1: 2 columns are called `mean`; rename all but one"):
        load_examples([DataFile("t.tsv")], "mean", tmp_path, 1, ALOPE_PROMPT)


def test_scores_are_written_in_the_usual_ways(tmp_path: Path) -> None:
    cells = ["1", "1.5", "-2", "+.5", "1e-3", " 7 ", "2E2"]
    file = write(tmp_path, "".join(f"et-en\t{i}\tb\t{cell}\n" for i, cell in enumerate(cells)))

    examples, _ = load_examples([file], "mean", tmp_path, 1, ALOPE_PROMPT)

    assert [example.score for example in examples] == [1, 1.5, -2, 0.5, 0.001, 7, 200]


def test_a_missing_language_pair_is_asked_for_where_it_can_be_told(tmp_path: Path) -> None:
    rows = "".join(f"Tere hommikust, maailm {i}\tGood morning, world {i}\t{i}\n" for i in range(30))
    (tmp_path / "t.tsv").write_text("original\ttranslation\tmean\n" + rows, encoding="utf-8")

    with pytest.raises(InputError, match="give lp in its table of the recipe, or a column lp in the table"):
        load_examples([DataFile("t.tsv")], "mean", tmp_path, 1, ALOPE_PROMPT)
    with pytest.raises(InputError, match="give --lp, or a column lp in the table"):
        load_examples([DataFile("t.tsv")], "mean", tmp_path, 1, ALOPE_PROMPT, "--lp")


@pytest.mark.parametrize("scores", [[50.0], [50.0] * 3, [0.1] * 3, [50.0, 50.0000000001]])
def test_training_scores_must_differ(scores: list[float]) -> None:
    rows = [Example("et-en", ("Estonian", "English"), ("a", str(i)), score) for i, score in enumerate(scores)]

    with pytest.raises(InputError, match=rf"{len(rows)} training rows without two different scores .*nothing to learn"):
        check_train(rows)


TEXT = Prompt("{text} =")


def write_text(folder: Path, content: str) -> DataFile:
    (folder / "text.tsv").write_text(content, encoding="utf-8")
    return DataFile("text.tsv")


def test_one_text_a_row_is_one_group_without_languages(tmp_path: Path) -> None:
    file = write_text(tmp_path, 'id\ttext\tscore\n1\tsay "so\t-1.5\n2\tfine\t2\n3\t \t1\n4\tfine\t4\n')

    examples, (facts,) = load_examples([file], "score", tmp_path, 1, TEXT)

    assert examples == [Example(ALL, ("", ""), ('say "so',), -1.5), Example(ALL, ("", ""), ("fine",), 2.0)]
    assert (facts.rows, facts.used, facts.duplicates, facts.empty, facts.quoting) == (4, 2, 1, 1, "none")


def test_rows_are_the_same_when_pair_and_all_texts_are(tmp_path: Path) -> None:
    prompt = Prompt("{premise} {claim} =")
    file = write_text(tmp_path, "premise\tclaim\tscore\na\tb c\t1\na b\tc\t2\na\tb c\t3\nb c\ta\t4\n")

    examples, _ = load_examples([file], "score", tmp_path, 1, prompt)

    assert [example.score for example in examples] == [1, 2, 4]
    assert [example.score for example in without(examples, examples[1:2])] == [1, 4]


def test_languages_are_asked_for_wherever_the_prompt_names_one(tmp_path: Path) -> None:
    file = write_text(tmp_path, "text\tscore\nHello\t1\n")
    prompt = Prompt("{tl}: {text}")

    (example,), _ = load_examples([DataFile(file.path, lp="et-en")], "score", tmp_path, 1, prompt)

    assert (example.pair, example.names) == ("et-en", ("Estonian", "English"))
    with pytest.raises(InputError, match=r"text\.tsv: no languages, which the prompt names"):
        load_examples([file], "score", tmp_path, 1, prompt)
    with pytest.raises(InputError, match=r"text\.tsv: lp = 'et-en', and the prompt names no language; remove lp"):
        load_examples([DataFile(file.path, lp="et-en")], "score", tmp_path, 1, TEXT)


@pytest.mark.parametrize(
    ("column", "prompt"), [("text", TEXT), ("Text", TEXT), ("mt", ALOPE_PROMPT), ("source", ALOPE_PROMPT)]
)
def test_a_text_of_the_prompt_is_not_learnt(tmp_path: Path, column: str, prompt: Prompt) -> None:
    with pytest.raises(InputError, match=rf"\[target\] column = '{column}' is also a text of the prompt"):
        load_examples([DataFile("any.tsv")], column, tmp_path, 1, prompt)


def test_one_file_is_split_into_training_and_dev_rows(tmp_path: Path) -> None:
    write(tmp_path, "".join(f"et-en\ta{i}\tb\t{i}\n" for i in range(1, 7)))

    def scores(first: int, last: int) -> list[float]:
        file = DataFile("t.tsv", first_row=first, last_row=last)
        return [example.score for example in load_examples([file], "mean", tmp_path, 1, ALOPE_PROMPT)[0]]

    assert scores(1, 4) == [1.0, 2.0, 3.0, 4.0]
    assert scores(5, 0) == [5.0, 6.0]
    with pytest.raises(InputError, match=r"t\.tsv: has 6 rows, first_row = 7; lower it"):
        scores(7, 0)
    with pytest.raises(InputError, match=r"t\.tsv: has 6 rows, last_row = 7; lower it"):
        scores(1, 7)
    with pytest.raises(InputError, match="rows 3 to 2: rows count from 1"):
        DataFile("t.tsv", first_row=3, last_row=2)
