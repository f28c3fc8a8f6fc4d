"""`qe-edge allocate`. Light to import: torch comes in when the command runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.commands.extras import require
from qe_edge.errors import OutputError, UsageError
from qe_edge_train.output import check_output


def allocate(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Hub id or folder of an un-quantised decoder.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New or empty folder for the report.")],
    blocks: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Blocks kept, from the first. Default: all.")
    ] = None,
    experts: Annotated[
        float | None, typer.Option(min=1, help="Experts per kept block on average. Default: 2.5.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Or: LoRA rank per kept block on average.")] = None,
    total: Annotated[int | None, typer.Option(min=1, help="Or: what the kept blocks share altogether.")] = None,
    beta: Annotated[float, typer.Option(min=0, help="How strongly the exponents are followed; 0: not at all.")] = 2.5,
    estimator: Annotated[
        Literal["hill_median", "ks_peak"], typer.Option(help="Whose exponents the allocation follows.")
    ] = "hill_median",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
) -> None:
    """Measure how well each block of a base is trained, and share adapter capacity out accordingly.

    Compares allocation by the power-law exponents of the weights (AlphaLoRA) with uniform and grouped ones, and shows
    how it depends on beta.
    """
    require("train", "torch", "transformers", "peft", "bitsandbytes")
    require("report", "matplotlib")
    import torch

    from qe_edge_train.allocation.report import Budget, allocation_report, allocation_table, save_report
    from qe_edge_train.allocation.spectra import load_unquantised
    from qe_edge_train.build import base_facts
    from qe_edge_train.recipe import Base

    if threads is not None:
        torch.set_num_threads(threads)
    if sum(option is not None for option in (experts, rank, total)) > 1:
        raise UsageError("--experts, --rank and --total exclude each other; give one")
    for option, value in (("--experts", experts or 1.0), ("--beta", beta)):
        if not math.isfinite(value):
            raise UsageError(f"{option} {value}: give a finite number")
    check_output(output)
    depth = base_facts(Base(model=base)).blocks
    kept = blocks or depth
    if kept > depth:
        raise UsageError(f"--blocks {kept}: {base} has {depth} blocks; give at most that many")
    shared = total or (rank * kept if rank else round((experts or 2.5) * kept))
    if shared < kept:
        raise UsageError(f"--total {shared}: {kept} kept blocks need at least 1 each; give at least {kept}")
    report = allocation_report(base, load_unquantised(base), Budget(kept, shared, estimator, beta))
    try:
        save_report(report, output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}; give another -o") from None
    typer.echo(allocation_table(report))
