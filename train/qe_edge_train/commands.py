"""`qe-edge train` and `qe-edge align`. Light to import: torch comes in when a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.commands.extras import require
from qe_edge_train.allocation.command import allocate
from qe_edge_train.merging.command import merge_adapters
from qe_edge_train.probe.command import probe
from qe_edge_train.sweep.command import sweep

REQUIRED = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "scipy",
    "tensorboard",
    "tomli_w",
)


def register(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command()(probe)
    app.command()(train)
    app.command()(sweep)
    app.command()(align)
    app.command(name="merge-adapters")(merge_adapters)
    app.command()(allocate)


Recipe = Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What to train (docs/training.md).")]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="RUN", help="Folder of the run; the same command continues it.")
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder that the recipe's paths start from. Default: the recipe's own."),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print the final table only.")]


def train(
    recipe: Recipe,
    output: Output,
    data: Data = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train a regression head and an adapter at one or several layers of a decoder.

    With an [alignment] table, steps on the task and steps that align a layer across languages alternate. An interrupted
    run continues from its last checkpoint when the same command is given again.
    """
    _train(recipe, output, data, device, threads, quiet, task=True)


def align(
    recipe: Recipe,
    output: Output,
    data: Data = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train an adapter that aligns a middle layer across languages, without any task.

    Reads the recipe's [alignment] table. The adapter joins that of a task with `qe-edge merge-adapters`.
    """
    _train(recipe, output, data, device, threads, quiet, task=False)


def _train(
    recipe: Path, output: Path, data: Path | None, device: str, threads: int | None, quiet: bool, task: bool
) -> None:
    require("train", *REQUIRED)
    import torch

    from qe_edge_train.recipe import load_recipe
    from qe_edge_train.session import align_run, pick_device, train_run
    from qe_edge_train.summary import summary_table

    if threads is not None:
        torch.set_num_threads(threads)

    def report(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    session = train_run if task else align_run
    run = session(load_recipe(recipe), output, data or recipe.parent, pick_device(device), report)
    typer.echo(summary_table(run))
