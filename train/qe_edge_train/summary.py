"""The table that closes a training run."""

from __future__ import annotations

from qe_edge_train.run import Run


def summary_table(run: Run) -> str:
    """Figures of the best checkpoint, then what was trained and how fast."""
    facts, recipe = run.facts, run.recipe
    base = recipe.base.name or recipe.base.model
    precision = recipe.base.quantisation if recipe.base.quantisation != "none" else recipe.base.dtype
    return "\n".join(
        [
            *(_aligned(run) if facts.head is None else _scores(run)),
            "",
            f"base      {base} ({facts.family}), {facts.blocks_kept} of {facts.blocks_total} blocks, {precision}",
            f"adapter   {_adapter(run)}, {facts.trainable} trained parameters",
            f"best      step {facts.best_step}",
            f"time      {facts.summary['seconds'] / 60:.1f} min, {facts.summary['tokens_per_second']:.0f} tokens/s "
            f"on {facts.environment['device']}, peak {facts.summary['peak_memory_mb']:.0f} MB",
            f"written   {run.folder}",
        ]
    )


def _scores(run: Run) -> list[str]:
    facts, head = run.facts, run.recipe.head
    lines = [f"{'pair':<8}{'rows':>7}{'Spearman':>10}{'Pearson':>10}{'MAE':>8}"]
    for pair, value in facts.dev["pairs"].items():
        lines.append(
            f"{pair:<8}{value['rows']:>7}{value['spearman']:>10.3f}{value['pearson']:>10.3f}{value['mae']:>8.2f}"
        )
    lines.append(f"{'mean':<8}{'':>7}{facts.dev['macro_spearman']:>10.3f}")
    return [*lines, "", f"head      {head.strategy}, {'+'.join(f'TL-{tap}' for tap in head.taps)}"]


def _aligned(run: Run) -> list[str]:
    dev = run.facts.dev
    low, high = dev["interval"]
    return [
        f"retrieval accuracy at layer {dev['layer']}, {dev['lines']} held-out lines, all directions: "
        f"{dev['retrieval_accuracy']:.3f} [{low:.3f}, {high:.3f}]"
    ]


def _adapter(run: Run) -> str:
    adapter, counts = run.recipe.adapter, run.facts.adapter
    if adapter.kind == "none":
        return "none"
    if adapter.kind == "lora":
        return f"LoRA of rank {adapter.rank}"
    what = "LoRA experts of rank " + str(adapter.rank) if adapter.kind == "experts" else "LoRA ranks"
    return f"{what}, {' '.join(map(str, counts))} by block ({adapter.allocation.method}), {sum(counts)} in all"
