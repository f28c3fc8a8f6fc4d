"""`qe-edge export` and `qe-edge merge`. Light to import: torch and onnx are imported when the command runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.commands.extras import require
from qe_edge.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command(name="export")(export)
    app.command()(merge)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that qe-edge train wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="Folder to write the bundle to.")],
    precision: Annotated[
        Literal["fp32", "fp16", "w8a8", "w4a8", "int8", "int4", "auto"],
        typer.Option(
            "-p",
            "--precision",
            help="fp32: the reference; fp16: half of it, for GPUs; w8a8: 8-bit weights and activations, for CPUs; "
            "w4a8: the same from weights stored in 4 bits; int8, int4: weights alone in 8 or 4 bits, for little "
            "memory; auto: all of them are tried and the fastest of the good ones is written.",
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
    keep_layers: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Linear layers that stay in float32, the most harmful ones first; auto: as many as the gate asks for.",
        ),
    ] = "0",
    candidates: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="auto: precisions to try, with commas; all that the device runs if not given."
        ),
    ] = "",
    auto_loss: Annotated[
        float | None,
        typer.Option(
            metavar="LOSS", help="auto: most Spearman correlation with human scores that may be lost.  [default: 0.003]"
        ),
    ] = None,
    prefer: Annotated[
        Literal["speed", "size"] | None,
        typer.Option(help="auto: what decides among those that are good enough.  [default: speed]"),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="auto: where the speed is measured; a GPU where there is one if not given."),
    ] = None,
) -> None:
    """Turn a training run into a bundle that scores without torch.

    Merges the adapter, cuts the decoder at its tap and checks the scores against the trained model's: an export that
    differs by more than its bound is not written (exit code 8), with or without --force.
    """
    require("export", "torch", "transformers", "peft", "onnx", "onnxscript")
    require("cpu", "onnxruntime")
    if precision == "auto":
        from qe_edge_export.auto import AUTO_LOSS, Choice, export_best

        if keep_layers != "0":
            raise UsageError(
                f"--keep-layers {keep_layers}: not with --precision auto; export with the precision it finds"
            )
        if auto_loss is not None and not 0 <= auto_loss < math.inf:
            raise UsageError(f"--auto-loss {auto_loss}: give a finite number from 0")
        names = [name.strip() for name in candidates.split(",") if name.strip()]
        loss = AUTO_LOSS if auto_loss is None else auto_loss
        choice = Choice(names, loss, prefer or "speed", device or "auto")
        bundle = export_best(run, output, choice, force, _say, data, merge=merge)
    else:
        from qe_edge_export.export import export_run
        from qe_edge_export.keeping import parse_keep

        if candidates or auto_loss is not None or prefer or device:
            raise UsageError(
                f"--precision {precision}: --candidates, --auto-loss, --prefer and --device choose a precision; "
                "leave them out, or use --precision auto"
            )
        bundle = export_run(run, output, precision, force, _say, data, merge=merge, keep=parse_keep(keep_layers))
    size = bundle.size / (1 << 20)
    _say(f"{bundle.folder}: {bundle.spec.name}@{bundle.digest}, {bundle.spec.precision}, {size:.1f} MiB")


def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that qe-edge train or align wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="New folder for the model.")],
) -> None:
    """Write a run's base with its adapter merged into the weights, whole, as a folder that transformers loads.

    It can be the base of another recipe: a second training stage, or one on another layer.
    """
    require("export", "torch", "transformers", "peft")
    from qe_edge_export.whole import write_merged

    write_merged(run, output)
    _say(f"{output}: the whole decoder with the adapter of {run}")


def _say(line: str) -> None:
    typer.echo(line, err=True)
