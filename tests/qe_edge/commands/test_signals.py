"""Whatever asks a run to end is answered in order, a second time at once, and the same command continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qe_edge.cli import main
from qe_edge.rows import Row, Score, Status
from qe_edge.table import output as output_module

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
ROWS = 500
DEFAULTS: dict[str, Any] = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    """Signals as a terminal leaves them: under `nohup` or in the background some are ignored from the start."""
    before = {name: signal.signal(getattr(signal, name), handler) for name, handler in DEFAULTS.items()}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


class Signalled:
    """A scorer that sends a signal to its own process after `after` rows."""

    signature = "fake"

    def __init__(self, number: int | None = None, after: int = 300) -> None:
        self.number = number
        self.after = after

    def score(self, rows: Iterable[Row]) -> Iterator[Score]:
        for row, _ in enumerate(rows):
            if row == self.after and self.number is not None:
                os.kill(os.getpid(), self.number)
            yield Score(float(row), Status.OK)

    def close(self) -> None:
        pass


@pytest.fixture
def run(counting_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Signalled, str], int]:
    """Scores 500 rows into a file of this name with this scorer; gives the exit code."""
    table = tmp_path / "in.tsv"
    table.write_text("source\tmt\n" + "Tere\tHello\n" * ROWS)
    monkeypatch.setattr(output_module, "CHECKPOINT_ROWS", 64)

    def score(scorer: Signalled, name: str) -> int:
        monkeypatch.setattr("qe_edge.commands.score.load_scorer", lambda *_: scorer)
        return main(["score", str(table), "--lp", "et-en", "-m", str(counting_bundle), "-o", str(tmp_path / name)])

    return score


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "qe-edge: interrupted"),
        (signal.SIGTERM, 143, "qe-edge: terminated"),
        (signal.SIGHUP, 129, "qe-edge: hung up"),
    ],
    ids=str,
)
def test_a_signal_keeps_what_is_done_says_how_to_go_on_and_the_next_run_does(
    number: int,
    code: int,
    said: str,
    run: Callable[[Signalled, str], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(Signalled(number), "out.tsv") == code
    target = tmp_path / "out.tsv"
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"256 rows are kept beside {target}; the same command continues after them",
        said,
    ]
    assert not target.exists()
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".out.tsv.journal", ".out.tsv.part"]
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)

    class Rest(Signalled):
        def score(self, rows: Iterable[Row]) -> Iterator[Score]:
            return (Score(float(row), Status.OK) for row, _ in enumerate(rows, 256))

    assert run(Rest(), "out.tsv") == 0
    assert "continuing after 256 rows of an interrupted run" in capsys.readouterr().err
    assert run(Signalled(), "whole.tsv") == 0
    assert target.read_bytes() == (tmp_path / "whole.tsv").read_bytes()


def test_a_signal_before_anything_was_noted_leaves_nothing_and_promises_nothing(
    run: Callable[[Signalled, str], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Signalled(signal.SIGTERM, after=10), "out.tsv") == 143
    assert "kept" not in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counting", "in.tsv"]


def test_a_hang_up_that_is_ignored_stays_ignored(run: Callable[[Signalled, str], int], tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert run(Signalled(signal.SIGHUP), "out.tsv") == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_in_another_thread_leaves_signals_alone(run: Callable[[Signalled, str], int]) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run(Signalled(), "out.tsv")))
    thread.start()
    thread.join()
    assert codes == [0]


RUN = """
import sys
import qe_edge.table.output, qe_edge.scoring.scorer
from qe_edge.cli import main
qe_edge.table.output.CHECKPOINT_ROWS = qe_edge.scoring.scorer.WINDOW = 64
sys.exit(main(sys.argv[1:]))
"""
SIGNALLED_TWICE = """
import os, signal, sys
import qe_edge.commands.score, qe_edge.table.output
from qe_edge.cli import main
from qe_edge.rows import Score, Status
first, second = (getattr(signal, name) for name in sys.argv[1:3])

class Signalled:
    signature = "fake"

    def score(self, rows):
        for row, _ in enumerate(rows):
            if row == 300:
                os.kill(os.getpid(), first)
            yield Score(float(row), Status.OK)

    def close(self):
        os.kill(os.getpid(), second)

qe_edge.table.output.CHECKPOINT_ROWS = 64
qe_edge.commands.score.load_scorer = lambda *_: Signalled()
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGINT"), ("SIGINT", "SIGTERM"), ("SIGHUP", "SIGHUP")])
def test_a_second_signal_during_the_clean_up_ends_the_process_at_once_and_loses_nothing(
    first: str, second: str, run: Callable[[Signalled, str], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["in.tsv", "--lp", "et-en", "-m", "counting", "-o", "out.tsv"]
    command = [sys.executable, "-c", SIGNALLED_TWICE, first, second, "score", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == -getattr(signal, second)
    assert done.stderr.splitlines()[-1].startswith("256 rows are kept beside ")
    assert run(Signalled(), "out.tsv") == 0
    assert "continuing after 256 rows of an interrupted run" in capsys.readouterr().err
    assert len((tmp_path / "out.tsv").read_text().splitlines()) == ROWS + 1


def test_workers_that_run_a_real_graph_end_with_a_signal(counting_bundle: Path, tmp_path: Path) -> None:
    table, target, whole = tmp_path / "in.tsv", tmp_path / "out.tsv", tmp_path / "whole.tsv"
    table.write_text("source\tmt\n" + "".join(f"a\tw{row} {'b ' * (row % 5)}\n" for row in range(10_000)))
    command = [sys.executable, "-c", RUN, "score", str(table), "--lp", "et-en", "-m", str(counting_bundle), "-o"]
    process = subprocess.Popen([*command, str(target)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not (tmp_path / ".out.tsv.journal").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    said = process.stderr.read().splitlines()
    process.stderr.close()
    assert process.wait(timeout=60) == 143
    assert said[-1] == "qe-edge: terminated"
    rows = int(said[-2].split()[0])
    assert said[-2] == f"{rows} rows are kept beside {target}; the same command continues after them"
    assert main([*command[3:], str(target)]) == 0
    assert main([*command[3:], str(whole)]) == 0
    assert target.read_bytes() == whole.read_bytes()
