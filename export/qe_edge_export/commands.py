"""`qe-edge export`. Light to import: torch and onnx are imported when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.commands.extras import require


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="export")(export)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that qe-edge train wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="Folder to write the bundle to.")],
    precision: Annotated[
        Literal["fp32", "fp16", "w8a8", "int8", "int4"],
        typer.Option(
            "-p",
            "--precision",
            help="fp32: the reference; fp16: half of it, for GPUs; w8a8: 8-bit weights and activations, for CPUs; "
            "int8, int4: weights alone in 8 or 4 bits, for little memory.",
        ),
    ] = "w8a8",
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle that is there.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the recipe's tables are; where the training found them if not given."),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Insist that the adapter becomes part of the weights. LoRA always does; routed experts cannot.",
        ),
    ] = False,
) -> None:
    """Turn a training run into a bundle that scores without torch.

    Merges the adapter, cuts the decoder at its tap and checks the scores against the trained model's: an export that
    differs by more than its bound is not written (exit code 8), with or without --force.
    """
    require("export", "torch", "transformers", "peft", "onnx", "onnxscript")
    require("cpu", "onnxruntime")
    from qe_edge_export.export import export_run

    bundle = export_run(run, output, precision, force, _say, data, merge=merge)
    size = bundle.size / (1 << 20)
    _say(f"{bundle.folder}: {bundle.spec.name}@{bundle.digest}, {bundle.spec.precision}, {size:.1f} MiB")


def _say(line: str) -> None:
    typer.echo(line, err=True)
