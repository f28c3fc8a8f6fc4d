"""A whole measurement of a bundle on the rows of a table."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from qe_edge.bench.operators import FLOAT_PRODUCTS, INT8_PRODUCTS, Operator, Profile, profile
from qe_edge.bench.peak import matrix_peak
from qe_edge.bundle import open_bundle
from qe_edge.errors import InputError
from qe_edge.rows import Row
from qe_edge.scoring.machine import machine_name, physical_cores
from qe_edge.scoring.scorer import Job, Scorer
from qe_edge.scoring.screening import blocking_status
from qe_edge.table.items import Input
from qe_edge.table.output import open_output
from qe_edge.table.report import Report
from qe_edge.table.stream import OnTruncate, score_input

PROFILED = 12
"""batches that are profiled, spread over all"""

OpenTable = Callable[[], AbstractContextManager[Input]]


@dataclass(frozen=True)
class Figures:
    """What was measured. Times are medians over the rounds; a token is one of a row's body, padding left out."""

    signature: str
    machine: str
    workers: int
    token_budget: int
    rows: int
    tokens: int
    load_seconds: float
    """verify the bundle, load tokenizer and graph"""
    rows_per_second: float
    """from table to table: read, tokenise, run, write"""
    graph_rows_per_second: float
    """the graph alone, on the same batches"""
    tokens_per_second: float
    """the graph alone"""
    graph_share: float
    """rows_per_second / graph_rows_per_second"""
    int8_operations: float
    """multiplications and additions a second in int8 products, by the graph alone"""
    int8_peak: float
    """the same in one product as large as a bundle's: what this machine can do (qe_edge/bench/peak.py)"""
    float_operations: float
    """the same of float32 products: attention, and layers that are not in int8"""
    float_peak: float
    peak_memory_mb: float
    """largest resident memory of the process while scoring; 0 where the system does not say"""

    @property
    def int8_share(self) -> float:
        return self.int8_operations / self.int8_peak

    @property
    def float_share(self) -> float:
        return self.float_operations / self.float_peak

    @property
    def matrix_share(self) -> float:
        """Part of the graph's time that its products would take, each type at its own peak."""
        return self.int8_share + self.float_share


def measure(bundle: Path, table: OpenTable, threads: int | None, rounds: int) -> tuple[Figures, list[Operator]]:
    """Score a table `rounds` times, whole and on the graph alone in turn; then profile and measure the machine.

    table: opens the rows anew. Returns the figures and the operators of the graph, slowest first.
    """
    started = time.perf_counter()
    scorer = Scorer.of(open_bundle(bundle), device="cpu", threads=threads)
    loaded = time.perf_counter() - started
    rows = scorable(scorer, table)
    jobs = list(scorer.jobs(rows))
    tokens = sum(len(job.bodies[row]) for job in jobs for family in job.unit for row in family.rows)
    whole, graph = [], []
    for _ in range(rounds):
        # the engine stays, but a new scorer remembers no scores
        whole.append(_seconds_whole(Scorer(scorer.bundle, scorer.engine, scorer.encoder), table))
        graph.append(seconds_on_graph(scorer, jobs))
    memory = _peak_memory_mb()
    profiled = profile(scorer.bundle, jobs[:: -(-len(jobs) // PROFILED)])
    return _figures(scorer, loaded, len(rows), tokens, whole, graph, memory, profiled), profiled.operators


def _figures(
    scorer: Scorer,
    loaded: float,
    rows: int,
    tokens: int,
    whole: Sequence[float],
    graph: Sequence[float],
    memory: float,
    profiled: Profile,
) -> Figures:
    workers, seconds = scorer.engine.workers, statistics.median(graph)
    cores = min(workers, physical_cores())  # more workers than cores share these
    return Figures(
        signature=scorer.signature,
        machine=machine_name(),
        workers=workers,
        token_budget=scorer.engine.token_budget,
        rows=rows,
        tokens=tokens,
        load_seconds=loaded,
        rows_per_second=rows / statistics.median(whole),
        graph_rows_per_second=rows / seconds,
        tokens_per_second=tokens / seconds,
        graph_share=seconds / statistics.median(whole),
        int8_operations=profiled.operations(INT8_PRODUCTS) * tokens / seconds,
        int8_peak=matrix_peak("int8", cores),
        float_operations=profiled.operations(FLOAT_PRODUCTS) * tokens / seconds,
        float_peak=matrix_peak("float32", cores),
        peak_memory_mb=memory,
    )


def scorable(scorer: Scorer, table: OpenTable) -> list[Row]:
    """The distinct rows of a table that are run. Raises InputError for a table without any."""
    with table() as source:
        rows = dict.fromkeys(item.row for item in source.items)
    found = [row for row in rows if blocking_status(row, scorer.bundle.prompt) is None]
    if not found:
        raise InputError("no row of the table can be scored; give a table with some")
    return found


def seconds_on_graph(scorer: Scorer, jobs: Sequence[Job]) -> float:
    """Time that the workers take for planned rows."""
    started = time.perf_counter()
    pending = [scorer.engine.submit(job.past, job.unit, job.bodies) for job in jobs]
    for future in pending:
        future.result()
    return time.perf_counter() - started


def _seconds_whole(scorer: Scorer, table: OpenTable) -> float:
    """Time from opening the table to the finished one."""
    with TemporaryDirectory(prefix="qe-edge-bench-") as folder:
        started = time.perf_counter()
        with table() as source, open_output(str(Path(folder) / "scored.tsv"), []) as output:
            score_input(source, scorer, output, OnTruncate.SCORE, Report(StringIO(), quiet=True))
        return time.perf_counter() - started


def _peak_memory_mb() -> float:
    if sys.platform == "win32":
        return 0.0
    import resource  # which Windows lacks

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (1 << 20 if sys.platform == "darwin" else 1 << 10)
