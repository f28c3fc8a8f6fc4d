"""`qe-edge bench`: how fast a bundle runs on this machine, and how far that is from what the machine can do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qe_edge.bundle import EMBEDDED_BUNDLE, open_bundle
from qe_edge.commands.extras import require
from qe_edge.errors import UsageError
from qe_edge.table.formats import open_any
from qe_edge.table.items import Input
from qe_edge.table.paths import is_special
from qe_edge.table.text import STDIN

if TYPE_CHECKING:
    from qe_edge.bench.measure import Figures
    from qe_edge.bench.operators import Operator

EMBEDDED = "embedded"


def bench(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle folder, or the word embedded.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Table, as for qe-edge score, in a file.")],
    lp: Annotated[str | None, typer.Option(metavar="PAIR", help="Languages of all rows, as in qe-edge score.")] = None,
    fields: Annotated[
        str | None, typer.Option(metavar="N,N", help="Columns of a table without a header, as in qe-edge score.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Rows taken from the start of the table.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Times that the rows are scored.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="CPU threads, as in qe-edge score.")] = None,
    tuned: Annotated[
        bool, typer.Option("--tune", help="Find the fastest settings, and keep them beside the bundle.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
) -> None:
    """Measure a bundle on a table: rows and tokens a second, share of the machine's matrix peak, memory, load time.

    Run it on an idle machine. With --tune, `qe-edge score` uses the settings found whenever it runs this bundle here;
    they change its speed and no score.
    """
    require("cpu", "onnxruntime")
    from qe_edge.bench.measure import measure
    from qe_edge.bench.tune import tune
    from qe_edge.scoring.tuning import save_tuning

    if file == STDIN or is_special(file):
        raise UsageError(f"{file}: bench reads its rows several times; give it a file, not standard input or a pipe")
    folder = EMBEDDED_BUNDLE if bundle == EMBEDDED else Path(bundle)
    prompt = open_bundle(folder).prompt

    @contextmanager
    def table() -> Iterator[Input]:
        with open_any(file, prompt=prompt, lp=lp, quoting="auto", fields=fields) as source:
            yield replace(source, items=islice(source.items, rows))

    if tuned:
        chosen = tune(folder, table, lambda line: print(line, file=sys.stderr, flush=True))
        path = save_tuning(folder, chosen)
        print(f"{path}: {chosen.workers} workers, {chosen.token_budget} tokens a batch", file=sys.stderr)
    figures, operators = measure(folder, table, threads, rounds)
    typer.echo(_as_json(figures, operators) if as_json else _as_text(figures, operators))


def _as_json(figures: Figures, operators: Sequence[Operator]) -> str:
    shares = {
        "int8_share": figures.int8_share,
        "float_share": figures.float_share,
        "matrix_share": figures.matrix_share,
    }
    content = asdict(figures) | shares | {"operators": [asdict(operator) for operator in operators]}
    return json.dumps(content, indent=2)


def _as_text(figures: Figures, operators: Sequence[Operator]) -> str:
    facts = {
        "bundle": figures.signature,
        "machine": figures.machine,
        "settings": f"{figures.workers} workers, {figures.token_budget} tokens a batch",
        "rows": f"{figures.rows} distinct, {figures.tokens / figures.rows:.1f} tokens each after the prefix",
        "load": f"{figures.load_seconds:.2f} s",
        "table to table": f"{figures.rows_per_second:.1f} rows/s",
        "graph alone": f"{figures.graph_rows_per_second:.1f} rows/s, {figures.tokens_per_second:.0f} tokens/s; "
        f"table to table reaches {figures.graph_share:.0%} of it",
        "int8 products": _against(figures.int8_operations, figures.int8_peak),
        "float32 products": _against(figures.float_operations, figures.float_peak),
        "together": f"{figures.matrix_share:.0%} of the graph's time is what its products take at these peaks",
        "peak memory": f"{figures.peak_memory_mb:.0f} MB",
    }
    lines = [f"{label:<18}{fact}" for label, fact in facts.items()]
    total = sum(operator.seconds for operator in operators)
    lines += ["", f"{'operator':<24}{'share':>7}{'calls':>8}"]
    lines += [f"{operator.name:<24}{operator.seconds / total:>7.1%}{operator.calls:>8}" for operator in operators]
    return "\n".join(lines)


def _against(reached: float, peak: float) -> str:
    return f"{reached / 1e12:.3f} of {peak / 1e12:.3f} TOP/s that this machine can do, {reached / peak:.0%}"
