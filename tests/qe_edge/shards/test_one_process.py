"""A folder in one process: finished shards are left alone, others are continued, and no two runs are mixed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyarrow import parquet

from qe_edge.cli import main
from tests.qe_edge.shards.conftest import command, contents, run, write_folder, write_tsv

AS_ANYBODY = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    if sys.platform == "linux" and os.geteuid() == 0
    else []
)
"""before a command: permissions of files hold for it, whoever runs the tests"""


def score(folder: Path, target: Path, bundle: Path, *options: str) -> int:
    return main(["score", str(folder), "-o", str(target), "-m", str(bundle), "--lp", "et-en", *options])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", 20)


def test_each_table_comes_out_as_if_it_had_been_scored_alone(
    folder: Path, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    assert score(folder, target, bundle) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in said[1:-1]] == ["a.tsv", "b.tsv", "d.parquet", "deeper/c.jsonl"]
    assert said[-1].startswith("4 of 4 tables, 80 rows: ")
    alone = tmp_path / "alone"
    alone.mkdir()
    for name, content in contents(target).items():
        one = alone / Path(name).name
        assert main(["score", str(folder / name), "-o", str(one), "-m", str(bundle), "--lp", "et-en"]) == 0
        assert one.read_bytes() == content
    assert set(contents(target)) == set(contents(folder))


def test_a_cache_may_lie_in_the_folder_of_the_outputs(folder: Path, tmp_path: Path, bundle: Path) -> None:
    cache = tmp_path / "out" / "scores.db"
    cache.parent.mkdir()
    assert score(folder, tmp_path / "out", bundle, "--cache", str(cache)) == 0
    assert main(["cache", "info", str(cache)]) == 0


def test_the_three_kinds_say_the_same(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tsv").write_text("source\tmt\nTere sina\tHello\n\tx\n")
    (tmp_path / "in" / "b.jsonl").write_text('{"source": "Tere sina", "mt": "Hello"}\n{"source": null, "mt": "x"}\n')
    import pyarrow as pa

    table = pa.table({"source": ["Tere sina", None], "mt": ["Hello", "x"]})
    parquet.write_table(table, tmp_path / "in" / "c.parquet")
    assert score(tmp_path / "in", tmp_path / "out", bundle, "-q") == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "out" / "a.tsv").read_text().splitlines()[1:] == [
        "Tere sina\tHello\t8.0000\tok",
        "\tx\t\tempty_source",
    ]
    assert (tmp_path / "out" / "b.jsonl").read_text().splitlines() == [
        '{"source": "Tere sina", "mt": "Hello", "qe_score": 8.0000, "qe_status": "ok"}',
        '{"source": null, "mt": "x", "qe_score": null, "qe_status": "empty_source"}',
    ]
    assert parquet.read_table(tmp_path / "out" / "c.parquet").select(["qe_score", "qe_status"]).to_pylist() == [
        {"qe_score": 8.0, "qe_status": "ok"},
        {"qe_score": None, "qe_status": "empty_source"},
    ]


def test_a_bad_table_is_named_and_the_others_are_finished_then_mended_it_is_scored(
    folder: Path, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (folder / "b.tsv").read_bytes()
    (folder / "b.tsv").write_text("no\tsuch\tcolumns\n1\t2\t3\n")
    assert score(folder, tmp_path / "out", bundle) == 3
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"b.tsv: not finished: {folder}/b.tsv:1: no source column among") for line in said)
    assert said[-2].startswith("3 of 4 tables, 60 rows: ")
    assert said[-1].startswith(f"qe-edge: error: 1 of 4 tables could not be scored; the first: {folder}/b.tsv:1: ")
    assert set(contents(tmp_path / "out")) == {"a.tsv", "d.parquet", "deeper/c.jsonl"}

    (folder / "b.tsv").write_bytes(good)
    assert score(folder, tmp_path / "out", bundle) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.endswith("20 rows, finished before")] == [
        f"{name}: 20 rows, finished before" for name in ("a.tsv", "d.parquet", "deeper/c.jsonl")
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and permissions of POSIX")
def test_what_cannot_be_read_is_named_and_the_others_are_finished(folder: Path, tmp_path: Path, bundle: Path) -> None:
    (folder / "dangling.tsv").symlink_to(tmp_path / "nothing.tsv")
    (folder / "loop.tsv").symlink_to("loop.tsv")
    os.mkfifo(folder / "pipe.tsv")
    (folder / "locked").mkdir(mode=0)
    done = run(*AS_ANYBODY, *command(folder, tmp_path / "out", bundle))
    (folder / "locked").chmod(0o700)
    assert done.returncode == 3, done.stderr
    *said, total, last = done.stderr.splitlines()
    assert total.startswith("4 of 8 tables, 80 rows: ")
    assert last.startswith("qe-edge: error: 4 of 8 tables could not be scored; the first: ")
    failed = [line for line in said if "not finished" in line]
    assert failed == [
        f"dangling.tsv: not finished: {folder}/dangling.tsv: cannot be read (No such file or directory); check it",
        f"locked: not finished: {folder}/locked: cannot be looked into (Permission denied); check its permissions",
        f"loop.tsv: not finished: {folder}/loop.tsv: cannot be read (Too many levels of symbolic links); check it",
        f"pipe.tsv: not finished: {folder}/pipe.tsv: is no file that can be read again; put one in its place, "
        "or remove it",
    ]
    assert set(contents(tmp_path / "out")) == {"a.tsv", "b.tsv", "d.parquet", "deeper/c.jsonl"}


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize(
    ("locked", "code", "said"),
    [
        ("in", 3, "in: cannot be read (Permission denied); check its permissions"),
        ("out", 5, "cannot be written (Permission denied); check the folder"),
    ],
)
def test_folders_without_permission_are_one_line(
    folder: Path, tmp_path: Path, bundle: Path, locked: str, code: int, said: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / locked).chmod(0)
    done = run(*AS_ANYBODY, *command(folder, tmp_path / "out" / "below", bundle, "-q"))
    (tmp_path / locked).chmod(0o700)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert said in done.stderr


def test_an_output_whose_name_is_too_long_is_one_line(
    folder: Path, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(folder, tmp_path / ("x" * 300), bundle) == 5
    (tmp_path / "in" / f"{'y' * 250}.tsv").write_bytes((folder / "a.tsv").read_bytes())
    assert score(folder, tmp_path / "out", bundle) == 5
    for line in capsys.readouterr().err.splitlines():
        assert "cannot be written (File name too long); check the folder" in line


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_restart_leaves_a_run_alone_that_goes_on(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_tsv(folder / "a.tsv", 3)
    write_tsv(folder / "b.tsv", 20_000)
    process = subprocess.Popen(command(folder, target, bundle), stderr=subprocess.DEVNULL)
    while process.poll() is None and not (target / ".b.tsv.journal").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    try:
        assert process.poll() is None, "it had finished before its journal was seen"
        left = {".a.tsv.done", ".b.tsv.part", ".b.tsv.journal", ".b.tsv.lock"}
        assert left <= {path.name for path in target.iterdir()}
        assert score(folder, target, bundle, "--restart") == 5
        said = f"qe-edge: error: {target}/b.tsv: another run is writing it; wait for that one, or give another -o\n"
        assert capsys.readouterr().err == said
        assert left <= {path.name for path in target.iterdir()}
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert len((target / "b.tsv").read_text().splitlines()) == 20_001


def test_another_run_is_refused_before_anything_is_scored_unless_it_restarts(
    folder: Path, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    assert score(folder, target, bundle) == 0
    (target / "b.tsv").unlink()
    before = contents(target)
    assert score(folder, target, bundle, "--on-truncate", "skip") == 3
    assert f"{target}/a.tsv: another run has finished it: options " in capsys.readouterr().err
    assert contents(target) == before
    assert score(folder, target, bundle, "--on-truncate", "skip", "--restart") == 0
    assert set(contents(target)) == {*before, "b.tsv"}


def test_a_table_that_changed_is_refused_until_its_output_is_removed(
    folder: Path, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    assert score(folder, target, bundle) == 0
    write_tsv(folder / "a.tsv", 30)
    assert score(folder, target, bundle) == 3
    assert f"{target}/a.tsv: another run has finished it: inputs " in capsys.readouterr().err
    (target / "a.tsv").unlink()
    assert score(folder, target, bundle) == 0
    assert len((target / "a.tsv").read_text().splitlines()) == 31


def test_invalid_rows_are_told_below_their_table(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tsv").write_text("source\tmt\nTere\tHello\nTere\n")
    assert score(tmp_path / "in", tmp_path / "out", bundle, "-q") == 4
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("a.tsv: 2 rows in ")
    assert second.startswith(f"  {tmp_path}/in/a.tsv:3: 1 instead of 2 cells")


def test_options_of_ray_are_for_folders_only(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tsv(tmp_path / "a.tsv", 3)
    assert score(tmp_path / "a.tsv", tmp_path / "b.tsv", bundle, "--engine", "ray") == 2
    assert "--engine ray is for folders of tables" in capsys.readouterr().err
    for options in (["--workers", "2"], ["--address", "host:6379"]):
        assert score(tmp_path, tmp_path / "b", bundle, *options) == 2
        assert "--workers and --address are for --engine ray" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.tsv", "deeper/c.jsonl", "d.parquet"])
def test_a_killed_run_is_continued_in_the_middle_of_a_table(tmp_path: Path, bundle: Path, name: str) -> None:
    folder, target, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    write_folder(tmp_path / "all", 3000)
    folder.mkdir()
    (tmp_path / "all" / name).rename(folder / Path(name).name)
    process = subprocess.Popen(command(folder, target, bundle), stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(target.glob(".*.journal")):
        time.sleep(0.001)
    process.kill()
    assert process.wait() < 0, "it had finished before its journal was seen"
    assert contents(target) == {}

    done = run(*command(folder, target, bundle))
    assert done.returncode == 0, done.stderr
    assert "  continuing after " in done.stderr
    assert run(*command(folder, whole, bundle)).returncode == 0
    assert contents(target) == contents(whole)
    assert {path.suffix for path in target.glob(".*")} <= {".done", ".lock"}


def test_files_that_are_no_tables_by_their_names_are_named(
    folder: Path, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "e.tsv.gz").write_bytes(b"")
    (folder / "deeper" / "f.csv").write_bytes(b"")
    assert score(folder, tmp_path / "out", bundle) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[1] == "left out, by the ends of their names: 'deeper/f.csv', 'e.tsv.gz'"
