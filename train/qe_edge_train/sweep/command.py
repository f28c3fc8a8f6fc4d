"""`qe-edge sweep`. Light to import: torch comes in when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.commands.extras import require

EXIT_FAILED_RUNS = 1


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.toml", help="A recipe with a [sweep] table.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the sweep; the same command continues it.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder that the recipe's paths start from. Default: the file's own."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the final table only.")] = False,
) -> None:
    """Train every variant and combination of values that a file lists, and compare them over seeds.

    Everything is checked before the first training. Finished runs are kept, an interrupted one continues. The exit code
    is 1 when a run failed.
    """
    require("train", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "scipy")
    require("train", "tensorboard", "tomli_w")
    require("report", "matplotlib")
    import torch

    from qe_edge_train.guards import writing
    from qe_edge_train.run import replace_file
    from qe_edge_train.session import pick_device
    from qe_edge_train.sweep.check import SWEEP_FILE, check_sweep
    from qe_edge_train.sweep.execute import run_sweep
    from qe_edge_train.sweep.figure import draw_summary
    from qe_edge_train.sweep.plan import load_sweep
    from qe_edge_train.sweep.results import summarise, summary_csv, summary_json, summary_table

    if threads is not None:
        torch.set_num_threads(threads)

    def report(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    plan, data_folder, chosen = load_sweep(file), data or file.parent, pick_device(device)
    check_sweep(plan, output, data_folder)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        replace_file(output / SWEEP_FILE, file.read_bytes())
        results = run_sweep(plan, output, data_folder, chosen, report)
        summaries = summarise(results)
        replace_file(output / "summary.csv", summary_csv(summaries).encode())
        replace_file(output / "summary.json", summary_json(summaries, results, chosen).encode())
        if summaries:
            draw_summary(summaries, results, output / "summary")
    typer.echo(summary_table(summaries))
    failures = [result for result in results if result.failure]
    for result in failures:
        print(f"qe-edge: {result.planned.name} failed: {result.failure}", file=sys.stderr)
    if failures:
        raise typer.Exit(EXIT_FAILED_RUNS)
