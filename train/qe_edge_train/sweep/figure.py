"""The plot of a sweep: every run a dot, every configuration its mean and interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qe_edge_train.figures import new_figure, save_figure
from qe_edge_train.sweep.results import Result, Summary


def draw_summary(summaries: Sequence[Summary], results: Sequence[Result], stem: Path) -> list[Path]:
    """Mean dev Spearman of each configuration, top to bottom in the order of the sweep file."""
    figure, axes = new_figure(7.0, max(2.2, 0.4 * len(summaries) + 1.4))
    for place, summary in enumerate(summaries):
        own = [one.macro for one in results if one.planned.configuration == summary.configuration]
        values = [value for value in own if value is not None]
        axes.plot(values, [place] * len(values), "o", color="0.6", markersize=4)
        macro = summary.macro
        if macro.low is not None and macro.high is not None:
            axes.plot([macro.low, macro.high], [place, place], color="tab:blue", linewidth=1.5)
        axes.plot(macro.mean, place, "D", color="tab:blue", markersize=6)
    axes.set_yticks(range(len(summaries)), [summary.configuration for summary in summaries])
    axes.invert_yaxis()
    axes.margins(y=0.5 / max(len(summaries), 1))
    axes.set_xlabel("dev Spearman, mean over pairs")
    axes.set_title("dots: runs; diamonds: means, with 95 % interval over seeds", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    return save_figure(figure, stem)
