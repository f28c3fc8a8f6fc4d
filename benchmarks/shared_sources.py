"""Rows per second on n-best lists: sources shared by their translations, against the same rows in random order.

    python benchmarks/shared_sources.py FILE.tsv --lp et-en [--sources 100] [--translations 10] [--json OUT]

The lists are made from real rows: every source with variants of its translation, a sixth of whose words are replaced by
words of other translations. Both ways run the same distinct rows; the random order runs with sharing switched off.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from itertools import islice
from pathlib import Path

from qe_edge import Row, Scorer
from qe_edge.scoring import batching
from qe_edge.table.table import open_table

NEVER = 1 << 60
"""tokens that no family saves"""
REPLACED = 6
"""one word of so many is another one"""


def n_best(rows: list[Row], translations: int, random_numbers: random.Random) -> list[Row]:
    """For each row, its source with as many variants of its translation."""
    vocabulary = [word for row in rows for word in row.texts[1].split()]
    listed = []
    for row in rows:
        words = row.texts[1].split()
        for _ in range(translations):
            variant = [
                random_numbers.choice(vocabulary) if random_numbers.random() < 1 / REPLACED else w for w in words
            ]
            listed.append(Row.translation(row.texts[0], " ".join(variant), row.source_language, row.target_language))
    return list(dict.fromkeys(listed))


def timed(scorer: Scorer, rows: list[Row], least_saved: int) -> tuple[float, list[float]]:
    """Seconds and scores of rows with a scorer that remembers nothing."""
    fresh = Scorer(scorer.bundle, scorer.engine, scorer.encoder)
    batching.LEAST_SAVED = least_saved
    started = time.perf_counter()
    scores = [score.value or 0.0 for score in fresh.score(rows)]
    return time.perf_counter() - started, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--lp")
    parser.add_argument("--sources", type=int, default=100)
    parser.add_argument("--translations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    numbers = random.Random(0)
    with open_table(arguments.file, lp=arguments.lp) as table:
        rows = [item.row for item in islice(table.items, arguments.sources)]
    listed = n_best(rows, arguments.translations, numbers)
    order = numbers.sample(range(len(listed)), len(listed))
    scorer = Scorer.load(device="cpu")
    usual = batching.LEAST_SAVED
    shared, apart, moved = [], [], 0.0
    timed(scorer, listed, NEVER)  # the first run takes memory
    for _ in range(arguments.rounds):
        seconds, scores = timed(scorer, listed, usual)
        shared.append(len(listed) / seconds)
        seconds, others = timed(scorer, [listed[i] for i in order], NEVER)
        apart.append(len(listed) / seconds)
        moved = max(moved, *(abs(scores[i] - other) for i, other in zip(order, others, strict=True)))
    found = {
        "rows": len(listed),
        "shared_rows_per_second": statistics.median(shared),
        "apart_rows_per_second": statistics.median(apart),
        "ratio": statistics.median(shared) / statistics.median(apart),
        "largest_movement_points": moved,
    }
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
