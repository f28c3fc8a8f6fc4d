"""The two kinds of public quality-estimation files are told apart: unquoted MLQE-PE, CSV-quoted WMT 2023."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Literal

import pytest

from qe_edge.table.quoting import Quoting, decide
from qe_edge.table.records import plain_records, quoted_records
from qe_edge.table.text import Line, open_text

DATA = Path(__file__).parent / "data"
SAMPLES = sorted(DATA.glob("*.tsv"))
WRITERS: dict[str, Literal[0, 1, 2]] = {
    "minimal": csv.QUOTE_MINIMAL,
    "all": csv.QUOTE_ALL,
    "nonnumeric": csv.QUOTE_NONNUMERIC,
}

FULL = os.environ.get("QE_EDGE_MLQE_PE")
"""folder with the 21 files of MLQE-PE, for a check on all of them"""


def lines(text: str) -> list[Line]:
    return [Line(number, line.rstrip("\n"), "\n") for number, line in enumerate(io.StringIO(text, newline="\n"), 1)]


def cells_of(path: Path) -> list[list[str]]:
    """What a plain reader makes of an MLQE-PE file; written apart from the code under test."""
    return [line.split("\t") for line in path.read_bytes().decode().removesuffix("\n").split("\n")]


def written(rows: list[list[str]], quoting: Literal[0, 1, 2], end: str) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter="\t", lineterminator=end, quoting=quoting).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("rows", [1, 2, 10, None])
def test_mlqe_pe_is_unquoted(path: Path, rows: int | None) -> None:
    with open_text(str(path)) as text:
        sample = text.sample_lines()[: None if rows is None else rows + 1]
    assert decide(sample, header=True) is Quoting.NONE
    assert decide(sample[1:], header=False) is Quoting.NONE


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("final", [True, False], ids=["final newline", "no final newline"])
def test_the_same_rows_written_by_a_csv_writer_are_quoted_and_read_back(
    path: Path, writer: str, end: str, final: bool, tmp_path: Path
) -> None:
    rows = cells_of(path)
    content = written(rows, WRITERS[writer], end)
    quoted = tmp_path / "quoted.tsv"
    quoted.write_bytes((content if final else content.removesuffix(end)).encode())
    with open_text(str(quoted)) as text:
        assert decide(text.sample_lines(), header=True) is Quoting.CSV
        assert [record.cells for record in quoted_records(text.lines())] == rows


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_headerless_table_with_all_cells_quoted_is_quoted(path: Path) -> None:
    rows = [cells[1:3] for cells in cells_of(path)[1:]]
    assert decide(lines(written(rows, csv.QUOTE_ALL, "\n")), header=False) is Quoting.CSV


@pytest.mark.parametrize(
    ("text", "quoting"),
    [
        ("s\tt\na\tb\n", Quoting.NONE),  # no quote marks: both readings are the same
        ('"s"\t"t"\n"a"\t"b"\n', Quoting.CSV),  # a quoted header
        ('s\tt\n"say ""a"""\tb\n', Quoting.CSV),  # a doubled quote mark
        ('s\tt\n"a\tb"\tc\n', Quoting.CSV),  # a tab inside a cell
        ('s\tt\n"a\nb"\tc\n', Quoting.CSV),  # a line break inside a cell
        ('s\tt\n"Hello."\t"Tere."\n', Quoting.NONE),  # direct speech; a CSV writer needs no quotes here
        ('s\tt\n"Hello", he said.\tb\n', Quoting.NONE),  # text after the closing quote
        ('s\tt\n"Hello\tTere"\n', Quoting.NONE),  # quotes that would join two cells
        ('s\tt\n5" pipe\t5" toru\n', Quoting.NONE),
        ('s\tt\n"say ""a"""\tb\n"Hello", he said.\tc\n', Quoting.NONE),  # one for, one against
        ("s\tt\n" + '"say ""a"""\tb\n' * 20 + '"Hello", he said.\tc\n', Quoting.CSV),  # 20 for, one against
    ],
)
def test_the_rule_on_hand_written_tables(text: str, quoting: Quoting) -> None:
    assert decide(lines(text), header=True) is quoting


def test_direct_speech_on_both_sides_of_a_headerless_row_does_not_make_a_table_quoted() -> None:
    assert decide(lines('Tere\tHello\n"Jah!"\t"Yes!"\n'), header=False) is Quoting.NONE
    assert decide(lines('"Tere"\t"Hello"\n"Jah!"\t"Yes!"\n'), header=False) is Quoting.CSV


@pytest.mark.skipif(FULL is None, reason="set QE_EDGE_MLQE_PE to a folder with the files of MLQE-PE")
def test_all_files_of_mlqe_pe_are_unquoted_and_keep_their_rows() -> None:
    assert FULL is not None
    paths = sorted(Path(FULL).glob("*.tsv"))
    assert len(paths) == 21
    for path in paths:
        with open_text(str(path)) as text:
            assert decide(text.sample_lines(), header=True) is Quoting.NONE
            records = list(plain_records(text.lines()))
        assert len(records) - 1 == (7000 if path.name.startswith("train") else 1000)
        assert {len(record.cells) for record in records} == {len(records[0].cells)}
