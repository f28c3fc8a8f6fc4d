"""`qe-edge bench`: figures of a real bundle, and what it refuses."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from qe_edge.bench import measure, peak
from qe_edge.bench.operators import INT8_PRODUCTS
from qe_edge.cli import main
from qe_edge.scoring.tuning import load_tuning


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peak that is measured for a moment only."""
    monkeypatch.setattr(peak.matrix_peak, "__defaults__", (0.01,))


def test_the_figures_of_the_embedded_bundle_fit_together(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "embedded", str(sample), "--rows", "6", "--rounds", "1", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["workers"]) == (6, 1)
    assert found["tokens_per_second"] / found["tokens"] == pytest.approx(found["graph_rows_per_second"] / 6)
    assert found["graph_share"] == pytest.approx(found["rows_per_second"] / found["graph_rows_per_second"])
    assert found["int8_share"] == pytest.approx(found["int8_operations"] / found["int8_peak"])
    assert found["matrix_share"] == pytest.approx(found["int8_share"] + found["float_share"])
    assert 100 < found["peak_memory_mb"] < 10_000
    assert found["operators"][0]["name"] in INT8_PRODUCTS


def test_the_text_names_bundle_machine_and_operators(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "embedded", str(sample), "--rows", "3", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "TL-11 | w8a8 | cpu" in out
    for label in ("machine", "table to table", "graph alone", "int8 products", "together", "peak memory", "Attention"):
        assert f"\n{label}" in out


def test_tune_keeps_what_it_found_beside_the_bundle(
    counting_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("source\ttranslation\n" + "".join(f"a {i}\tb\n" for i in range(20)))
    assert main(["bench", str(counting_bundle), str(table), "--lp", "et-en", "--rounds", "1", "--tune"]) == 0
    tuning = load_tuning(counting_bundle)
    assert tuning is not None
    captured = capsys.readouterr()
    assert f"settings          {tuning.workers} workers, {tuning.token_budget} tokens a batch" in captured.out
    assert f"counting.tuning.json: {tuning.workers} workers" in captured.err


def test_standard_input_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "embedded", "-"]) == 2
    assert "-: bench reads its rows several times; give it a file, not standard input" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_pipe_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.tsv")
    assert main(["bench", "embedded", f"{tmp_path}/pipe.tsv"]) == 2
    assert capsys.readouterr().err == (
        f"qe-edge: error: {tmp_path}/pipe.tsv: bench reads its rows several times; "
        "give it a file, not standard input or a pipe\n"
    )


@pytest.mark.parametrize("name", ["x" * 300, "missing.tsv"])
def test_a_file_that_cannot_be_opened_is_one_line(
    name: str, counting_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(counting_bundle), name]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_tables_of_other_kinds_are_read(
    counting_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text("".join(f'{{"source": "a {i}", "mt": "b"}}\n' for i in range(20)))
    options = ["--lp", "et-en", "--rows", "5", "--rounds", "1", "--threads", "1", "--tune"]
    assert main(["bench", str(counting_bundle), str(table), *options]) == 0
    assert "\nrows              5 distinct" in capsys.readouterr().out


def test_a_table_without_a_header_is_read_as_its_message_says(
    counting_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("b\ta 1\nb\ta 2\n")
    options = ["--lp", "et-en", "--rounds", "1"]
    assert main(["bench", str(counting_bundle), str(table), *options]) == 3
    assert "or give --fields SOURCE,TRANSLATION (numbers)" in capsys.readouterr().err
    assert main(["bench", str(counting_bundle), str(table), *options, "--fields", "2,1"]) == 0
    assert "\nrows              2 distinct" in capsys.readouterr().out


def test_more_workers_than_cores_have_the_peak_of_the_cores(
    counting_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "physical_cores", lambda: 2)
    monkeypatch.setattr(measure, "matrix_peak", lambda kind, workers: 100.0 * workers)
    table = tmp_path / "table.tsv"
    table.write_text("source\ttranslation\na\tb\n")
    options = ["--lp", "et-en", "--rounds", "1", "--json"]
    for threads, peaks in (("1", 100), ("5", 200)):
        assert main(["bench", str(counting_bundle), str(table), *options, "--threads", threads]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["int8_peak"], found["float_peak"]) == (peaks, peaks)


def test_a_table_without_a_row_to_score_is_refused(
    counting_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("source\ttranslation\n\tb\n")
    for options in ([], ["--tune"]):
        assert main(["bench", str(counting_bundle), str(table), "--lp", "et-en", *options]) == 3
        assert "no row of the table can be scored; give a table with some" in capsys.readouterr().err
