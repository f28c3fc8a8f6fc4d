"""Tokens per second by batch budget: one batch on all cores, against a batch on each core.

python benchmarks/batches.py FILE.tsv --lp et-en [--rows 200] [--rounds 3] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from qe_edge import Scorer
from qe_edge.bench.measure import seconds_on_graph
from qe_edge.bench.tune import BUDGETS
from qe_edge.bundle import EMBEDDED_BUNDLE, open_bundle
from qe_edge.scoring.engine import Engine
from qe_edge.scoring.graph import Graph, KeyValueShape
from qe_edge.scoring.machine import physical_cores
from qe_edge.table.table import open_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--lp")
    parser.add_argument("--bundle", type=Path, default=EMBEDDED_BUNDLE)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with open_table(arguments.file, lp=arguments.lp) as table:
        rows = [item.row for item in islice(table.items, arguments.rows)]
    bundle, cores = open_bundle(arguments.bundle), physical_cores()
    loaded = Scorer.of(bundle, device="cpu")
    shape = KeyValueShape(bundle.spec.blocks_kept, bundle.spec.kv_heads, bundle.spec.head_dim)
    together, apart = Graph(bundle.model, shape, threads=cores), loaded.engine.graph
    tokens = sum(len(body.ids) for body in loaded.encoder.bodies([(("", ""), row.texts) for row in rows]))
    best: dict[str, dict[int, float]] = {f"one batch on {cores} cores": {}, "a batch on each core": {}}
    for _ in range(arguments.rounds):
        for budget in BUDGETS:
            engines = (Engine(together, 1, budget), Engine(apart, cores, budget))
            for found, engine in zip(best.values(), engines, strict=True):
                scorer = Scorer(bundle, engine, loaded.encoder)
                seconds = seconds_on_graph(scorer, list(scorer.jobs(rows)))
                found[budget] = max(found.get(budget, 0.0), tokens / seconds)
                engine.close()
    for name, by_budget in best.items():
        print(f"{name:<24}" + "".join(f"{budget:>7}: {speed:6.0f}" for budget, speed in by_budget.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": len(rows), "tokens_per_second": best}, indent=2) + "\n")


if __name__ == "__main__":
    main()
