"""Every setting is timed, and the fastest of several rounds is what counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from qe_edge import Row, Scorer
from qe_edge.bench import tune as tune_module
from qe_edge.bench.tune import fastest
from qe_edge.scoring.scorer import Job
from qe_edge.scoring.tuning import Tuning


def test_a_setting_counts_with_its_fastest_round(counting_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([3.0, 5.0, 4.0, 2.0, 6.0, 7.0])
    used: list[tuple[int, int]] = []

    def seconds(scorer: Scorer, jobs: Sequence[Job]) -> float:
        used.append((scorer.engine.workers, len(jobs)))
        return next(taken)

    monkeypatch.setattr(tune_module, "seconds_on_graph", seconds)
    scorer = Scorer.load(counting_bundle, device="cpu", threads=1)
    rows = [Row.translation(f"a b {i}", "c", "et", "en") for i in range(4)]
    assert fastest(scorer, rows, [Tuning(1, 1), Tuning(2, 100)]) == [3.0, 2.0]
    assert used == [(1, 4), (2, 1)] * 3
