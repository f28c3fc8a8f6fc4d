"""One shard through a scorer: what every engine does with it, so that the outputs of all engines are the same."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from qe_edge.errors import OutOfMemoryError, OutputError, QeEdgeError
from qe_edge.prompt import Prompt
from qe_edge.rows import Status
from qe_edge.shards.finished import finished_tally, identity, note_finished
from qe_edge.shards.folder import Shard
from qe_edge.table.formats import check_output, open_any
from qe_edge.table.inputs import unchanged
from qe_edge.table.journal import Identity
from qe_edge.table.output import open_output
from qe_edge.table.report import Report
from qe_edge.table.stream import OnTruncate, RowScorer, score_input


@dataclass(frozen=True)
class Options:
    """Options of `qe-edge score` that change what is written."""

    lp: str | None = None
    quoting: str = "auto"
    fields: str | None = None
    on_truncate: OnTruncate = OnTruncate.SCORE


@dataclass(frozen=True)
class Outcome:
    """What became of one shard."""

    shard: str
    """its name"""
    tally: Mapping[Status, int] = field(default_factory=Counter)
    """rows per status; empty after an error"""
    seconds: float = 0.0
    said: str = ""
    """lines of its report: what was assumed, rows with a fault"""
    error: QeEdgeError | None = None
    """why it is not finished"""
    before: bool = False
    """whether an earlier run had finished it"""


def score_shard(shard: Shard, scorer: RowScorer, prompt: Prompt, options: Options) -> Outcome:
    """Score one shard, go on with it, or leave it as it is where it is finished. A user's mistake is in the outcome.

    Leaves a note (`qe_edge.shards.finished`) beside the output.
    """
    said, started = io.StringIO(), time.monotonic()
    try:
        now = identity(shard, scorer.signature, asdict(options))
        tally = finished_tally(shard, now)
        if tally is not None:
            return Outcome(shard.name, tally, before=True)
        tally = _score(shard, scorer, prompt, options, now, Report(said, quiet=True))
        note_finished(shard, now, tally)
    except (QeEdgeError, MemoryError, OSError) as error:
        return Outcome(shard.name, said=said.getvalue(), error=told(error, shard))
    return Outcome(shard.name, tally, time.monotonic() - started, said.getvalue())


def _score(
    shard: Shard, scorer: RowScorer, prompt: Prompt, options: Options, now: Identity, report: Report
) -> Counter[Status]:
    """Rows per status, once the output is whole."""
    source, target = str(shard.source), str(shard.target)
    check_output(source, target)
    shard.target.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        table = opened.enter_context(
            open_any(source, prompt=prompt, lp=options.lp, quoting=options.quoting, fields=options.fields)
        )
        output = opened.enter_context(open_output(target, [source], resumable=True, finish=table.finish))
        output.resume(now)
        report.start(scorer.signature, table.said, table.assumed)
        with unchanged(now.inputs):
            tally = score_input(table, scorer, output, options.on_truncate, report)
        report.finish(tally)
    return tally


def told(error: QeEdgeError | MemoryError | OSError, shard: Shard) -> QeEdgeError:
    """An error over a shard as one for the user."""
    if isinstance(error, QeEdgeError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"{shard.source}: not enough memory; give fewer --workers or --threads")
    return OutputError(f"{shard.target}: cannot be written ({error.strerror or error}); check the folder")
