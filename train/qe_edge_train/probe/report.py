"""A probe as a table to read, a CSV to plot and a JSON with everything."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from typing import Any

import torch

from qe_edge_train.output import json_text
from qe_edge_train.probe.curve import SAMPLES, Layer
from qe_edge_train.probe.retrieval import Retrieval, correlation_with_quality
from qe_edge_train.probe.session import Probe
from qe_edge_train.recipe import recipe_table
from qe_edge_train.run import environment


def probe_table(probe: Probe) -> str:
    """The first, best, recommended and last layer, then the recommendation and the figures that led to it."""
    named = _named_layers(probe)
    pairs = list(probe.curve[0].pairs)
    head = f"{'layer':<19}{'blocks':>7}{'tap':>7}" + "".join(f"{pair:>8}" for pair in pairs) + f"{'mean':>8}"
    lines = [head + f"{'95 % interval':>17}" + (f"{'retrieval':>11}" if probe.retrieval else "")]
    for label, layer in named:
        low, high = layer.macro_interval
        line = f"{label:<19}{layer.blocks_kept:>7}{f'TL-{layer.tap}':>7}"
        line += "".join(f"{layer.pairs[pair]:>8.3f}" for pair in pairs) + f"{layer.macro:>8.3f}"
        line += f"{f'{low:.3f} .. {high:.3f}':>17}"
        if probe.retrieval:
            line += f"{probe.retrieval.curve[layer.blocks_kept - 1].accuracy:>11.3f}"
        lines.append(line)
    return "\n".join([*lines, "", *_recommendation_lines(probe), *_retrieval_lines(probe)])


def probe_csv(probe: Probe) -> str:
    """One line a layer."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    pairs = list(probe.curve[0].pairs)
    columns = ["tap", "blocks_kept", *pairs, "macro", "macro_low", "macro_high"]
    columns += ["difference", "difference_low", "difference_high", "difference_error"]
    writer.writerow(columns + (["retrieval", "retrieval_low", "retrieval_high"] if probe.retrieval else []))
    for i, layer in enumerate(probe.curve):
        values = [*layer.pairs.values(), layer.macro, *layer.macro_interval]
        values += [layer.difference, *layer.difference_interval, layer.difference_error]
        if probe.retrieval:
            found = probe.retrieval.curve[i]
            values += [found.accuracy, found.low, found.high]
        writer.writerow([f"TL-{layer.tap}", layer.blocks_kept, *(f"{value:.4f}" for value in values)])
    return stream.getvalue()


def probe_json(probe: Probe, device: torch.device) -> str:
    """Everything that was measured, and on what; undefined correlations are null."""
    subject, found = probe.subject, probe.recommendation
    content: dict[str, Any] = {
        "base": subject.recipe.base.name or subject.recipe.base.model,
        "family": subject.facts.family,
        "blocks": subject.facts.blocks,
        "hidden_size": subject.facts.hidden_size,
        "run": None if subject.run is None else subject.run.name,
        "train_rows": probe.train_rows,
        "dev_rows": probe.dev_rows,
        "seed": subject.recipe.optimiser.seed,
        "bootstrap_samples": SAMPLES,
        "seconds": probe.seconds,
        "best": {"tap": found.best.tap, "blocks_kept": found.best.blocks_kept},
        "recommended": {
            "tap": found.chosen.tap,
            "blocks_kept": found.chosen.blocks_kept,
            "difference": found.chosen.difference,
            "difference_error": found.chosen.difference_error,
            "tap_set": found.tap_set,
        },
        "layers": [
            {**asdict(layer), "penalty": penalty} for layer, penalty in zip(probe.curve, probe.penalties, strict=True)
        ],
        "retrieval": None if probe.retrieval is None else _retrieval_table(probe.retrieval, probe.curve),
        "recipe": recipe_table(subject.recipe),
        "environment": environment(device),
    }
    return json_text(content)


def _named_layers(probe: Probe) -> list[tuple[str, Layer]]:
    """The layers of the table by depth; a layer with several names is shown once."""
    found, curve = probe.recommendation, probe.curve
    labels: dict[int, list[str]] = {}
    for name, layer in (("first", curve[0]), ("recommended", found.chosen), ("best", found.best), ("last", curve[-1])):
        labels.setdefault(layer.blocks_kept, []).append(name)
    return [(", ".join(labels[kept]), curve[kept - 1]) for kept in sorted(labels)]


def _recommendation_lines(probe: Probe) -> list[str]:
    best, chosen = probe.recommendation.best, probe.recommendation.chosen
    total = probe.subject.facts.blocks
    if chosen == best:
        reason = "every layer with fewer blocks is more than one standard error below the best"
    else:
        low, high = chosen.difference_interval
        reason = (
            f"fewest blocks within one standard error ({chosen.difference_error:.3f}) of the best, TL-{best.tap}; "
            f"difference {chosen.difference:+.3f}, 95 % interval {low:+.3f} .. {high:+.3f}"
        )
    return [
        f"recommended  taps = [{chosen.tap}]: keeps {chosen.blocks_kept} of {total} blocks",
        f"             {reason}",
        f"several      taps = {list(probe.recommendation.tap_set)} for the strategies dynamic and multi",
    ]


def _retrieval_lines(probe: Probe) -> list[str]:
    found = probe.retrieval
    if found is None:
        return []
    best = found.best
    lines = [
        f"retrieval    {best.accuracy:.3f} ({best.low:.3f} .. {best.high:.3f}) at best, after {best.layer} blocks: "
        f"{len(found.languages)} languages, {found.sentences} lines ({found.first_line} to {found.last_line})"
    ]
    correlation = correlation_with_quality(found, probe.curve)
    if correlation is not None:
        layers = sum(not math.isnan(layer.macro) for layer in probe.curve)
        lines.append(
            f"             correlation with dev Spearman over {layers} layers: Pearson {correlation[0]:.2f}, "
            f"Spearman {correlation[1]:.2f}"
        )
    return lines


def _retrieval_table(found: Retrieval, curve: list[Layer]) -> dict[str, Any]:
    pearson, spearman = correlation_with_quality(found, curve) or (None, None)
    languages = list(enumerate(found.languages))
    return {
        "languages": found.languages,
        "first_line": found.first_line,
        "last_line": found.last_line,
        "sentences": found.sentences,
        "neighbours": found.neighbours,
        "best_blocks": found.best.layer,
        "pearson_with_quality": pearson,
        "spearman_with_quality": spearman,
        "layers": [
            {
                "blocks_kept": layer.layer,
                "accuracy": layer.accuracy,
                "interval": [layer.low, layer.high],
                "directions": {
                    f"{source}-{target}": float(layer.directions[a, b])
                    for a, source in languages
                    for b, target in languages
                    if a != b
                },
            }
            for layer in found.curve
        ],
    }
