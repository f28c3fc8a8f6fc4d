"""`qe-edge score --cache` and `qe-edge cache`."""

from __future__ import annotations

from pathlib import Path

import pytest

import qe_edge
from qe_edge.bundle import open_bundle
from qe_edge.cli import main


def test_scores_come_from_the_cache_and_it_can_be_looked_at_and_emptied(
    counting_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, cache = tmp_path / "in.tsv", tmp_path / "cache.db"
    table.write_text("source\ttranslation\na\tb\nc d\te\n\tf\n")
    arguments = ["score", str(table), "--lp", "et-en", "-m", str(counting_bundle), "--cache", str(cache), "-q"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert main(arguments) == 0
    assert capsys.readouterr().out == first

    assert main(["cache", "info", str(cache)]) == 0
    bundle = open_bundle(counting_bundle)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"qe-edge {qe_edge.__version__} tiny@{bundle.digest} cpu: 2 scores"
    assert said[1].startswith("2 scores, ")
    assert main(["cache", "clear", str(cache)]) == 0
    assert capsys.readouterr().out == "2 scores removed\n"


def test_a_file_that_is_no_cache_ends_the_run_before_anything_is_scored(
    counting_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "in.tsv"
    table.write_text("source\ttranslation\na\tb\n")
    arguments = ["score", str(table), "-o", str(tmp_path / "out.tsv"), "--lp", "et-en", "-m", str(counting_bundle)]
    assert main([*arguments, "--cache", str(table)]) == 5
    assert not (tmp_path / "out.tsv").exists()
    assert "cannot be used as a score cache" in capsys.readouterr().err
    assert main(["cache", "info", str(tmp_path / "none")]) == 5
    assert "no such score cache" in capsys.readouterr().err
