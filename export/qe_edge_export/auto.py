"""`--precision auto`: every precision that a device runs is exported and measured, and the best one is written.

Best is the fastest on this machine, or the smallest, of those that pass their gate and lose little of the correlation
with human scores.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qe_edge.bench.measure import seconds_on_graph
from qe_edge.bundle import PRECISIONS, Bundle, open_bundle
from qe_edge.errors import GateError, InputError, OutputError, UsageError
from qe_edge.languages import parse_pair
from qe_edge.rows import Row
from qe_edge.scoring.graph import CPU_PRECISIONS, pick_device
from qe_edge.scoring.scorer import Device, Scorer
from qe_edge_export.export import Prepared, Report, bundle_spec, check_precision, convert, prepare
from qe_edge_export.gate import DECIMALS
from qe_edge_export.samples import SampleSizes
from qe_edge_export.writer import adopt_bundle, check_target, write_bundle
from qe_edge_train.batches import EncodedSet
from qe_edge_train.data import ALL
from qe_edge_train.run import TOKENIZER_FILE

AUTO_LOSS = 0.003
"""Most Spearman correlation with human scores that a candidate may lose, mean over language pairs."""
TIMED_ROWS = 200
"""Rows of the gate, spread over all, that every candidate scores in each round."""
ROUNDS = 5
"""Every candidate is timed once a round, and its median counts: what else the machine does then hits all alike."""
MIB = 1 << 20

Prefer = Literal["speed", "size"]


@dataclass(frozen=True)
class Choice:
    """What is chosen from, and how."""

    candidates: Sequence[str] = ()
    """precisions; none: all that the device runs"""
    loss: float = AUTO_LOSS
    """most Spearman correlation with human scores that may be lost"""
    prefer: Prefer = "speed"
    device: Device = "auto"
    """where the speed is measured"""


@dataclass(frozen=True)
class Candidate:
    """One precision as it came out; what was not measured is None."""

    precision: str
    verdict: str
    mib: float | None = None
    mean_difference: float | None = None
    """from the trained model's scores, in points"""
    spearman: float | None = None
    """with human scores, mean over language pairs"""
    loss: float | None = None
    """of that correlation, against the trained model"""
    rows_per_second: float | None = None
    loss_rows: int | None = None
    """on which both correlations were measured: more than the gate's where these left the loss in doubt"""


def export_best(
    run_folder: Path,
    out: Path,
    choice: Choice,
    force: bool,
    report: Report,
    data_folder: Path | None = None,
    sizes: SampleSizes | None = None,
    merge: bool = False,
) -> Bundle:
    """Export a finished run in the best of several precisions as a bundle at `out`, with the table of all in `gate`.

    The trained model is merged, scored and turned into a graph once. A precision that the run's decoder does not fit,
    or that fails its gate, is a line of the table. Raises as `export_run` does, and GateError when none is good enough:
    then nothing is written.
    """
    precisions = candidates(choice)
    check_target(out, force)
    prepared = prepare(run_folder, precisions, report, data_folder, sizes, merge)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}; give another -o") from None
    with place as folder:
        tried = [_try(prepared, precision, Path(folder) / precision, choice, report) for precision in precisions]
        good = [candidate.precision for candidate in tried if not candidate.verdict]
        if not good:
            report(table(tried))
            raise GateError(
                f"none of {', '.join(precisions)} passes its gate and loses at most {choice.loss:g}; nothing was "
                "written; allow more with --auto-loss, or export with --precision fp32"
            )
        report(f"timing {', '.join(good)}")
        rows = timed_rows(prepared.samples.gate)
        speed = rows_per_second({name: Path(folder) / name for name in good}, rows, choice.device)
        tried = [replace(each, rows_per_second=speed.get(each.precision)) for each in tried]
        best = pick(tried, choice.prefer)
        tried = [replace(each, verdict=each.verdict or _verdict(each, best, choice.prefer)) for each in tried]
        report(table(tried))
        report(reason(tried, best, choice))
        spec = open_bundle(Path(folder) / best.precision).spec
        spec = replace(spec, gate={**spec.gate, "auto": record(tried, choice)})
        return adopt_bundle(Path(folder) / best.precision, out, spec, force)


def candidates(choice: Choice) -> list[str]:
    """The precisions to try. Raises UsageError for an unknown one, DeviceError for one that the device cannot run."""
    for precision in choice.candidates:
        check_precision(precision)
        pick_device(choice.device, precision)
    device = pick_device(choice.device, "fp32")
    runnable = [name for name in PRECISIONS if device == "cpu" or name not in CPU_PRECISIONS]
    return list(dict.fromkeys(choice.candidates)) or runnable


def timed_rows(data: EncodedSet) -> list[Row]:
    """Some of the gate's rows as they are scored."""
    examples = data.examples[:: -(-len(data.examples) // TIMED_ROWS)]
    return [Row(row.texts, *(("", "") if row.pair == ALL else parse_pair(row.pair))) for row in examples]


def rows_per_second(bundles: Mapping[str, Path], rows: Sequence[Row], device: Device) -> dict[str, float]:
    """Rows a second of each bundle, the median of ROUNDS rounds in which all take turns.

    A bundle is loaded for its turn alone, so that memory holds one at a time; loading is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in bundles}
    for _ in range(ROUNDS):
        for name, folder in bundles.items():
            with Scorer.of(open_bundle(folder), device=device) as scorer:
                jobs = list(scorer.jobs(rows))
                seconds_on_graph(scorer, jobs[:1])  # the first run allocates memory
                seconds[name].append(seconds_on_graph(scorer, jobs))
    return {name: len(rows) / statistics.median(taken) for name, taken in seconds.items()}


def pick(tried: Sequence[Candidate], prefer: Prefer) -> Candidate:
    """The fastest, or the smallest, of the candidates without a verdict yet."""
    good = [each for each in tried if not each.verdict]
    return min(good, key=lambda each: (each.mib or 0.0) if prefer == "size" else -(each.rows_per_second or 0.0))


def table(tried: Sequence[Candidate]) -> str:
    """What was measured, a line for each candidate."""
    lines = [["precision", "MiB", "mean difference", "Spearman", "loss", "of rows", "rows/s", "verdict"]]
    for each in tried:
        numbers: tuple[tuple[float | None, str], ...] = (
            (each.mib, ".1f"),
            (each.mean_difference, ".2f"),
            (each.spearman, ".4f"),
            (each.loss, ".4f"),
            (each.loss_rows, "d"),
            (each.rows_per_second, ".1f"),
        )
        shown = ["-" if value is None else format(value, form) for value, form in numbers]
        lines.append([each.precision, *shown, each.verdict])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def reason(tried: Sequence[Candidate], best: Candidate, choice: Choice) -> str:
    """Why this one, in a sentence."""
    good = sum(each.rows_per_second is not None for each in tried)
    what = (
        f"the smallest, {best.mib:.1f} MiB,"
        if choice.prefer == "size"
        else f"the fastest, {best.rows_per_second:.1f} rows/s,"
    )
    return (
        f"{best.precision} is written: {what} of {good} out of {len(tried)} candidates that pass their gate and "
        f"lose at most {choice.loss:g} of the Spearman correlation with human scores."
    )


def record(tried: Sequence[Candidate], choice: Choice) -> dict[str, Any]:
    """The table as it stands in `bundle.json`, numbers to 4 decimals."""
    rounded = {
        each.precision: {
            name: round(value, DECIMALS) if isinstance(value, float) else value
            for name, value in asdict(each).items()
            if name != "precision" and value is not None
        }
        for each in tried
    }
    return {"loss": choice.loss, "prefer": choice.prefer, "candidates": rounded}


def _try(prepared: Prepared, precision: str, folder: Path, choice: Choice, report: Report) -> Candidate:
    """Export one precision to a folder; without a verdict, it is good enough."""
    try:
        converted = convert(prepared, precision, report, loss=choice.loss)
    except (GateError, InputError, UsageError) as error:
        return Candidate(precision, f"refused: {str(error).partition(';')[0]}")
    spec = bundle_spec(prepared, precision, converted)
    bundle = write_bundle(folder, converted.graph, prepared.run.folder / TOKENIZER_FILE, spec, force=False)
    figures = converted.figures
    too_much = f"loses {figures.loss:.4f} +- {figures.loss_error:.4f}, more than {choice.loss:g}"
    return Candidate(
        precision,
        verdict="" if figures.loss <= choice.loss else too_much,
        mib=bundle.size / MIB,
        mean_difference=figures.mean_difference,
        spearman=figures.spearman_exported,
        loss=figures.loss,
        loss_rows=figures.loss_rows,
    )


def _verdict(candidate: Candidate, best: Candidate, prefer: Prefer) -> str:
    if candidate is best:
        return "written"
    return "good enough, but larger" if prefer == "size" else "good enough, but slower"
