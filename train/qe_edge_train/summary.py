"""The table that closes a training run."""

from __future__ import annotations

from qe_edge_train.run import Run


def summary_table(run: Run) -> str:
    """Dev metrics per pair of the best checkpoint, then what was trained and how fast."""
    facts, recipe = run.facts, run.recipe
    lines = [f"{'pair':<8}{'rows':>7}{'Spearman':>10}{'Pearson':>10}{'MAE':>8}"]
    for pair, value in facts.dev["pairs"].items():
        lines.append(
            f"{pair:<8}{value['rows']:>7}{value['spearman']:>10.3f}{value['pearson']:>10.3f}{value['mae']:>8.2f}"
        )
    lines.append(f"{'mean':<8}{'':>7}{facts.dev['macro_spearman']:>10.3f}")
    base = recipe.base.name or recipe.base.model
    lines += [
        "",
        f"base      {base} ({facts.family}), {facts.blocks_kept} of {facts.blocks_total} blocks, TL-{recipe.head.tap}, "
        f"{recipe.base.quantisation if recipe.base.quantisation != 'none' else recipe.base.dtype}",
        f"best      step {facts.best_step}",
        f"time      {facts.summary['seconds'] / 60:.1f} min, {facts.summary['tokens_per_second']:.0f} tokens/s "
        f"on {facts.environment['device']}, peak {facts.summary['peak_memory_mb']:.0f} MB",
        f"written   {run.folder}",
    ]
    return "\n".join(lines)
