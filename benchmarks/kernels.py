"""Rows per second with kernels and without, in turn, and how far they move scores.

    python benchmarks/kernels.py FILE.tsv --lp et-en [--rows 300] [--rounds 5] [--json OUT]

One scorer for each value of QE_EDGE_KERNELS (docs/kernels.md), of which a machine may not tell all apart. All run the
same rows, after a round that is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from itertools import islice
from pathlib import Path

import numpy as np

from qe_edge import Row, Scorer
from qe_edge.bundle import EMBEDDED_BUNDLE
from qe_edge.scoring.kernels.library import SWITCH
from qe_edge.table.table import open_table

WITHOUT, ALL = "off", "all"
SWITCHES = (WITHOUT, "avx2", "float32", "vectors", ALL)
"""what the kernels may use, from nothing to everything"""


def load(bundle: Path, switch: str) -> Scorer:
    """A scorer whose kernels use so much of the processor."""
    os.environ[SWITCH] = switch
    return Scorer.load(bundle, device="cpu")


def timed(scorer: Scorer, rows: list[Row]) -> tuple[float, list[float]]:
    """Rows per second, and scores, of a scorer that remembers nothing."""
    fresh = Scorer(scorer.bundle, scorer.engine, scorer.encoder)
    started = time.perf_counter()
    scores = [score.value or 0.0 for score in fresh.score(rows)]
    return len(rows) / (time.perf_counter() - started), scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--lp")
    parser.add_argument("--bundle", type=Path, default=EMBEDDED_BUNDLE)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with open_table(arguments.file, lp=arguments.lp) as table:
        rows = [item.row for item in islice(table.items, arguments.rows)]
    scorers = {switch: load(arguments.bundle, switch) for switch in SWITCHES}
    speeds: dict[str, list[float]] = {switch: [] for switch in SWITCHES}
    scores: dict[str, list[float]] = {}
    for scored_before in range(arguments.rounds + 1):
        for switch, scorer in scorers.items():
            speed, scores[switch] = timed(scorer, rows)
            if scored_before:
                speeds[switch].append(speed)
    plain = np.array(scores[WITHOUT])
    found = {
        switch: {
            "runs_on": scorers[switch].engine.graph.runs_on,
            "rows_per_second": statistics.median(speeds[switch]),
            "faster": statistics.median(speeds[switch]) / statistics.median(speeds[WITHOUT]),
            "mean_difference_points": float(np.abs(np.array(scores[switch]) - plain).mean()),
            "correlation": float(np.corrcoef(scores[switch], plain)[0, 1]),
        }
        for switch in SWITCHES
    }
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
