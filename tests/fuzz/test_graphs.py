"""Graphs of strangers, in a process of their own: what breaks a promise ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHANGED = """
from pathlib import Path
from tests.fuzz import graphs
for path in sorted(Path("tests/fuzz/inputs/graphs").iterdir()):
    graphs.check(path.read_bytes())
for number in range(300):
    graphs.check(str(number).encode())
print("all of them")
"""


@pytest.mark.slow
def test_graphs_changed_at_random_are_refused_or_run_or_fail(repository: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CHANGED], cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all of them\n"), done.stderr
