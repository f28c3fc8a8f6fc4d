"""Parquet in, the same Parquet with two more columns out, in little memory."""

from __future__ import annotations

import io
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from qe_edge.errors import InputError, MissingExtraError
from qe_edge.rows import Row, Score, Status
from qe_edge.table import parquet as module
from qe_edge.table.items import Item
from qe_edge.table.output import open_output
from qe_edge.table.parquet import open_parquet
from qe_edge.table.report import Report
from qe_edge.table.stream import OnTruncate, score_input


class LengthScorer:
    """Scores a row with a third of the length of its second text."""

    signature = "test"

    def close(self) -> None:
        pass

    def score(self, rows: Any) -> Any:
        for row in rows:
            yield self.one(row)

    def one(self, row: Row) -> Score:
        if row.fault is not None:
            return Score(None, Status.INVALID)
        if not row.texts[1]:
            return Score(None, Status.EMPTY_TRANSLATION)
        return Score(len(row.texts[1]) / 3, Status.OK)


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pa.table(columns), path, **options)
    return path


def texts(count: int) -> dict[str, Any]:
    return {"src": [f"Tere {row}" for row in range(count)], "mt": ["x" * (row % 7 + 1) for row in range(count)]}


def items(path: Path, lp: str | None = "et-en") -> list[Item]:
    with open_parquet(str(path), lp=lp) as source:
        return list(source.items)


def score(source: Path, target: Path) -> None:
    with (
        open_parquet(str(source), lp="et-en") as table,
        open_output(str(target), [str(source)], finish=table.finish) as output,
    ):
        score_input(table, LengthScorer(), output, OnTruncate.SCORE, Report(io.StringIO(), quiet=True))


def test_other_columns_keep_their_types_values_and_metadata(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            pa.field("src", pa.string(), nullable=False, metadata={"note": "original"}),
            pa.field("mt", pa.dictionary(pa.int8(), pa.string())),
            ("id", pa.uint32()),
            ("when", pa.timestamp("ns", tz="UTC")),
            ("price", pa.decimal128(9, 2)),
            ("raw", pa.large_binary()),
            ("tags", pa.list_(pa.struct([("name", pa.string()), ("weight", pa.float32())]))),
        ],
        metadata={"made by": "a test"},
    )
    count = 300
    rows = [
        {
            "src": f"s{row}",
            "mt": ["yes", "no", None][row % 3],
            "id": row,
            "when": datetime(2026, 1, 1 + row % 28),
            "raw": bytes([row % 256]),
            "tags": [{"name": "a", "weight": row / 2}] * (row % 3),
        }
        for row in range(count)
    ]
    parquet.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "in.parquet", row_group_size=100)
    score(tmp_path / "in.parquet", tmp_path / "out.parquet")

    before, after = (parquet.read_table(tmp_path / name) for name in ("in.parquet", "out.parquet"))
    assert after.schema.names == [*schema.names, "qe_score", "qe_status"]
    assert after.select(schema.names).schema.equals(before.schema, check_metadata=True)
    assert after.select(schema.names).equals(before)
    assert after.column("qe_score").type == pa.float64()
    assert after.column("qe_score").to_pylist() == [[1.0, 0.6667, None][row % 3] for row in range(count)]
    assert after.column("qe_status").to_pylist() == [["ok", "ok", "empty_translation"][row % 3] for row in range(count)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_every_kind_of_string_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    mt = pa.array(["Hello", None, "a longer translation than that"], kind)
    source = write(tmp_path / "in.parquet", {"src": ["a", "b", "c"], "mt": mt})
    assert [item.row.texts[1] for item in items(source)] == ["Hello", "", "a longer translation than that"]
    score(source, tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet").column("mt").combine_chunks().equals(mt)


@pytest.mark.parametrize(
    "compression", ["none", "snappy", "zstd", "gzip", {"src": "gzip", "mt": "zstd"}], ids=lambda value: str(value)
)
def test_row_groups_and_compression_stay(tmp_path: Path, compression: Any) -> None:
    source = write(tmp_path / "in.parquet", texts(250), compression=compression, row_group_size=100)
    score(source, tmp_path / "out.parquet")
    before, after = (parquet.read_metadata(path) for path in (source, tmp_path / "out.parquet"))
    assert [after.row_group(at).num_rows for at in range(3)] == [100, 100, 50]
    codecs = [before.row_group(0).column(at).compression for at in range(2)]
    assert [after.row_group(0).column(at).compression for at in range(4)] == [*codecs, codecs[0], codecs[0]]


def test_a_large_row_group_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", 128)
    score(write(tmp_path / "in.parquet", texts(250)), tmp_path / "out.parquet")
    after = parquet.read_table(tmp_path / "out.parquet")
    assert parquet.read_metadata(tmp_path / "out.parquet").num_row_groups == 2
    assert after.column("src").to_pylist() == texts(250)["src"]


def test_a_small_file_of_large_texts_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", 1 << 20)
    one = "c" * 10_000  # stored once for all rows, and as often as there are rows once it is read
    source = write(tmp_path / "in.parquet", texts(1000) | {"note": [one] * 1000})
    score(source, tmp_path / "out.parquet")
    after = parquet.read_metadata(tmp_path / "out.parquet")
    assert source.stat().st_size < 100_000
    assert all(after.row_group(at).num_rows <= 128 for at in range(after.num_row_groups))
    assert parquet.read_table(tmp_path / "out.parquet").column("note").to_pylist() == [one] * 1000


def test_a_dictionary_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", 1 << 20)
    words = pa.array([f"{number:05d}" * 20 for number in range(2000)])  # 200 kB, in each batch
    note = pa.DictionaryArray.from_arrays(pa.array(list(range(1000)), pa.int32()), words)
    source = write(tmp_path / "in.parquet", texts(1000) | {"note": note})
    score(source, tmp_path / "out.parquet")
    after = parquet.read_table(tmp_path / "out.parquet")
    assert parquet.read_metadata(tmp_path / "out.parquet").num_row_groups == 1
    assert after.column("note").to_pylist() == note.to_pylist()
    assert after.schema.field("note").type == note.type


def test_nothing_else_is_left_and_a_second_run_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", texts(250))
    score(source, tmp_path / "out.parquet")
    (tmp_path / "again.parquet").touch(0o600)
    score(source, tmp_path / "again.parquet")
    if os.name == "posix":
        assert (tmp_path / "again.parquet").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "out.parquet", "again.parquet"}


def test_a_failure_of_the_last_step_leaves_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(lines: list[str]) -> list[pa.Array]:
        raise MemoryError

    monkeypatch.setattr(module, "_score_arrays", fails)
    source = write(tmp_path / "in.parquet", texts(10))
    with pytest.raises(MemoryError):
        score(source, tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_a_null_is_an_empty_cell(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", {"src": pa.array([None, "b"], pa.string()), "mt": pa.nulls(2)})
    assert [item.row.texts for item in items(path)] == [("", ""), ("b", "")]


def test_rows_have_numbers_and_languages_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", texts(3) | {"lp": ["et-en", None, "ro-en"]})
    first, second, third = items(path, lp=None)
    assert (first.place, first.row.pair, third.row.pair) == (f"{path}:row 1", "et-en", "ro-en")
    assert second.row.fault is not None


@pytest.mark.parametrize("names", [["lp"], ["lp", "lp"], ["src_lang", "src_lang"], ["LP", "lp"]], ids="-".join)
def test_language_columns_may_be_anything_where_the_languages_are_told(tmp_path: Path, names: list[str]) -> None:
    texts = [pa.array(["a", "b"]), pa.array(["Hello", "x"])]
    table = pa.Table.from_arrays([*texts, *[pa.array([1, 2])] * len(names)], names=["src", "mt", *names])
    parquet.write_table(table, tmp_path / "in.parquet")
    with open_parquet(str(tmp_path / "in.parquet"), lp="et-en") as source:
        assert f"which overrides column {names[0]!r}" in source.said[-1]
        assert [(item.row.fault, item.row.pair) for item in source.items] == [(None, "et-en")] * 2
    score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    after = parquet.ParquetFile(tmp_path / "out.parquet").read()  # which allows for names that occur twice
    assert after.column_names == ["src", "mt", *names, "qe_score", "qe_status"]
    assert after.column("qe_status").to_pylist() == ["ok", "ok"]
    assert [after.column(2 + at).to_pylist() for at in range(len(names))] == [[1, 2]] * len(names)


def test_bytes_that_are_no_text_are_a_fault_of_their_row(tmp_path: Path) -> None:
    broken = pa.array([b"caf\xe9", b"ok", b"a\0b"], pa.binary()).view(pa.string())
    path = write(tmp_path / "in.parquet", {"src": ["a", "b", "c"], "mt": broken})
    faults = [item.row.fault for item in items(path)]
    assert faults[0] is not None
    assert faults[0].startswith("column 'mt': not valid UTF-8: byte 0xe9 after 'caf'")
    assert faults[1] is None
    assert faults[2] == "column 'mt': NUL byte after 'a'; remove it"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"src": ["a"], "mt": [1]}, r"column 'mt' is int64; its type must be string: convert it$"),
        ({"src": [b"a"], "mt": ["b"]}, r"column 'src' is binary; its type must be string"),
        (
            {"src": ["a"], "x": ["b"]},
            r"no translation column among 'src', 'x'; name it translation, mt, target, hypothesis or hyp$",
        ),
        ({"src": ["a"], "mt": ["b"], "qe_score": [1.0]}, r"column 'qe_score' is there already"),
        ({"src": pa.array([], pa.string()), "mt": pa.array([], pa.string())}, r"columns and no rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        items(write(tmp_path / "in.parquet", columns))


def test_a_file_that_is_no_parquet_and_a_damaged_one_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    path.write_text("src\tmt\nTere\tHello\n")
    with pytest.raises(InputError, match=r"in\.parquet: not a Parquet file \(.*\); check the file$") as caught:
        items(path)
    assert "\n" not in str(caught.value)
    content = bytearray(write(path, texts(5000), compression="zstd").read_bytes())
    content[200:3000] = bytes(2800)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"in\.parquet: reading failed \(.*\); the file may be damaged$"):
        items(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qe_edge.commands.extras.find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=r"needs pyarrow.*qe-edge\[parquet\]"), open_parquet("in.parquet"):
        pass
