"""`qe-edge merge-adapters`. Light to import: torch comes in when the command runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qe_edge.commands.extras import require
from qe_edge.errors import InputError, UsageError

if TYPE_CHECKING:
    from qe_edge_train.recipe import DataFile

GRID = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"


def merge_adapters(
    task: Annotated[Path, typer.Argument(metavar="TASK", help="Run of a task: its head and recipe are kept.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Run on the same base, of `align` or of `train`.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="New folder for the merged run.")],
    dev: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Table that chooses the weights, repeatable. Default: the task's own."),
    ] = None,
    lp: Annotated[
        list[str] | None,
        typer.Option(metavar="PAIR", help="Language pair of the --dev tables: one for all, or one each."),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that the tables' paths start from.")] = None,
    grid: Annotated[
        str, typer.Option(metavar="W,W,...", help="Weights to try: W for W and 1 - W, or TASK:OTHER.")
    ] = GRID,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the final table only.")] = False,
) -> None:
    """Add the adapters of two runs, weighted as is best on dev.

    Writes a run like TASK, which `qe-edge export` takes, with merge.json: every combination tried and its dev scores.
    """
    weights, tables = parse_grid(grid), dev_tables(dev or [], lp or [])
    require("train", "torch", "transformers", "peft", "safetensors", "scipy", "tomli_w")
    import torch

    from qe_edge_train.merging.runs import merge_runs, merge_table
    from qe_edge_train.session import pick_device

    if threads is not None:
        torch.set_num_threads(threads)

    def report(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    run, points = merge_runs(task, other, output, weights, tables, data, pick_device(device), report)
    typer.echo(merge_table(points, run))


def parse_grid(text: str) -> list[tuple[float, float]]:
    """Weights (task, other) from W for (W, 1 - W) or TASK:OTHER, separated by commas.

    >>> parse_grid("0.9, 1:0.5")
    [(0.9, 0.1), (1.0, 0.5)]

    Raises UsageError with the value that is not a weight, or given before.
    """
    weights: list[tuple[float, float]] = []
    for item in text.split(","):
        first, colon, second = item.partition(":")
        try:
            task = float(first)
            other = float(second) if colon else round(1 - task, 9)
        except ValueError:
            raise UsageError(f"--grid: {item.strip()!r} is not a weight; give 0.5 or 1:0.5") from None
        if not (math.isfinite(task) and math.isfinite(other)) or task == other == 0:
            raise UsageError(f"--grid: {item.strip()!r}: weights are finite and not both 0")
        if (task, other) in weights:
            raise UsageError(f"--grid: {item.strip()!r}: weights {task:g}:{other:g} are given twice; give each once")
        weights.append((task, other))
    return weights


def dev_tables(paths: Sequence[str], pairs: Sequence[str]) -> list[DataFile]:
    """The --dev tables with their --lp.

    Raises UsageError unless there is no pair, one for all or one each, and for what is no language pair.
    """
    from qe_edge_train.recipe import DataFile

    if len(pairs) not in (0, 1, len(paths)) or (pairs and not paths):
        raise UsageError(f"--lp is given {len(pairs)} times for {len(paths)} --dev; give one for all, or one each")
    each = list(pairs) if len(pairs) == len(paths) else [*pairs, ""][:1] * len(paths)
    try:
        return [DataFile(path, pair) for path, pair in zip(paths, each, strict=True)]
    except InputError as error:
        raise UsageError(f"--dev, --lp: {error}") from None
