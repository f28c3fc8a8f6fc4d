"""Finds the settings with which a bundle runs fastest on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qe_edge.bench.measure import OpenTable, scorable, seconds_on_graph
from qe_edge.bundle import open_bundle
from qe_edge.rows import Row
from qe_edge.scoring.engine import Engine
from qe_edge.scoring.machine import physical_cores, usable_cpus
from qe_edge.scoring.scorer import Scorer
from qe_edge.scoring.tuning import Tuning

BUDGETS = (192, 384, 768, 1536)
"""padded tokens of a batch that are tried"""
ROWS = 200
"""rows, spread over the table, that every setting runs in each round"""
ROUNDS = 3
"""every setting is timed once a round, and its fastest counts: another process can only slow it down"""


def tune(bundle: Path, table: OpenTable, report: Callable[[str], None]) -> Tuning:
    """The fastest of all budgets, with a worker for each core and, where cores have two threads, for each of those.

    Raises InputError for a table without a row that can be scored.
    """
    scorer = Scorer.of(open_bundle(bundle), device="cpu")
    rows = scorable(scorer, table)
    rows = rows[:: -(-len(rows) // ROWS)]
    settings = [
        Tuning(workers, budget) for workers in sorted({physical_cores(), len(usable_cpus())}) for budget in BUDGETS
    ]
    seconds = fastest(scorer, rows, settings)
    for setting, taken in zip(settings, seconds, strict=True):
        report(f"{setting.workers} workers, {setting.token_budget} tokens a batch: {len(rows) / taken:.1f} rows/s")
    return settings[seconds.index(min(seconds))]


def fastest(scorer: Scorer, rows: Sequence[Row], settings: Sequence[Tuning]) -> list[float]:
    """Seconds that the rows take under each setting, the least of all rounds."""
    graph = scorer.engine.graph
    tried = [
        Scorer(scorer.bundle, Engine(graph, setting.workers, setting.token_budget), scorer.encoder)
        for setting in settings
    ]
    best = [float("inf")] * len(settings)
    for _ in range(ROUNDS):
        for index, candidate in enumerate(tried):
            best[index] = min(best[index], seconds_on_graph(candidate, list(candidate.jobs(rows))))
    return best
