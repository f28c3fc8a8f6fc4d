"""A run that is killed at any moment is continued by the same command, and ends in the same bytes."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qe_edge.cli import main

CHECKPOINT = "import qe_edge.table.output as o, qe_edge.scoring.scorer as s; o.CHECKPOINT_ROWS = s.WINDOW = 64; "
"""more checkpoints than usual, so that short runs have some"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and /dev/fd are POSIX")
RUN = "import sys; from qe_edge.cli import main; sys.exit(main(sys.argv[1:]))"


def table(folder: Path, rows: int) -> Path:
    """Rows of one to four words, some empty, some broken."""
    numbers = random.Random(1)
    path = folder / "in.tsv"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("id\tsource\ttranslation\n")
        for row in range(rows):
            source = " ".join(f"w{numbers.randrange(1000)}" for _ in range(numbers.randrange(4)))
            stream.write(f"{row}\t{source}" + ("\n" if row % 97 == 5 else f"\tt{row}\n"))
    return path


def command(bundle: Path, source: Path, target: Path) -> list[str]:
    return [
        *(sys.executable, "-c", CHECKPOINT + RUN, "score", str(source)),
        *("-o", str(target), "--lp", "et-en", "-m", str(bundle), "-q"),
    ]


def kill_until_finished(arguments: list[str], target: Path, numbers: random.Random, most: int, longest: float) -> int:
    """Start the command again and again, killing it at a random moment up to `most` times; how often it was killed."""
    kills = 0
    while True:
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
        if kills < most:
            try:
                process.wait(numbers.uniform(0, longest))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        code = process.wait()
        if code != -signal.SIGKILL:
            assert code == 4  # finished, with some rows that are invalid
            return kills
        if target.exists():  # killed between naming the file and its own end
            return kills


def kill(bundle: Path, folder: Path, rows: int, files: int) -> int:
    """Kill runs at random moments, up to four times each, and compare every finished file with an uninterrupted one.

    So many files, each of which was killed at least once; returns the number of kills.
    """
    source, numbers = table(folder, rows), random.Random(2)
    whole, killed = folder / "whole.tsv", folder / "killed.tsv"
    started = time.monotonic()
    subprocess.run(command(bundle, source, whole), stderr=subprocess.DEVNULL, check=False)
    longest = time.monotonic() - started
    assert len(whole.read_text().splitlines()) == rows + 1
    kills = finished = 0
    while finished < files:
        most = numbers.randint(1, 4)
        killed_now = kill_until_finished(command(bundle, source, killed), killed, numbers, most, longest)
        assert killed.read_bytes() == whole.read_bytes()
        killed.unlink()
        kills += killed_now
        finished += killed_now > 0
    return kills


def test_killed_runs_end_in_the_same_bytes(counting_bundle: Path, tmp_path: Path) -> None:
    kill(counting_bundle, tmp_path, rows=3000, files=2)
    # a run that was killed at its very end may leave a journal of a file that is whole
    assert {path.name for path in tmp_path.glob(".*")} <= {".killed.tsv.journal", ".killed.tsv.lock"}


def test_a_run_that_is_killed_half_way_is_continued_and_not_begun_anew(counting_bundle: Path, tmp_path: Path) -> None:
    source, target = table(tmp_path, 30_000), tmp_path / "out.tsv"
    process = subprocess.Popen(command(counting_bundle, source, target), stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / ".out.tsv.journal").exists():
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it had finished before its journal was seen"
    loud = [part for part in command(counting_bundle, source, target) if part != "-q"]
    done = subprocess.run(loud, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    said = re.search(r"continuing after (\d+) rows of an interrupted run", done.stderr)
    assert said is not None
    assert 0 < int(said[1]) < 30_000
    whole = tmp_path / "whole.tsv"
    subprocess.run(command(counting_bundle, source, whole), stderr=subprocess.DEVNULL, check=False)
    assert target.read_bytes() == whole.read_bytes()


def test_a_pipe_can_be_scored_into_a_file_and_keeps_no_journal(counting_bundle: Path, tmp_path: Path) -> None:
    source, target = table(tmp_path, 2000), tmp_path / "out.tsv"
    reading, writing = os.pipe()
    process = subprocess.Popen(command(counting_bundle, Path(f"/dev/fd/{reading}"), target), pass_fds=(reading,))
    os.close(reading)
    with os.fdopen(writing, "wb") as stream:
        stream.write(source.read_bytes())
    assert process.wait() == 4
    assert len(target.read_text().splitlines()) == 2001
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.slow
def test_a_hundred_kills_of_20_000_rows(counting_bundle: Path, tmp_path: Path) -> None:
    kills = kill(counting_bundle, tmp_path, rows=20_000, files=100)
    print(f"{kills} kills, 100 finished files, each killed at least once and the same as that of the uninterrupted run")


def interrupt(arguments: list[str], batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command that is interrupted when it begins this batch."""
    from qe_edge.scoring.graph import Graph

    batches, scores = 0, Graph.scores

    def interrupted(self, past, bodies):  # type: ignore[no-untyped-def]
        nonlocal batches
        batches += 1
        if batches == batch:
            raise KeyboardInterrupt
        return scores(self, past, bodies)

    with monkeypatch.context() as patched:
        patched.setattr(Graph, "scores", interrupted)
        assert main(arguments) == 130


def test_an_interrupt_says_how_to_go_on_and_the_next_run_does(
    counting_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = table(tmp_path, 5000), tmp_path / "out.tsv"
    arguments = ["score", str(source), "-o", str(target), "--lp", "et-en", "-m", str(counting_bundle)]
    interrupt(arguments, 35, monkeypatch)
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "qe-edge: interrupted"
    assert said[-2].endswith(f" rows are kept beside {target}; the same command continues after them")
    kept = int(said[-2].split()[0])
    assert kept >= 1024
    assert not target.exists()

    changed = [*arguments, "--on-truncate", "skip"]
    assert main(changed) == 3
    assert "an interrupted run lies there that is another one: options" in capsys.readouterr().err

    assert main(arguments) == 4
    said = capsys.readouterr().err.splitlines()
    assert f"continuing after {kept} rows of an interrupted run" in said
    assert said[-1].startswith(f"5000 rows, {5000 - kept} of them in ")
    assert sum(int(part.split()[0]) for part in said[-1].split(": ")[1].split(", ")) == 5000

    other = tmp_path / "other.tsv"
    arguments[3] = str(other)
    assert main(arguments) == 4
    assert other.read_bytes() == target.read_bytes()


def test_rows_that_changed_under_the_same_name_size_and_time_are_refused(
    counting_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = table(tmp_path, 3000), tmp_path / "out.tsv"
    arguments = ["score", str(source), "-o", str(target), "--lp", "et-en", "-m", str(counting_bundle)]
    interrupt(arguments, 25, monkeypatch)
    stat = source.stat()
    source.write_bytes(source.read_bytes().replace(b"t10\n", b"t11\n"))
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    capsys.readouterr()

    assert main(arguments) == 3
    said = capsys.readouterr().err
    assert "the same command continues" not in said
    assert re.search(r"in\.tsv:\d+: the rows up to here are not the \d+ that were scored; use --restart\n$", said)
    assert main([*arguments, "--restart"]) == 4
