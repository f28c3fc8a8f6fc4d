"""How far a score moves with its company: alone, shuffled, in other batch budgets, on 1 or 2 workers.

python benchmarks/invariance.py FILE.tsv --lp et-en [--rows 300] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import random
from itertools import islice
from pathlib import Path

from qe_edge import Row, Scorer
from qe_edge.scoring.engine import Engine
from qe_edge.table.table import open_table


def scores(scorer: Scorer, rows: list[Row], workers: int, budget: int) -> list[float]:
    """Scores by a scorer that remembers nothing."""
    fresh = Scorer(scorer.bundle, Engine(scorer.engine.graph, workers, budget), scorer.encoder)
    return [score.value or 0.0 for score in fresh.score(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--lp")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with open_table(arguments.file, lp=arguments.lp) as table:
        rows = [item.row for item in islice(table.items, arguments.rows)]
    order = random.Random(0).sample(range(len(rows)), len(rows))
    scorer = Scorer.load(arguments.bundle, device="cpu")
    usual = scores(scorer, rows, 2, 384)
    shuffled = dict(zip(order, scores(scorer, [rows[i] for i in order], 2, 384), strict=True))
    others = {
        "alone": scores(scorer, rows, 1, 1),
        "shuffled": [shuffled[i] for i in range(len(rows))],
        "budget 96": scores(scorer, rows, 2, 96),
        "budget 4096": scores(scorer, rows, 1, 4096),
        "1 worker": scores(scorer, rows, 1, 384),
    }
    found = {name: max(abs(a - b) for a, b in zip(usual, other, strict=True)) for name, other in others.items()}
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
