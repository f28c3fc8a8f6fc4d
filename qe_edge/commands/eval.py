"""`qe-edge eval`: how well scores agree with human scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.commands.extras import require
from qe_edge.errors import UsageError, one_line
from qe_edge.table.columns import SCORE_COLUMN
from qe_edge.table.paths import mode
from qe_edge.table.quoting import Quoting


def evaluate(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE.tsv...", help="Scored tables with a header; - is standard input.")
    ],
    gold: Annotated[str, typer.Option(metavar="COLUMN", help="Column with the human scores.")],
    scores: Annotated[
        list[str] | None,
        typer.Option(
            "--score",
            metavar="COLUMN",
            help=f"Column with the predicted scores; {SCORE_COLUMN} if not given. "
            "Give it again for each column to compare with the first.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Evaluate rows with the same value in this column together. "
            "If not given: column lp, or src_lang and tgt_lang, or the file.",
        ),
    ] = None,
    pool: Annotated[bool, typer.Option("--pool", help="Evaluate all rows together.")] = False,
    samples: Annotated[int, typer.Option(min=100, metavar="N", help="Bootstrap samples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the bootstrap samples.")] = 0,
    quoting: Annotated[
        Literal["auto", "none", "csv"],
        typer.Option(help="How cells are written: as they are, or in CSV quotes. auto decides from the start."),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Compare scores with human scores.

    Spearman, Pearson, Kendall tau-b, mean absolute and root mean squared error for each language pair and as a macro
    average, with 95 % bootstrap intervals. Rows without a number are left out and counted. Messages go to standard
    error.
    """
    require("eval", "scipy")
    scores = scores or [SCORE_COLUMN]
    _check(files, gold, scores, by, pool)
    from qe_edge.evaluation.caveats import caveats
    from qe_edge.evaluation.comparison import evaluate as evaluate_rows
    from qe_edge.evaluation.grouping import LANGUAGE_COLUMNS, group_rows
    from qe_edge.evaluation.reading import read_scores
    from qe_edge.evaluation.report import as_record, as_text

    needed = [] if by is None else [by]
    told = None if quoting == "auto" else Quoting(quoting)
    tables = []
    for file in files:
        table = read_scores(file, [gold, *scores], [*LANGUAGE_COLUMNS, *needed], needed, told)
        kind = "CSV-quoted" if table.quoting is Quoting.CSV else "unquoted"
        _say(f"{table.name}: {table.rows} rows, read as {kind} TSV")
        tables.append(table)
    grouping = group_rows(tables, by, pool=pool)
    if by is None and not pool:
        found = "not grouped" if grouping.by is None else f"grouped by {grouping.by}"
        _say(f"{found}; change it with --by COLUMN or --pool")
    evaluation = evaluate_rows(tables, grouping, gold, scores, samples, seed)
    warnings = caveats(evaluation, grouping)
    for warning in warnings:
        _say(f"qe-edge: warning: {warning}")
    if as_json:
        typer.echo(json.dumps(as_record(evaluation, tables, warnings), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        typer.echo(as_text(evaluation))


def _check(files: list[str], gold: str, scores: list[str], by: str | None, pool: bool) -> None:
    """Raise UsageError for options that contradict each other."""
    for what, names in (("", files), ("--score ", scores)):
        twice = [name for at, name in enumerate(names) if name in names[:at]]
        if twice:
            raise UsageError(f"{what}{twice[0]}: given twice; leave one out")
    for at, file in enumerate(files):
        for other in files[:at]:
            if mode(file) and mode(other) and Path(file).samefile(other):
                raise UsageError(f"{file}: is the same file as {other}; leave one out")
    if gold in scores:
        raise UsageError(f"--score {gold}: is the column of --gold; name a column with predicted scores")
    if by is not None and pool:
        raise UsageError(f"--by {by}: give either --by or --pool, not both")


def _say(text: str) -> None:
    print(one_line(text), file=sys.stderr)
