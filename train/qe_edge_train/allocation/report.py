"""What `qe-edge allocate` finds out about a base, as a table, CSV, JSON and plots.

Blocks count from 1: block i ends in hidden_states[i]. Legend: N blocks of the base, K blocks that are kept.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from torch import nn

from qe_edge_train.allocation.allocate import Method, block_counts
from qe_edge_train.allocation.spectra import Estimator, block_means, block_spectra, matrix_alphas
from qe_edge_train.figures import new_figure, save_figure

BETAS = (0.1, 0.25, 0.5, 1.0, 2.5, 4.0)
"""Exponents of the sensitivity table. The summary of arXiv 2410.10054 has 1/4, its released code 2.5."""
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Budget:
    """What is to be shared out, and how allocation by alpha does it."""

    blocks: int
    """K; the first of the base, those above are dropped before training"""
    total: int
    """experts, or ranks, of one linear map summed over the kept blocks"""
    estimator: Estimator
    """whose exponents are followed"""
    beta: float
    """how strongly they are followed"""


@dataclass(frozen=True)
class AllocationReport:
    """Exponents of the blocks of a base, and what each kept block gets."""

    base: str
    """hub id or folder"""
    budget: Budget
    matrices: dict[Estimator, list[dict[str, float]]]
    """exponent of each linear map of each block [N]"""
    alphas: dict[Estimator, list[float]]
    """their mean over the block [N]"""
    counts: dict[Method, list[int]]
    """what each kept block gets, by method [K]"""
    sensitivity: dict[float, list[int]]
    """what each kept block gets by alpha, for other exponents beta [K]"""


def allocation_report(base: str, decoder: nn.Module, budget: Budget) -> AllocationReport:
    """Measure the uncut decoder of `base` in full precision, and share the budget out by every method.

    Raises UsageError when there is less to share than there are kept blocks, InputError for weights that cannot be
    measured.
    """
    spectra = block_spectra(decoder)
    matrices = {estimator: matrix_alphas(spectra, estimator) for estimator in ESTIMATORS}
    alphas = {estimator: block_means(matrices[estimator]).tolist() for estimator in ESTIMATORS}
    kept, total = alphas[budget.estimator][: budget.blocks], budget.total
    return AllocationReport(
        base=base,
        budget=budget,
        matrices=matrices,
        alphas=alphas,
        counts={method: block_counts(method, kept, budget.blocks, total, budget.beta) for method in METHODS},
        sensitivity={beta: block_counts("alpha", kept, budget.blocks, total, beta) for beta in BETAS},
    )


def allocation_table(report: AllocationReport) -> str:
    """The report for the terminal: a line for each block, and the totals."""
    header, rows = _block_rows(report, decimals=3)
    totals = [str(sum(column)) for column in _columns(report)]
    table = [header, *rows, ["total", *[""] * len(ESTIMATORS), *totals]]
    widths = [max(len(cell) for cell in column) + 2 for column in zip(*table, strict=True)]
    budget = report.budget
    return "\n".join(
        [
            *("".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table),
            "",
            f"{report.base}: {budget.total} over {budget.blocks} of {len(rows)} blocks; "
            f"alpha follows {budget.estimator} with beta {budget.beta:g}",
        ]
    )


def save_report(report: AllocationReport, folder: Path) -> None:
    """Write `allocation.csv` (a line a block), `matrices.csv` (a line a linear map), the plots `alphas` and
    `allocation` as PNG and SVG, and, last, `allocation.json`. Raises OSError when the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    header, rows = _block_rows(report, decimals=6)
    (folder / "allocation.csv").write_text(_csv([header, *rows]), encoding="utf-8")
    matrices = [
        [str(block), name, *(f"{report.matrices[estimator][block - 1][name]:.6f}" for estimator in ESTIMATORS)]
        for block, names in enumerate(report.matrices[ESTIMATORS[0]], start=1)
        for name in names
    ]
    (folder / "matrices.csv").write_text(_csv([["block", "matrix", *ESTIMATORS], *matrices]), encoding="utf-8")
    draw_alphas(report, folder / "alphas")
    draw_counts(report, folder / "allocation")
    (folder / "allocation.json").write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def draw_alphas(report: AllocationReport, stem: Path) -> list[Path]:
    """The exponent of every block by both estimators, each on an axis of its own: their levels differ."""
    figure, left = new_figure()
    blocks = range(1, len(report.alphas[ESTIMATORS[0]]) + 1)
    right = left.twinx()
    lines = []
    for axes, estimator, colour in zip((left, right), ESTIMATORS, ("tab:blue", "tab:orange"), strict=True):
        lines += axes.plot(blocks, report.alphas[estimator], "o-", color=colour, markersize=3, label=estimator)
        axes.set_ylabel(f"alpha, {estimator}", color=colour)
    if report.budget.blocks < len(blocks):
        lines.append(left.axvline(report.budget.blocks + 0.5, color="black", linestyle="--", linewidth=1, label="cut"))
    left.set(xlabel="block", title=Path(report.base).name)
    left.locator_params(axis="x", integer=True)
    left.grid(alpha=0.25)
    figure.legend(handles=lines, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return save_figure(figure, stem)


def draw_counts(report: AllocationReport, stem: Path) -> list[Path]:
    """What every kept block gets, by method."""
    figure, axes = new_figure()
    blocks = range(1, report.budget.blocks + 1)
    for method, counts in report.counts.items():
        axes.step(blocks, counts, where="mid", linewidth=2.2 if method == "alpha" else 1.2, label=method)
    budget = report.budget
    axes.set(
        xlabel="block",
        ylabel="experts, or rank",
        title=f"{Path(report.base).name}: {budget.total} over {budget.blocks} blocks, beta {budget.beta:g}",
    )
    axes.set_ylim(bottom=0)
    axes.locator_params(integer=True)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return save_figure(figure, stem)


def _columns(report: AllocationReport) -> list[list[int]]:
    return [*report.counts.values(), *report.sensitivity.values()]


def _block_rows(report: AllocationReport, decimals: int) -> tuple[list[str], list[list[str]]]:
    """Column names and a row for each block; the counts of blocks that are not kept are empty."""
    header = ["block", *ESTIMATORS, *report.counts, *(f"beta_{beta:g}" for beta in report.sensitivity)]
    columns = _columns(report)
    rows = []
    for block in range(len(report.alphas[ESTIMATORS[0]])):
        alphas = [f"{report.alphas[estimator][block]:.{decimals}f}" for estimator in ESTIMATORS]
        counts = [str(column[block]) if block < report.budget.blocks else "" for column in columns]
        rows.append([str(block + 1), *alphas, *counts])
    return header, rows


def _csv(rows: Iterable[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
