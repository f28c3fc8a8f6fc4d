"""Test figures of the trained model and of the bundle exported from it, per language pair, as JSON and Markdown.

Spearman and Pearson on MLQE-PE test20 with 95 % bootstrap intervals (1000 resamples of the rows), for the merged torch
model in bfloat16, as it was trained, and for the bundle scored by `Scorer`.

    python benchmarks/model_card.py --run RUN --data FOLDER -o docs/model-card-figures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qe_edge import Scorer
from qe_edge.languages import parse_pair
from qe_edge.metrics import FloatArray, bootstrap_interval, pearson, spearman
from qe_edge.rows import Row
from qe_edge_export.merge import merged_regressor
from qe_edge_train.batches import EncodedSet, encode
from qe_edge_train.build import base_facts, prompt_encoder
from qe_edge_train.data import load_examples
from qe_edge_train.evaluate import predict
from qe_edge_train.recipe import DataFile
from qe_edge_train.run import open_run


def bundle_scores(scorer: Scorer, data: EncodedSet) -> FloatArray:
    """Scores of the bundle, in row order."""
    rows = [Row(e.texts, *parse_pair(e.pair)) for e in data.examples]
    return np.array([score.value for score in scorer.score(rows)], np.float64)


def figures(columns: dict[str, tuple[FloatArray, FloatArray]]) -> dict[str, Any]:
    """Correlations with intervals per pair, and their means over pairs."""
    table: dict[str, Any] = {}
    for pair, (x, y) in columns.items():
        table[pair] = {
            "rows": len(x),
            "spearman": spearman(x, y),
            "spearman_interval": bootstrap_interval([x], [y]),
            "pearson": pearson(x, y),
            "pearson_interval": bootstrap_interval([x], [y], "pearson"),
        }
    xs, ys = [x for x, _ in columns.values()], [y for _, y in columns.values()]
    table["mean"] = {
        "rows": sum(map(len, xs)),
        "spearman": float(np.mean([row["spearman"] for row in table.values()])),
        "spearman_interval": bootstrap_interval(xs, ys),
        "pearson": float(np.mean([row["pearson"] for row in table.values()])),
        "pearson_interval": bootstrap_interval(xs, ys, "pearson"),
    }
    return table


def markdown(torch_figures: dict[str, Any], bundle_figures: dict[str, Any]) -> str:
    """A table with both models side by side."""

    def cell(row: dict[str, Any], name: str) -> str:
        low, high = row[f"{name}_interval"]
        return f"{row[name]:.3f} [{low:.3f}, {high:.3f}]"

    lines = [
        "| pair | rows | Spearman, torch | Spearman, bundle | Pearson, torch | Pearson, bundle |",
        "|---|---|---|---|---|---|",
    ]
    for pair, left in torch_figures.items():
        right = bundle_figures[pair]
        cells = [cell(model, name) for name in ("spearman", "pearson") for model in (left, right)]
        lines.append(f"| {pair} | {left['rows']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of MLQE-PE")
    parser.add_argument("--bundle", help="default: the embedded bundle")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without suffix: .json and .md are written")
    arguments = parser.parse_args()

    run = open_run(arguments.run)
    encoder = prompt_encoder(base_facts(run.recipe.base), run.recipe.head)
    model = merged_regressor(run)
    scorer = Scorer.load(arguments.bundle, device="cpu")
    torch_columns: dict[str, tuple[FloatArray, FloatArray]] = {}
    bundle_columns: dict[str, tuple[FloatArray, FloatArray]] = {}
    for pair in run.facts.language_pairs:
        file = DataFile(f"test20.{pair.replace('-', '')}.df.short.tsv", pair)
        examples, _ = load_examples([file], run.recipe.target.column, arguments.data, 1, encoder.prompt)
        data = encode(examples, encoder)
        human = np.array([example.score for example in examples])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch_columns[pair] = predict(model, data, range(len(examples)), torch.device("cpu")), human
        bundle_columns[pair] = bundle_scores(scorer, data), human
        print(pair, f"{spearman(*torch_columns[pair]):.3f} {spearman(*bundle_columns[pair]):.3f}", flush=True)
    result: dict[str, Any] = {
        "torch": figures(torch_columns),
        "bundle": figures(bundle_columns),
        "signature": scorer.signature,
    }
    arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(markdown(result["torch"], result["bundle"]), encoding="utf-8")


if __name__ == "__main__":
    main()
