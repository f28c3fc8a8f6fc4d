"""Types hold everywhere, tests included. A test among others, since it takes as long as a hundred of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_types_hold(repository: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
