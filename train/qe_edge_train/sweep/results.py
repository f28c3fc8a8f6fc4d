"""What a sweep found: one row a run, and a summary of every configuration over its seeds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from qe_edge_train.output import json_text
from qe_edge_train.run import Run, environment
from qe_edge_train.sweep.plan import SEED, PlannedRun

FIGURES = ("seconds", "trainable", "peak_memory_mb", "blocks_kept", "best_step")


@dataclass(frozen=True)
class Result:
    """One training of the sweep, finished or failed."""

    planned: PlannedRun
    macro: float | None
    """mean over the pairs of the dev Spearman; none for a run that failed, nan if it is undefined"""
    pairs: dict[str, float]
    """dev Spearman of each pair"""
    figures: dict[str, float]
    """FIGURES of the run"""
    failure: str = ""
    """why the run failed"""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    runs: int
    mean: float
    sd: float | None
    """standard deviation over the runs (n - 1); none for one run"""
    low: float | None
    """lower end of the 95 % interval; none for one run"""
    high: float | None


@dataclass(frozen=True)
class Summary:
    """One configuration over its seeds."""

    configuration: str
    macro: Estimate
    pairs: dict[str, float]
    """mean over the runs of each pair's dev Spearman"""
    difference: Estimate | None
    """macro minus that of the first configuration with the same seed; none for the first, and without common seeds"""


def finished(planned: PlannedRun, run: Run) -> Result:
    """The result of a run that was trained to the end."""
    facts = run.facts
    pairs = {pair: float(value["spearman"]) for pair, value in facts.dev["pairs"].items()}
    known = {**facts.summary, "trainable": facts.trainable, "blocks_kept": facts.blocks_kept}
    known["best_step"] = facts.best_step
    return Result(planned, float(facts.dev["macro_spearman"]), pairs, {name: known[name] for name in FIGURES})


def failed(planned: PlannedRun, reason: str) -> Result:
    """The result of a run that ended with an error."""
    return Result(planned, None, {}, {}, reason)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95 % interval of independent runs: mean +- t(.975, n - 1) sd / sqrt(n) (Student)."""
    from scipy.stats import t

    mean, runs = float(np.mean(values)), len(values)
    if runs < 2:
        return Estimate(runs, mean, None, None, None)
    sd = float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, runs - 1)) * sd / math.sqrt(runs)
    return Estimate(runs, mean, sd, mean - half, mean + half)


def summarise(results: Sequence[Result]) -> list[Summary]:
    """Every configuration with a finished run, in the order of the plan, against the first of the plan."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.planned.configuration, [])
        if result.macro is not None:
            groups[result.planned.configuration].append(result)
    first = next(iter(groups), None)
    summaries = []
    for name, group in groups.items():
        if not group:
            continue
        difference = None if name == first else _difference(group, groups[str(first)])
        pairs = {pair: float(np.mean([one.pairs[pair] for one in group])) for pair in group[0].pairs}
        summaries.append(Summary(name, estimate([_macro(one) for one in group]), pairs, difference))
    return summaries


def _difference(group: Sequence[Result], reference: Sequence[Result]) -> Estimate | None:
    """Mean difference of the runs with the same seed."""
    by_seed = {one.planned.recipe.optimiser.seed: _macro(one) for one in reference}
    seeds = {one.planned.recipe.optimiser.seed: _macro(one) for one in group}
    common = [value - by_seed[seed] for seed, value in seeds.items() if seed in by_seed]
    return estimate(common) if common else None


def _macro(result: Result) -> float:
    assert result.macro is not None
    return result.macro


def results_csv(results: Sequence[Result]) -> str:
    """One line a run: name, what was varied, dev Spearman, time and size; a failed run has its reason instead."""
    pairs = list(dict.fromkeys(pair for result in results for pair in result.pairs))
    varied = list(dict.fromkeys(key for result in results for key in result.planned.varied))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", "variant", *varied, *pairs, "macro", *FIGURES, "failure"])
    for result in results:
        planned = result.planned
        row: list[Any] = [planned.name, planned.variant, *(planned.varied.get(key, "") for key in varied)]
        row += [_number(result.pairs.get(pair)) for pair in pairs] + [_number(result.macro)]
        writer.writerow([*row, *(result.figures.get(name, "") for name in FIGURES), result.failure])
    return stream.getvalue()


def summary_csv(summaries: Sequence[Summary]) -> str:
    """One line a configuration; cells are empty where one seed allows no interval."""
    pairs = list(dict.fromkeys(pair for summary in summaries for pair in summary.pairs))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    estimates = ("macro", "macro_sd", "macro_low", "macro_high")
    differences = ("difference", "difference_sd", "difference_low", "difference_high")
    writer.writerow(["configuration", "runs", *pairs, *estimates, "common_seeds", *differences])
    for summary in summaries:
        values = [_number(summary.pairs.get(pair)) for pair in pairs]
        compared = summary.difference
        common = "" if compared is None else compared.runs
        writer.writerow(
            [summary.configuration, summary.macro.runs, *values, *_cells(summary.macro), common, *_cells(compared)]
        )
    return stream.getvalue()


def summary_table(summaries: Sequence[Summary]) -> str:
    """Configurations with mean, deviation and interval over seeds, and the paired difference to the first."""
    if not summaries:
        return "no run finished"
    width = max(len("configuration"), *(len(summary.configuration) for summary in summaries))
    lines = [f"{'configuration':<{width}}{'runs':>6}{'Spearman':>10}{'sd':>8}{'95 % interval':>18}{'to the first':>32}"]
    for summary in summaries:
        macro = summary.macro
        line = f"{summary.configuration:<{width}}{macro.runs:>6}{macro.mean:>10.4f}"
        line += f"{'-' if macro.sd is None else f'{macro.sd:.4f}':>8}{_said(macro):>18}"
        compared = summary.difference
        line += f"{'' if compared is None else f'{compared.mean:+.4f} ({_said(compared, signed=True)})':>32}"
        lines.append(line.rstrip())
    if any(summary.macro.runs == 1 for summary in summaries):
        lines.append(f"- : one seed has no interval; list several in [sweep.grid] under `{SEED}`")
    return "\n".join(lines)


def _said(value: Estimate, signed: bool = False) -> str:
    if value.low is None or value.high is None:
        return "-"
    return f"{value.low:+.4f} .. {value.high:+.4f}" if signed else f"{value.low:.4f} .. {value.high:.4f}"


def _cells(value: Estimate | None) -> list[str]:
    return [""] * 4 if value is None else [_number(one) for one in (value.mean, value.sd, value.low, value.high)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def summary_json(summaries: Sequence[Summary], results: Sequence[Result], device: torch.device) -> str:
    """Every run and every configuration, and where they ran; undefined correlations are null."""
    runs = [
        {
            "run": result.planned.name,
            "variant": result.planned.variant,
            "varied": result.planned.varied,
            "macro": result.macro,
            "pairs": result.pairs,
            **result.figures,
            "failure": result.failure or None,
        }
        for result in results
    ]
    content = {
        "summary": [asdict(summary) for summary in summaries],
        "runs": runs,
        "environment": environment(device),
    }
    return json_text(content)
