"""A run ends in one line and the right code where memory, a worker, a folder or a standard stream fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from qe_edge.cli import main
from qe_edge.rows import Row, Score, Status
from qe_edge.scoring.graph import Graph, Past
from qe_edge.table import output as output_module


class Failing:
    """A scorer that does something when it has scored 300 rows."""

    signature = "fake"

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def score(self, rows: Iterable[Row]) -> Iterator[Score]:
        for number, _ in enumerate(rows):
            if number == 300:
                self.act()
            yield Score(float(number), Status.OK)

    def close(self) -> None:
        pass


@pytest.fixture
def folder(counting_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the table `in.tsv` and the bundle `counting`; a checkpoint comes after every 64 rows."""
    (tmp_path / "in.tsv").write_text("source\tmt\n" + "Tere\tHello\n" * 500)
    monkeypatch.setattr(output_module, "CHECKPOINT_ROWS", 64)
    return tmp_path


def run(folder: Path, target: Path, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("qe_edge.commands.score.load_scorer", lambda *_: Failing(act))
    model = str(folder / "counting")
    return main(["score", str(folder / "in.tsv"), "--lp", "et-en", "-m", model, "-o", str(target), "-q"])


def raise_memory_error() -> None:
    raise MemoryError("Unable to allocate 64.0 GiB for an array")


def test_no_memory_in_the_calling_thread_is_one_line_and_keeps_what_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = folder / "out.tsv"
    assert run(folder, target, raise_memory_error, monkeypatch) == 10
    assert capsys.readouterr().err.splitlines() == [
        f"256 rows are kept beside {target}; the same command continues after them",
        "qe-edge: error: not enough memory (Unable to allocate 64.0 GiB for an array); "
        "free some, or let the command use less (--threads, batches)",
    ]
    assert run(folder, target, lambda: None, monkeypatch) == 0
    assert len(target.read_text().splitlines()) == 501


@pytest.mark.skipif(sys.platform == "win32", reason="a folder with an open file cannot be removed there")
@pytest.mark.parametrize("again", [False, True], ids=["removed", "removed and made again"])
def test_an_output_folder_that_is_removed_is_one_line_that_promises_nothing(
    folder: Path, again: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = folder / "results" / "out.tsv"
    target.parent.mkdir()

    def remove() -> None:
        shutil.rmtree(target.parent)
        if again:
            target.parent.mkdir()

    assert run(folder, target, remove, monkeypatch) == 5
    error = (
        f"qe-edge: error: {target}: cannot be written (No such file or directory); "
        "the folder is missing or was removed: make it, and give the same command again"
    )
    assert capsys.readouterr().err.splitlines() == [error]
    if not again:
        assert run(folder, target, lambda: None, monkeypatch) == 5
        assert capsys.readouterr().err.splitlines() == [error]
        target.parent.mkdir()
    assert run(folder, target, lambda: None, monkeypatch) == 0
    assert [path.name for path in target.parent.iterdir()] == ["out.tsv"]
    assert len(target.read_text().splitlines()) == 501


def test_a_worker_that_raises_is_told_once_and_no_thread_is_left(
    counting_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "in.tsv"
    table.write_text("source\tmt\n" + "".join(f"a\tw{row}\n" for row in range(3000)))
    runs, whole = 0, Graph.scores

    class Failing:
        def io_binding(self) -> None:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : no such kernel")

    def failing(self: Graph, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        nonlocal runs
        runs += 1
        if runs > 20:
            self._session = Failing()
        return whole(self, past, bodies)

    monkeypatch.setattr(Graph, "scores", failing)
    arguments = ["score", str(table), "--lp", "et-en", "-m", str(counting_bundle), "-o", str(tmp_path / "out.tsv")]
    assert main(arguments) == 6
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert errors == [
        f"qe-edge: error: {counting_bundle}/model.onnx: the graph failed ([ONNXRuntimeError] : 1 : FAIL : "
        "no such kernel); export the bundle again or fetch a fresh copy"
    ]
    assert [thread for thread in threading.enumerate() if thread.name.startswith("qe-edge")] == []


CLOSED = """
import os, sys
import qe_edge.commands.score
from qe_edge.cli import main
from qe_edge.rows import Score, Status

class Fake:
    signature = "fake"

    def score(self, rows):
        for _ in rows:
            os.write(2, b"a library says something\\n")
            yield Score(1.0, Status.OK)

    def close(self):
        pass

qe_edge.commands.score.load_scorer = lambda *_: Fake()
sys.exit(main(["score", *sys.argv[1:], "--lp", "et-en", "-m", "counting", "-q"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams as a POSIX shell does")
@pytest.mark.parametrize(
    ("closed", "arguments", "code", "said"),
    [
        ("<&-", ["-"], 3, "qe-edge: error: stdin: is closed; give a file, or a pipe that is open\n"),
        (">&-", ["in.tsv"], 5, "qe-edge: error: stdout: is closed; open it, or give -o FILE\n"),
        ("<&- >&- 2>&-", ["in.tsv", "-o", "out.tsv"], 0, ""),
        ("2>&-", ["missing.tsv"], 3, ""),
    ],
)
def test_standard_streams_that_are_closed_are_said_when_needed_and_never_mixed_with_files(
    closed: str, arguments: list[str], code: int, said: str, tmp_path: Path, counting_bundle: Path
) -> None:
    (tmp_path / "in.tsv").write_text("source\tmt\nTere\tHello\n")
    assert counting_bundle.parent == tmp_path
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", CLOSED, *arguments]
    done = subprocess.run(shell, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "")
    if "out.tsv" in arguments:
        assert (tmp_path / "out.tsv").read_text() == "source\tmt\tqe_score\tqe_status\nTere\tHello\t1.0000\tok\n"


COMMANDS = [
    ["--help"],
    ["score", "--help"],
    ["--version"],
    ["inspect", "counting"],
    ["inspect", "counting", "--json"],
    ["verify", "counting"],
    ["eval", "scored.tsv", "--gold", "mean"],
    ["eval", "scored.tsv", "--gold", "mean", "--json"],
]


@pytest.mark.skipif(sys.platform != "linux", reason="a device of Linux that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (
            "> /dev/full",
            5,
            "qe-edge: error: stdout: cannot be written (No space left on device); free some space there, "
            "or send it elsewhere",
        ),
        (">&-", 5, "qe-edge: error: stdout: is closed; open it"),
        ("| :", 1, ""),
    ],
)
def test_every_command_says_when_its_result_is_lost(
    end: str, code: int, said: str, unbuffered: str, tmp_path: Path, counting_bundle: Path
) -> None:
    rows = "".join(f"{row}\t{row * row % 7}\n" for row in range(40))
    (tmp_path / "scored.tsv").write_text("mean\tqe_score\n" + rows)
    assert counting_bundle.parent == tmp_path
    script = f'"$@" 2> said {end}; exit "${{PIPESTATUS[0]}}"'
    for arguments in COMMANDS:
        shell = ["bash", "-c", script, "bash", sys.executable, "-m", "qe_edge", *arguments]
        done = subprocess.run(shell, cwd=tmp_path, check=False, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
        errors = [line for line in (tmp_path / "said").read_text().splitlines() if not line.startswith("scored.tsv")]
        told = [line for line in errors if not line.startswith("not grouped")]
        assert (arguments, done.returncode, told) == (arguments, code, [said] if said else [])
