"""`qe-edge probe`. Light to import: torch comes in when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.commands.extras import require
from qe_edge.errors import OutputError
from qe_edge_train.output import check_output


def probe(
    subject: Annotated[Path, typer.Argument(metavar="RECIPE|RUN", help="A recipe, or a finished run.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New or empty folder for the report.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder that the recipe's paths are relative to. Default: the recipe's own."),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Training rows of each pair; 0: all.")] = 300,
    dev_rows: Annotated[int, typer.Option(min=0, help="Dev rows of each pair; 0: all.")] = 300,
    lines: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:COUNT", help="Lines of the [alignment] texts for retrieval. Default: those held out."
        ),
    ] = None,
    neighbours: Annotated[int, typer.Option(min=1, help="Neighbours in the retrieval margin.")] = 4,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the final table only.")] = False,
) -> None:
    """Measure every layer of a decoder with a closed-form head, and recommend a tap.

    Of a recipe the frozen base is probed, of a finished run the trained decoder. With an [alignment] table in the
    recipe, retrieval between its languages is measured too.
    """
    require("train", "torch", "transformers", "peft", "safetensors", "scipy", "tomli_w")
    require("report", "matplotlib")
    import torch

    from qe_edge_train.alignment.plots import directions_figure
    from qe_edge_train.figures import save_figure
    from qe_edge_train.probe.figure import draw_curve
    from qe_edge_train.probe.report import probe_csv, probe_json, probe_table
    from qe_edge_train.probe.retrieval import parse_lines
    from qe_edge_train.probe.session import ProbeOptions, run_probe
    from qe_edge_train.session import pick_device

    if threads is not None:
        torch.set_num_threads(threads)

    def report(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    options = ProbeOptions(rows, dev_rows, neighbours, None if lines is None else parse_lines(lines))
    check_output(output)
    chosen = pick_device(device)
    found = run_probe(subject, data, options, chosen, report)
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "probe.csv").write_text(probe_csv(found), encoding="utf-8")
        draw_curve(found, output / "probe")
        if found.retrieval is not None:
            heat_map = directions_figure(found.retrieval.best, found.retrieval.languages)
            save_figure(heat_map, output / "directions")
        (output / "probe.json").write_text(probe_json(found, chosen), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}; give another -o") from None
    typer.echo(probe_table(found))
