"""The uncut decoder as torch's exporter leaves it, in float16: plain ONNX Runtime, to compare with.

None of qe-edge's rewrites but the conversion to 16 bits: all blocks, the exporter's own nodes, and whole prompts when
it is run, with an empty past.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from qe_edge_export.graph import export_states, key_value_shape
from qe_edge_export.passes import to_half
from qe_edge_export.samples import CalibrationRows, SampleSizes, load_samples
from qe_edge_export.writer import save_model
from qe_edge_train.build import load_cut_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.run import Run
from qe_edge_train.tapped import TappedRegressor

LAST_LAYER = 1
"""The tap that leaves the decoder whole, final norm included."""
SIZES = SampleSizes(calibration=2, refit=1, gate=2)


def plain_folder(work: Path) -> Path:
    """Where model and weights lie."""
    return work / "plain"


def make_plain_graph(run: Run, work: Path) -> None:
    """Write the graph of a run's base, without its adapter, unless it is there. Its output is `state_0` [B, H]."""
    folder = plain_folder(work)
    if folder.is_dir():
        return
    base = replace(run.recipe.base, quantisation="none", dtype="float32")
    decoder = load_cut_decoder(base, LAST_LAYER, torch.device("cpu"))
    head = RegressionHead(HeadOptions(decoder.config.hidden_size, layer_norm=False, bias=False))
    graph = export_states(TappedRegressor(decoder, head).requires_grad_(False).eval())
    samples = load_samples(run, Path(run.facts.data_folder), SIZES)
    rows = CalibrationRows.of(samples.calibration, key_value_shape(graph))
    to_half(graph, rows)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_model(graph, part)
    part.rename(folder)
