"""An evaluation as a table for people and as a record for programs; both carry the signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from qe_edge import __version__
from qe_edge.evaluation.comparison import Evaluation, Figure, Figures, Group
from qe_edge.evaluation.reading import ScoreTable
from qe_edge.metrics import CONFIDENCE, CORRELATIONS

HEADINGS = {"spearman": "Spearman", "pearson": "Pearson", "kendall": "Kendall tau-b", "mae": "MAE", "rmse": "RMSE"}
"""measures in the order of the table's columns"""
UNDEFINED = "-"


def signature(evaluation: Evaluation) -> str:
    """What the figures depend on besides the tables: version and options."""
    return " | ".join(
        (
            f"qe-edge {__version__}",
            "eval",
            f"gold {evaluation.gold}",
            f"score {', '.join(evaluation.scores)}",
            f"by {evaluation.by}" if evaluation.by is not None else "one group",
            f"{CONFIDENCE} % percentile bootstrap, {evaluation.samples} samples, seed {evaluation.seed}",
        )
    )


def as_record(evaluation: Evaluation, tables: Sequence[ScoreTable], warnings: Sequence[str]) -> dict[str, Any]:
    """Everything, ready for JSON (docs/evaluation.md); what is undefined is None."""
    return {
        "signature": signature(evaluation),
        "version": __version__,
        "files": [{"name": table.name, "rows": table.rows, "quoting": str(table.quoting)} for table in tables],
        "confidence": CONFIDENCE / 100,
        **asdict(evaluation),
        "warnings": list(warnings),
    }


def as_text(evaluation: Evaluation) -> str:
    """The table: a line for each group and score column, the macro average last, intervals in brackets."""
    several = len(evaluation.scores) > 1
    decimals = _decimals(evaluation)
    rows = [[evaluation.by or "", "score", "rows", *HEADINGS.values()]]
    for group in evaluation.groups:
        rows += _block(
            group.name, group.rows, {score: group.scores.get(score, {}) for score in evaluation.scores}, decimals
        )
    used = [group for group in evaluation.groups if group.scores]
    if len(used) > 1:
        rows += _block(f"macro of {len(used)}", sum(group.rows for group in used), evaluation.macro, decimals)
    for score, figures in evaluation.differences.items():
        rows.append(["difference", f"{score} - {evaluation.scores[0]}", "", *_cells(figures, decimals, "+")])
    if not several:
        rows = [[name, *rest] for name, _, *rest in rows]
    intervals = f"{CONFIDENCE} % intervals from {evaluation.samples} bootstrap samples in brackets"
    about = f"agreement of {', '.join(evaluation.scores)} with {evaluation.gold}; {intervals}"
    return "\n".join(
        [about, "", *_aligned(rows, 2 if several else 1), "", _ties(evaluation), "", signature(evaluation)]
    )


def _block(name: str, rows: int, scores: Mapping[str, Figures], decimals: int) -> list[list[str]]:
    """A line for each score column; name and number of rows stand in the first."""
    lines = [["", score, "", *_cells(figures, decimals, "-")] for score, figures in scores.items()]
    lines[0][0], lines[0][2] = name, str(rows)
    return lines


def _cells(figures: Figures, decimals: int, sign: str) -> list[str]:
    """Figures with their intervals; sign: "+" to mark positive numbers, too, "-" for negative ones only."""
    return [_cell(figures.get(measure), measure, decimals, sign) for measure in HEADINGS]


def _aligned(rows: Sequence[Sequence[str]], number_at: int) -> list[str]:
    """Columns padded to the same width; the column of numbers at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if at == number_at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cell(figure: Figure | None, measure: str, decimals: int, sign: str) -> str:
    if figure is None or figure.value is None:
        return UNDEFINED
    value, *bounds = (_number(x, measure, decimals, sign) for x in (figure.value, *(figure.interval or ())))
    return f"{value} [{', '.join(bounds)}]" if bounds else value


def _number(value: float, measure: str, decimals: int, sign: str) -> str:
    """Correlations have three decimals and no zero before the point, as .661 and -.048."""
    if measure in CORRELATIONS:
        return f"{value:{sign}z.3f}".replace("0.", ".", 1)
    return f"{value:{sign}z.{decimals}f}"


def _decimals(evaluation: Evaluation) -> int:
    """Decimals of errors: two on a scale like 0 to 100, four on a scale like 0 to 1."""
    largest = max(figures["rmse"].value or 0 for figures in evaluation.macro.values())
    return 2 if largest >= 1 else 4


def _ties(evaluation: Evaluation) -> str:
    used = [group for group in evaluation.groups if group.scores]
    columns = ", ".join(f"{column} {_range(used, column)} %" for column in (evaluation.gold, *evaluation.scores))
    return f"rows that share their value with another row of the group: {columns}"


def _range(groups: Sequence[Group], column: str) -> str:
    shares = sorted({round(100 * group.tied[column]) for group in groups})
    return str(shares[0]) if len(shares) == 1 else f"{shares[0]} to {shares[-1]}"
