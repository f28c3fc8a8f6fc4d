"""`qe-edge score`: rows in, rows out, and what is said about it."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pytest

from qe_edge.cli import main

pytestmark = pytest.mark.usefixtures("counting_scorer")

TABLE = "id\tsource\tmt\tnote\n1\tTere, maailm!\tHello, world!\t\n2\tjah\tyes\t\n3\t\tno\tx\n4\tei\t \t\n"
SCORED = (
    "id\tsource\tmt\tnote\tqe_score\tqe_status\n"
    "1\tTere, maailm!\tHello, world!\t\t13.0000\tok\n"
    "2\tjah\tyes\t\t3.0000\tok\n"
    "3\t\tno\tx\t\tempty_source\n"
    "4\tei\t \t\t\tempty_translation\n"
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.tsv"
    path.write_text(TABLE)
    return path


def test_a_table_is_written_to_standard_output_with_two_more_columns(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(table), "--lp", "et-en"]) == 0
    assert capsys.readouterr().out == SCORED


@pytest.mark.parametrize("flag", ["-o", "--output"])
def test_a_table_is_written_to_a_file(table: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = table.with_name("out.tsv")
    assert main(["score", str(table), "--lp", "et-en", flag, str(target)]) == 0
    assert target.read_text() == SCORED
    assert capsys.readouterr().out == ""


def test_standard_input_is_scored(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TABLE.encode())))
    assert main(["score", "-", "--lp", "et-en", "-o", "-"]) == 0
    assert capsys.readouterr().out == SCORED


def test_the_summary_is_signature_then_reading_then_counts(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["score", str(table), "--lp", "et-en"])
    *lines, last = capsys.readouterr().err.splitlines()
    assert lines == [
        "qe-edge 0.1.0 | bundle fake@0123456789ab | TL-11 | w8a8 | cpu",
        "read as unquoted TSV (decided from its start; override with --quoting)",
        "4 columns: source 'source', translation 'mt'",
        "languages: et -> en from --lp",
    ]
    assert last.startswith("4 rows in ")
    assert last.endswith(": 2 ok, 1 empty_translation, 1 empty_source")


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_says_nothing_when_nothing_is_wrong(table: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(table), "--lp", "et-en", flag]) == 0
    assert capsys.readouterr().err == ""


def test_detected_languages_are_said_even_when_quiet(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split("\t")[1:] for line in sample.read_text().splitlines() if line.startswith(("lp", "ro-en"))]
    source = "\n".join("\t".join(row) for row in rows) + "\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.encode())))
        assert main(["score", "-", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "languages detected: ro -> en from 4 rows (75 % agree); override with --lp\n"
    assert [line.rpartition("\t")[2] for line in captured.out.splitlines()[1:]] == ["ok"] * 4


def test_the_languages_of_a_column_are_used(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(sample)]) == 0
    captured = capsys.readouterr()
    assert "languages: column 'lp' of each row" in captured.err.splitlines()
    before = sample.read_text().splitlines()
    after = captured.out.splitlines()
    assert len(after) == len(before) == 29
    for row, scored in zip(before[1:], after[1:], strict=True):
        translation = row.split("\t")[2]
        assert scored == f"{row}\t{len(translation):.4f}\tok"


@pytest.mark.parametrize(("told", "score"), [("auto", "7.0000"), ("csv", "7.0000"), ("none", "11.0000")])
def test_quoting_is_decided_or_told(tmp_path: Path, told: str, score: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "quoted.tsv"
    path.write_text('src\tmt\nTere\t"say ""a"""\n')
    assert main(["score", str(path), "--lp", "et-en", "--quoting", told]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f'Tere\t"say ""a"""\t{score}\tok'


def test_a_table_without_a_header_is_scored_by_column_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.tsv"
    path.write_text("Hello\tTere\n")
    assert main(["score", str(path), "--lp", "et-en", "--fields", "2,1"]) == 0
    assert capsys.readouterr().out == "Hello\tTere\t5.0000\tok\n"


@pytest.mark.parametrize("flags", [("-s", "-t"), ("--sources", "--translations")])
def test_two_aligned_files_give_one_score_a_line(
    tmp_path: Path, flags: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "src.txt").write_text("Tere\n\njah\n")
    (tmp_path / "mt.txt").write_text("Hello\nempty\nyes\n")
    arguments = [flags[0], f"{tmp_path}/src.txt", flags[1], f"{tmp_path}/mt.txt", "--lp", "et-en"]
    assert main(["score", *arguments]) == 0
    assert capsys.readouterr().out == "5.0000\n\n3.0000\n"


def test_aligned_files_of_different_length_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src.txt").write_text("Tere\njah\n")
    (tmp_path / "mt.txt").write_text("Hello\n")
    arguments = ["-s", f"{tmp_path}/src.txt", "-t", f"{tmp_path}/mt.txt", "--lp", "et-en"]
    assert main(["score", *arguments]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"qe-edge: error: {tmp_path}/src.txt has 2 lines, {tmp_path}/mt.txt has 1; "
        "line n of one must be the translation of line n of the other\n"
    )
    assert main(["score", *arguments, "-o", f"{tmp_path}/out.txt"]) == 3
    assert not (tmp_path / "out.txt").exists()


LONG = "src\tmt\nTere\tHello\nlong story\tlong tale\njah\tyes\n"


@pytest.mark.parametrize(("choice", "cell"), [("score", "9.0000"), ("skip", "")])
def test_truncated_rows_are_scored_or_skipped(
    tmp_path: Path, choice: str, cell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "long.tsv").write_text(LONG)
    assert main(["score", f"{tmp_path}/long.tsv", "--lp", "et-en", "--on-truncate", choice]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"long story\tlong tale\t{cell}\ttruncated",
        "jah\tyes\t3.0000\tok",
    ]


def test_a_truncated_row_can_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.tsv").write_text(LONG)
    arguments = ["score", f"{tmp_path}/long.tsv", "--lp", "et-en", "--on-truncate", "fail", "-q"]
    assert main([*arguments, "-o", f"{tmp_path}/out.tsv"]) == 3
    assert capsys.readouterr().err == (
        f"qe-edge: error: {tmp_path}/long.tsv:3: 10 + 9 characters are too long for the model; "
        "shorten the row, or use --on-truncate score or skip\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["long.tsv"]


def test_rows_of_many_windows_keep_their_order_and_a_csv_reader_reads_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [[str(n), f'say "{n}"', "x" * (n % 7 + 1) + "\ty"] for n in range(1000)]
    with (tmp_path / "many.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\r\n").writerows([["id", "src", "mt"], *rows])
    assert main(["score", f"{tmp_path}/many.tsv", "--lp", "et-en"]) == 0
    out = capsys.readouterr().out
    assert list(csv.reader(io.StringIO(out, newline=""), delimiter="\t", strict=True))[1:] == [
        [*row, f"{len(row[2])}.0000", "ok"] for row in rows
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to score; give FILE.tsv"),
        (["-s", "src.txt"], "nothing to score; give FILE.tsv"),
        (["f.tsv", "-s", "src.txt"], "f.tsv: give either a table or --sources and --translations"),
        (["-s", "a", "-t", "b", "--fields", "1,2"], "--fields and --quoting are for tables"),
        (["-s", "a", "-t", "b", "--quoting", "csv"], "--fields and --quoting are for tables"),
        (["f.tsv", "--fields", "1"], "--fields 1: give the numbers of the source and the translation column"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qe-edge: error: {message}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["", "-o", "{folder}/out"], "FILE is empty"),
        (["{table}", "-o", " "], "-o is empty"),
        (["-s", "", "-t", "{table}"], "--sources is empty"),
        (["{table}", "--restart"], "--restart is for an output"),
        (["{table}", "--cache", "{folder}/one", "-o", "{folder}/./one"], "give the cache another name"),
        (["{table}", "--cache", "{folder}/.one.part", "-o", "{folder}/one"], "give the cache another name"),
        (["{table}", "-o", "{folder}/out.tsv.gz"], "the output is not compressed"),
        (["-s", "{table}", "-t", "{table}", "-o", "{folder}/al.gz"], "the output is not compressed"),
        (["-s", "{table}", "-t", "{table}", "-o", "{folder}/al.parquet"], "the output is text, a score a line"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(
    table: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(table.parent.iterdir())
    assert main(["score", *(option.format(table=table, folder=table.parent) for option in options)]) == 2
    assert said in capsys.readouterr().err
    assert sorted(table.parent.iterdir()) == before


@pytest.mark.parametrize("linked", [False, True], ids=["folder", "link to it"])
@pytest.mark.parametrize("engine", ["process", "ray"])
@pytest.mark.parametrize(
    "name", ["a.tsv", ".a.tsv.done", ".a.tsv.part", ".a.tsv.journal", ".a.tsv.lock", "lower/b.tsv"]
)
def test_a_cache_that_an_output_of_a_folder_would_overwrite_is_refused(
    tmp_path: Path, name: str, engine: str, linked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for table in (tmp_path / "in" / "a.tsv", tmp_path / "in" / "lower" / "b.tsv"):
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(TABLE)
    (tmp_path / "out" / "lower").mkdir(parents=True)
    if linked:
        (tmp_path / "link").symlink_to(tmp_path / "out")
    cache = tmp_path / ("link" if linked else "out") / name
    cache.write_text("scores of before")
    arguments = [f"{tmp_path}/in", "-o", f"{tmp_path}/out", "--cache", str(cache), "--engine", engine]

    assert main(["score", *arguments, "--lp", "et-en"]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qe-edge: error: --cache {cache}: is the output {tmp_path}/out/")
    assert line.endswith(" or a hidden file beside it; give the cache another name")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [tmp_path / "out" / name]
    assert cache.read_text() == "scores of before"


def test_a_name_that_is_too_long_is_one_line(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["x" * 300], ["-s", "x" * 300, "-t", str(table)]):
        assert main(["score", *options]) == 3
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "a", "-t", "b"], "--sources and --translations are for translations; this bundle reads text: "),
        (["{table}", "--lp", "et-en"], "--lp et-en: the prompt of this bundle names no language; "),
        (["{table}", "--fields", "1,2"], "--fields 1,2: give the number of the text column, "),
    ],
)
def test_options_for_translations_are_refused_for_other_texts(
    arguments: list[str], message: str, table: Path, text_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text("text\na\n")
    given = [str(table) if argument == "{table}" else argument for argument in arguments]
    assert main(["score", *given, "-m", str(text_bundle)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qe-edge: error: {message}")


def test_the_columns_are_those_of_the_bundle(
    table: Path, text_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(table), "-m", str(text_bundle)]) == 3
    assert capsys.readouterr().err.startswith(f"qe-edge: error: {table}:1: no text column among 'id', 'source', ")
