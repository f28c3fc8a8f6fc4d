"""`qe-edge train`. Light to import: torch comes in when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.commands.extras import require

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
    app.command()(train)


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What to train (docs/training.md).")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="RUN", help="Folder of the run; the same command continues it.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder that the recipe's paths start from. Default: the recipe's own."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the final table only.")] = False,
) -> None:
    """Train a regression head and a LoRA adapter at a middle layer of a decoder.

    An interrupted run continues from its last checkpoint when the same command is given again.
    """
    require("train", *REQUIRED)
    import torch

    from qe_edge_train.recipe import load_recipe
    from qe_edge_train.session import pick_device, train_run
    from qe_edge_train.summary import summary_table

    if threads is not None:
        torch.set_num_threads(threads)

    def report(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    loaded = load_recipe(recipe)
    run = train_run(loaded, output, data or recipe.parent, pick_device(device), report)
    typer.echo(summary_table(run))
