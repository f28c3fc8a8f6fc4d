"""A stranger's first command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.mark.slow
def test_demo_of_a_fresh_clone_scores_every_example_row(repository: Path, sample: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", repository.as_uri(), clone], check=True)
    done = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    pairs = {line.partition("\t")[0] for line in sample.read_text(encoding="utf-8").splitlines()[1:]}
    scored = [line for line in done.stdout.splitlines() if line[:5] in pairs]
    assert len(scored) == 28
    assert all(line.endswith(" ok") for line in scored)
