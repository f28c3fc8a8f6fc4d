"""An input that fails or changes while it is read ends the run in one line, and never in a file that looks whole."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from qe_edge.cli import main
from qe_edge.rows import Row, Score, Status

TEXT = "Tere, maailm! " * 10
ROWS = 12_000
"""so many of these texts are more than is read ahead, 1 MiB"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be changed there")


class Disturbing:
    """A scorer that does something when it has scored 1000 rows."""

    signature = "fake"

    def __init__(self, disturb: Callable[[], None]) -> None:
        self.disturb = disturb

    def close(self) -> None:
        pass

    def score(self, rows: Iterable[Row]) -> Iterator[Score]:
        for number, row in enumerate(rows):
            if number == 1000:
                self.disturb()
            yield Score(None, Status.INVALID) if row.fault else Score(1.0, Status.OK)


@pytest.fixture(autouse=True)
def bundle(counting_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small bundle in place of the embedded one."""
    monkeypatch.setattr("qe_edge.commands.score.EMBEDDED_BUNDLE", counting_bundle)


def disturbed(monkeypatch: pytest.MonkeyPatch, disturb: Callable[[], None], *arguments: str) -> int:
    monkeypatch.setattr("qe_edge.commands.score.load_scorer", lambda *_: Disturbing(disturb))
    return main(["score", *arguments, "--lp", "et-en", "-q"])


def nothing() -> None:
    pass


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.tsv"
    path.write_text("source\tmt\n" + f"{TEXT}\tHello\n" * ROWS)
    return path


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100_000)


def grow(path: Path) -> None:
    with path.open("a") as stream:
        stream.write("Tere\tHello\n" * 10)


def replace(path: Path) -> None:
    new = path.with_name("new.tsv")
    new.write_text("source\tmt\nother\trows\n")
    new.replace(path)


@pytest.mark.parametrize("change", [shrink, grow, replace, Path.unlink])
def test_a_table_that_changes_gives_no_output_under_its_name(
    table: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = table.with_name("out.tsv")
    assert disturbed(monkeypatch, lambda: change(table), str(table), "-o", str(target)) == 3
    line = capsys.readouterr().err.splitlines()[-1]  # a row that was cut may have been said before
    assert line.startswith(f"qe-edge: error: {table}: changed while it was read: ")
    assert not target.exists()
    if table.exists():
        assert disturbed(monkeypatch, nothing, str(table), "-o", str(target)) == 3
        assert "use --restart" in capsys.readouterr().err
        assert disturbed(monkeypatch, nothing, str(table), "-o", str(target), "--restart") in (
            0,
            4,
        )  # perhaps a cut row
        assert len(target.read_text().splitlines()) == len(table.read_text().splitlines())


@pytest.mark.parametrize("change", [shrink, grow])
def test_one_of_two_aligned_files_that_changes_is_refused_without_a_traceback(
    tmp_path: Path,
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, translation = tmp_path / "src.txt", tmp_path / "mt.txt"
    for path in (source, translation):
        path.write_text(f"{TEXT}\n" * ROWS)
    arguments = ["-s", str(source), "-t", str(translation), "-o", str(tmp_path / "out.txt")]
    assert disturbed(monkeypatch, lambda: change(translation), *arguments) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qe-edge: error: {translation}: changed while it was read: ")
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc on this system")
def test_a_read_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert disturbed(monkeypatch, nothing, "/proc/self/mem") == 3
    assert capsys.readouterr().err == (
        "qe-edge: error: /proc/self/mem: reading failed (Input/output error); check the disk and try again\n"
    )


def test_a_directory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disturbed(monkeypatch, nothing, str(tmp_path)) == 3
    said = f"qe-edge: error: {tmp_path}: is a directory; give -o FOLDER as well, where its tables are to be written\n"
    assert capsys.readouterr().err == said


def test_a_pipe_whose_writer_ends_in_the_middle_of_a_row_gives_the_rows_that_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_text("source\tmt\nTere\tHello\nTe"))
    writer.start()
    assert disturbed(monkeypatch, nothing, str(fifo), "-o", str(tmp_path / "out.tsv")) == 4
    writer.join()
    assert (tmp_path / "out.tsv").read_text() == (
        "source\tmt\tqe_score\tqe_status\nTere\tHello\t1.0000\tok\nTe\t\t\tinvalid\n"
    )
    assert capsys.readouterr().err == f"{fifo}:3: 1 instead of 2 cells: 'Te'; check the tabs of this row\n"
