"""One whole export: a finished run in, a verified bundle out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch

from qe_edge.bundle import FORMAT_VERSION, PRECISIONS, Bundle, BundleSpec
from qe_edge.errors import InputError, UsageError
from qe_edge.metrics import FloatArray
from qe_edge.scoring.graph import KeyValueShape
from qe_edge_export.gate import BOUNDS, DECIMALS, Figures, enforce, gate_record, in_doubt, measure, settle
from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.keeping import Keep, Kept, keep_most_harmful
from qe_edge_export.merge import check_mergeable, merged_regressor
from qe_edge_export.passes import (
    most_frequent,
    quantise_w4a8,
    quantise_w8a8,
    quantise_weight_only,
    simplify,
    to_half,
)
from qe_edge_export.refit import FEWEST_ROWS, refit_head
from qe_edge_export.samples import CalibrationRows, Samples, SampleSizes, load_samples, opened
from qe_edge_export.sensitivity import keep_in_float, layer_errors
from qe_edge_export.writer import check_target, write_bundle
from qe_edge_train.batches import EncodedSet
from qe_edge_train.evaluate import predict
from qe_edge_train.heads import RegressionHead
from qe_edge_train.output import without_nan
from qe_edge_train.run import TOKENIZER_FILE, Run, open_run
from qe_edge_train.tapped import TappedRegressor

Report = Callable[[str], None]
"""Called with one line of progress at a time."""
WEIGHT_BITS = {"int8": 8, "int4": 4}
"""Bits of a weight, by weight-only precision."""
QUANTISED = ("w8a8", "w4a8", *WEIGHT_BITS)
"""Precisions in integers, to which the head is fitted again."""
NONE: Kept = MappingProxyType({})
"""No layer stays in float32."""
PACKAGES = ("qe-edge", "torch", "transformers", "peft", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Prepared:
    """A run made ready for export in any precision: merged, scored and turned into a graph, each once."""

    run: Run
    samples: Samples
    trained: FloatArray
    """[n] scores of the gate's rows by the trained model"""
    trained_in_doubt: Callable[[], FloatArray]
    """the same of the rows for cases of doubt; the trained model is loaded again and scores them when first asked"""
    refit_targets: FloatArray
    """[m] scores of the rows for the head by the trained model; none where nothing is refitted"""
    graph: ir.Model
    """float32, up to the tapped states; every precision takes a copy"""
    head: RegressionHead
    shape: KeyValueShape


class Converted(NamedTuple):
    """A run in one precision, which the gate has passed."""

    graph: ir.Model
    """with the head"""
    figures: Figures
    kept: Kept
    """what stays in float32 of all that this precision quantises"""


def export_run(
    run_folder: Path,
    out: Path,
    precision: str,
    force: bool,
    report: Report,
    data_folder: Path | None = None,
    sizes: SampleSizes | None = None,
    merge: bool = False,
    keep: Keep = 0,
) -> Bundle:
    """Export a finished run as a bundle at `out`.

    data_folder: where the recipe's tables are now, if not where the run found them; sizes: rows to measure on; merge:
    insist on an adapter that can be merged (one that can always is); keep: how many linear layers stay in float32, or
    "auto" for as many as the gate asks for. Raises UsageError for an unknown precision, an unsupported decoder or an
    adapter that cannot be merged, InputError when run or tables cannot be read, OutputError when `out` may not be
    written, and GateError when the scores are not the trained model's: then nothing is written.
    """
    check_precision(precision, keep)
    check_target(out, force)
    prepared = prepare(run_folder, [precision], report, data_folder, sizes, merge)
    converted = keep_most_harmful(
        keep,
        attempt=lambda kept: convert(prepared, precision, report, kept),
        measure=lambda: measure_layers(prepared, precision),
        report=report,
    )
    report(f"writing {out}")
    spec = bundle_spec(prepared, precision, converted)
    return write_bundle(out, converted.graph, prepared.run.folder / TOKENIZER_FILE, spec, force)


def check_precision(precision: str, keep: Keep = 0) -> None:
    """Raise UsageError for an unknown precision, and for one in which no layer can stay in float32 when some should."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    if keep and precision not in QUANTISED:
        raise UsageError(
            f"--keep-layers {keep}: {precision} has no layers in integers; leave it out, or use "
            f"--precision {', '.join(QUANTISED)}"
        )


def prepare(
    run_folder: Path,
    precisions: Sequence[str],
    report: Report,
    data_folder: Path | None = None,
    sizes: SampleSizes | None = None,
    merge: bool = False,
) -> Prepared:
    """What an export in any of these precisions begins with. Raises as `export_run` does, but for the gate."""
    run = open_run(run_folder)
    run.head()  # a run without one, or with a damaged one, is refused before its tables are read
    if merge:
        check_mergeable(run)
    folder = data_folder or Path(run.facts.data_folder)
    samples = load_samples(run, folder, sizes)
    for table in samples.changed:
        report(f"{folder / table}: not what the training read (sha256 differs); head and checks use it as it is now")
    report(f"loading {base_name(run)} with its adapter")
    model = merged_regressor(run)
    report(f"scoring {len(samples.gate.examples)} dev rows with the trained model")
    trained = _predict(model, samples.gate)
    refit_targets = np.empty(0)
    if not set(QUANTISED).isdisjoint(precisions):
        report(f"scoring {len(samples.refit.examples)} training rows with the trained model")
        refit_targets = _predict(model, samples.refit)
    report("exporting the graph")
    graph = export_states(model)
    simplify(graph)

    @cache
    def trained_in_doubt() -> FloatArray:
        report(f"scoring {len(samples.doubt.examples)} dev rows with the trained model")
        return _predict(merged_regressor(run), samples.doubt)

    return Prepared(run, samples, trained, trained_in_doubt, refit_targets, graph, model.head, key_value_shape(graph))


def convert(
    prepared: Prepared, precision: str, report: Report, kept: Kept = NONE, loss: float | None = None
) -> Converted:
    """The graph in one precision, checked. kept: linear layers that stay in float32; loss: of correlation with human
    scores, which the figures have to be compared with beside the bounds of the gate.

    Raises GateError when its scores are not the trained model's, InputError when there are too few rows for the head,
    UsageError for a decoder that the precision does not fit.
    """
    graph, head, samples = prepared.graph.clone(), prepared.head, prepared.samples
    if precision in QUANTISED:
        keep_in_float(graph, kept)
        head = _quantise(graph, precision, prepared, report)
    elif precision == "fp16":
        to_half(graph, CalibrationRows.of(samples.calibration, prepared.shape))
    attach_head(graph, head)
    report(f"{precision}: checking scores against the trained model")
    limits = [limit for limit in (BOUNDS[precision].loss, loss) if limit is not None]
    figures = _gate(graph, prepared, precision, limits, report)
    enforce(figures, BOUNDS[precision], precision)
    return Converted(graph, figures, kept)


def measure_layers(prepared: Prepared, precision: str) -> Kept:
    """How much each linear layer alone moves the tapped states in a precision. Loads the trained model again."""
    calibration = prepared.samples.calibration
    rows = CalibrationRows.of(calibration, prepared.shape)
    return layer_errors(prepared.graph, merged_regressor(prepared.run), rows, calibration, precision)


def bundle_spec(prepared: Prepared, precision: str, converted: Converted) -> BundleSpec:
    """What `bundle.json` says of an export, but for the hashes of its files."""
    run, shape = prepared.run, prepared.shape
    recipe, facts = run.recipe, run.facts
    gate = gate_record(converted.figures, BOUNDS[precision])
    if converted.kept:
        gate["kept_layers"] = {name: round(error, DECIMALS) for name, error in converted.kept.items()}
    tables = sorted({Path(file.path).name for file in recipe.train})
    return BundleSpec(
        format_version=FORMAT_VERSION,
        name=recipe.name,
        base_model=base_name(run),
        base_family=facts.family,
        licence=recipe.base.licence,
        data=[recipe.data_name] if recipe.data_name else tables,
        strategy=recipe.head.strategy,
        taps=list(recipe.head.taps),
        blocks_kept=facts.blocks_kept,
        full_blocks=recipe.head.full_blocks,
        blocks_total=facts.blocks_total,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        prompt=recipe.head.prompt,
        bos=facts.bos,
        token_limit=recipe.head.token_limit,
        language_pairs=facts.language_pairs,
        score_scale=recipe.target.scale,
        precision=precision,
        gate=gate,
        metrics=without_nan(facts.dev),
        created_with={name: version(name) for name in PACKAGES},
        files={},
    )


def base_name(run: Run) -> str:
    """The public name of a run's base; of a local folder without one, the folder's own name, not where it lies."""
    base = run.recipe.base
    return base.name or (Path(base.model).resolve().name if Path(base.model).exists() else base.model)


def _predict(model: TappedRegressor, data: EncodedSet) -> FloatArray:
    return predict(model, data, range(len(data.examples)), torch.device("cpu"))


def _quantise(graph: ir.Model, precision: str, prepared: Prepared, report: Report) -> RegressionHead:
    """Quantise the graph in place and return the head that fits its states."""
    samples, shape = prepared.samples, prepared.shape
    rows = len(samples.refit.examples)
    if rows < FEWEST_ROWS:
        raise InputError(
            f"{rows} training rows: {precision} needs at least {FEWEST_ROWS} to refit the head; use --precision fp32"
        )
    report(f"{precision}: quantising, measured on {len(samples.calibration.examples)} training rows")
    measured = CalibrationRows.of(samples.calibration, shape)
    texts = samples.refit
    frequent = most_frequent(
        texts.prefixes[row.names] + body for row, body in zip(texts.examples, texts.bodies, strict=True)
    )
    if precision == "w8a8":
        quantise_w8a8(graph, measured, frequent=frequent)
    elif precision == "w4a8":
        quantise_w4a8(graph, measured, frequent=frequent)
    else:
        quantise_weight_only(graph, measured, WEIGHT_BITS[precision], frequent=frequent)
    report(f"{precision}: refitting the head")
    states = CalibrationRows.of(samples.refit, shape).states(graph)
    return refit_head(prepared.head, states, prepared.refit_targets)


def _gate(graph: ir.Model, prepared: Prepared, precision: str, limits: Sequence[float], report: Report) -> Figures:
    """What the gate measures on its rows; the loss on more, where these leave open on which side of a limit it is."""
    data, doubt, shape = prepared.samples.gate, prepared.samples.doubt, prepared.shape
    with opened(graph, shape) as session:
        figures = measure(session, CalibrationRows.of(data, shape), data, prepared.trained)
        if in_doubt(figures, limits) and len(doubt.examples) > figures.rows:
            report(
                f"{precision}: on {figures.rows} rows it loses {figures.loss:.4f} +- {figures.loss_error:.4f} of the "
                f"correlation with human scores: too near {' and '.join(f'{limit:g}' for limit in limits)} to tell"
            )
            figures = settle(figures, session, CalibrationRows.of(doubt, shape), doubt, prepared.trained_in_doubt())
        return figures
