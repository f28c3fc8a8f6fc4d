"""The retrieval directions of one layer as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qe_edge_train.alignment.probe import LayerRetrieval
from qe_edge_train.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def directions_figure(point: LayerRetrieval, languages: Sequence[str]) -> Figure:
    """Heat map of the retrieval accuracy (per cent) of every direction at one layer; sources are rows."""
    side = max(4.0, 0.5 * len(languages) + 2)
    figure, axes = new_figure(side + 1, side)
    image = axes.imshow(100 * point.directions, vmin=0, vmax=100, cmap="viridis")
    ticks = np.arange(len(languages))
    axes.set_xticks(ticks, languages)
    axes.set_yticks(ticks, languages)
    axes.set_xlabel("target")
    axes.set_ylabel("source")
    axes.set_title(f"hidden_states[{point.layer}], mean {100 * point.accuracy:.1f} %")
    for row, column in zip(*np.nonzero(~np.isnan(point.directions)), strict=True):
        value = 100 * point.directions[row, column]
        colour = "white" if value < 60 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, label="retrieval accuracy, %")
    return figure
