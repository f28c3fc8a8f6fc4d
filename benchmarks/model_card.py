"""Test figures of the trained model and of the bundle exported from it, per language pair, as JSON and Markdown.

Spearman and Pearson on MLQE-PE test20 with 95 % bootstrap intervals (1000 resamples of the rows), for the bundle scored
by `Scorer` and, with --run, for the merged torch model in the type that it was trained in.

    python benchmarks/model_card.py [--run RUN] --data FOLDER -o docs/model-card-figures
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qe_edge import Scorer
from qe_edge.languages import parse_pair
from qe_edge.metrics import FloatArray, bootstrap_interval, pearson, spearman
from qe_edge.rows import Row
from qe_edge_export.merge import merged_regressor
from qe_edge_train.batches import encode
from qe_edge_train.build import base_facts, prompt_encoder
from qe_edge_train.data import Example, load_examples
from qe_edge_train.evaluate import predict
from qe_edge_train.recipe import DataFile
from qe_edge_train.run import open_run
from qe_edge_train.tapped import mixed_precision

Columns = dict[str, tuple[FloatArray, FloatArray]]
"""Scores and human scores, by language pair."""


def bundle_scores(scorer: Scorer, examples: Sequence[Example]) -> FloatArray:
    """Scores of the bundle, in row order."""
    rows = [Row(e.texts, *parse_pair(e.pair)) for e in examples]
    return np.array([score.value for score in scorer.score(rows)], np.float64)


class Trained:
    """The merged torch model of a run."""

    def __init__(self, folder: Path) -> None:
        self.run = open_run(folder)
        self.encoder = prompt_encoder(base_facts(self.run.recipe.base), self.run.recipe.head)
        self.model = merged_regressor(self.run)

    def scores(self, examples: Sequence[Example]) -> FloatArray:
        """Its scores, in row order."""
        cpu = torch.device("cpu")
        with mixed_precision(cpu, self.run.recipe.base.dtype):
            return predict(self.model, encode(examples, self.encoder), range(len(examples)), cpu)


def figures(columns: Columns) -> dict[str, Any]:
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


def markdown(models: dict[str, dict[str, Any]]) -> str:
    """A table with all models side by side."""

    def cell(row: dict[str, Any], name: str) -> str:
        low, high = row[f"{name}_interval"]
        return f"{row[name]:.3f} [{low:.3f}, {high:.3f}]"

    shown = [(model, measure) for measure in ("spearman", "pearson") for model in models]
    titles = ["pair", "rows", *(f"{measure.capitalize()}, {model}" for model, measure in shown)]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for pair, row in models["bundle"].items():
        cells = [pair, str(row["rows"]), *(cell(models[model][pair], measure) for model, measure in shown)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of MLQE-PE")
    parser.add_argument("--bundle", help="default: the embedded bundle")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without suffix: .json and .md are written")
    arguments = parser.parse_args()

    trained = Trained(arguments.run) if arguments.run else None
    scorer = Scorer.load(arguments.bundle, device="cpu")
    spec, prompt = scorer.bundle.spec, scorer.bundle.prompt
    columns: dict[str, Columns] = {"torch": {}, "bundle": {}} if trained else {"bundle": {}}
    for pair in spec.language_pairs:
        file = DataFile(f"test20.{pair.replace('-', '')}.df.short.tsv", pair)
        examples, _ = load_examples([file], "mean", arguments.data, 1, prompt)
        human = np.array([example.score for example in examples])
        if trained:
            columns["torch"][pair] = trained.scores(examples), human
        columns["bundle"][pair] = bundle_scores(scorer, examples), human
        print(pair, *(f"{model} {spearman(*found[pair]):.3f}" for model, found in columns.items()), flush=True)
    models = {model: figures(found) for model, found in columns.items()}
    result = {**models, "signature": scorer.signature}
    arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(markdown(models), encoding="utf-8")


if __name__ == "__main__":
    main()
