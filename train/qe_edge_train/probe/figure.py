"""The curve of a probe."""

from __future__ import annotations

from pathlib import Path

from qe_edge_train.figures import new_figure, save_figure
from qe_edge_train.probe.session import Probe

MACRO_COLOUR, RETRIEVAL_COLOUR = "black", "tab:red"


def draw_curve(probe: Probe, stem: Path) -> list[Path]:
    """Dev Spearman over blocks kept: thin lines for pairs, a thick one with its 95 % band for the mean."""
    from matplotlib import color_sequences
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(height=5.0)
    blocks = [layer.blocks_kept for layer in probe.curve]
    axes.set_prop_cycle(color=color_sequences["Set2"])
    for pair in probe.curve[0].pairs:
        axes.plot(blocks, [layer.pairs[pair] for layer in probe.curve], linewidth=1, label=pair)
    low, high = zip(*(layer.macro_interval for layer in probe.curve), strict=True)
    axes.fill_between(blocks, low, high, color=MACRO_COLOUR, alpha=0.1, linewidth=0, label="95 % interval of the mean")
    macro = [layer.macro for layer in probe.curve]
    axes.plot(blocks, macro, color=MACRO_COLOUR, linewidth=2.2, label="mean over pairs")
    best, chosen = probe.recommendation.best, probe.recommendation.chosen
    axes.plot(best.blocks_kept, best.macro, "o", color=MACRO_COLOUR, label=f"best: TL-{best.tap}")
    axes.axvline(
        chosen.blocks_kept,
        color="black",
        linestyle="--",
        linewidth=1,
        label=f"recommended: TL-{chosen.tap}, {chosen.blocks_kept} of {probe.subject.facts.blocks} blocks",
    )
    axes.set(xlabel="blocks kept", ylabel="dev Spearman, closed-form head", title=_title(probe))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    if probe.retrieval:
        second = axes.twinx()
        accuracy = [layer.accuracy for layer in probe.retrieval.curve]
        second.plot(blocks, accuracy, color=RETRIEVAL_COLOUR, linestyle=":", label="retrieval accuracy")
        second.set_ylabel("retrieval accuracy", color=RETRIEVAL_COLOUR)
        second.set_ylim(0, 1)
        more = second.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return save_figure(figure, stem)


def _title(probe: Probe) -> str:
    recipe = probe.subject.recipe
    name = recipe.base.name or Path(recipe.base.model).name
    state = "frozen" if probe.subject.run is None else "trained"
    return f"{name} ({state})"
