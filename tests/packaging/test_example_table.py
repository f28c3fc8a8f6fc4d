"""The table that `make demo` prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEADER = "lp\toriginal\ttranslation\tmean\tqe_score\tqe_status\n"


def show(repository: Path, text: str, columns: int) -> subprocess.CompletedProcess[str]:
    """Run examples/show.py on a terminal of `columns` cells."""
    return subprocess.run(
        [sys.executable, repository / "examples" / "show.py"],
        input=text,
        env={"COLUMNS": str(columns), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_columns_line_up_for_wide_and_combining_characters(repository: Path) -> None:
    # 同时: two characters of two cells; e + U+0301: two characters of one cell
    rows = "en-zh\tnow\t同时\t50\t61.23\tok\nfr-en\te\u0301\tnow\t50\t\tempty_source\n"
    lines = show(repository, HEADER + rows, 200).stdout.splitlines()
    assert lines[0] == "pair   source        translation   human DA  qe_score  status"
    assert lines[2] == "en-zh  now           同时              50.0      61.2  ok"
    assert lines[4] == "fr-en  e\u0301             now               50.0            empty_source"


def test_long_texts_are_cut_to_the_terminal(repository: Path) -> None:
    rows = f"et-en\t{'a' * 99}\t{'b' * 99}\t7\t8\tok\n"
    lines = show(repository, HEADER + rows, 80).stdout.splitlines()
    assert max(map(len, lines[:3])) == 79  # both texts get the same room: (80 - 37) // 2 cells
    assert "a" * 20 + "…  " + "b" * 20 + "…" in lines[2]


def test_nothing_to_show_is_a_failure(repository: Path) -> None:
    done = show(repository, "", 80)
    assert (done.returncode, done.stdout) == (1, "")
