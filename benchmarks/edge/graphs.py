"""A tiny random decoder as a graph in every precision: what runtimes are tried on.

    python -m benchmarks.edge.graphs [--work .cache/edge] [--base .cache/smollm2-135m-instruct]

The same path as an export, without what a bundle needs beside its graph: no training, no gate, no fitted head. Two of
the decoder's blocks are kept, with 8 query heads on 4 key/value heads.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir
import torch

from benchmarks.edge.rows import sample_rows
from benchmarks.gpu.decoders import SHAPES, make
from benchmarks.gpu.step import BASE, run, say
from qe_edge.bundle import MODEL_FILE, PRECISIONS
from qe_edge.errors import InputError
from qe_edge_export.export import WEIGHT_BITS
from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.passes import quantise_w4a8, quantise_w8a8, quantise_weight_only, simplify, to_half
from qe_edge_export.samples import CalibrationRows, PairRows
from qe_edge_export.writer import save_model
from qe_edge_train.build import load_cut_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.recipe import Base
from qe_edge_train.tapped import TappedRegressor

WORK = Path(".cache/edge")
"""What is made for this benchmark."""
TINY = SHAPES["tiny"]
TAP = 3
"""two of four blocks are kept"""
SPREAD = 5.0
"""Matrices are so many times those of a new decoder, which hardly mixes tokens."""
CPU = torch.device("cpu")


def tiny_regressor(base: Path) -> TappedRegressor:
    """The decoder cut at TAP with a head whose scores lie around 60; always the same. base: gives the tokenizer."""
    with TemporaryDirectory(prefix="qe-edge-edge-") as folder:
        decoder_folder = Path(folder) / "decoder"
        make(TINY, base, decoder_folder, CPU)
        decoder = load_cut_decoder(Base(str(decoder_folder), "none", "float32"), TAP, CPU)
    for weight in decoder.parameters():
        if weight.ndim > 1:
            weight.data *= SPREAD
    head = RegressionHead(HeadOptions(TINY.hidden, layer_norm=True, bias=True))
    head.shift.fill_(60.0)
    head.scale.fill_(20.0)
    return TappedRegressor(decoder, head).requires_grad_(False).eval()


def convert(graph: ir.Model, precision: str, rows: CalibrationRows) -> None:
    """Bring a float32 graph up to the states to a precision, in place. rows: what activations are measured on."""
    if precision == "fp16":
        to_half(graph, rows)
    elif precision == "w8a8":
        quantise_w8a8(graph, rows)
    elif precision == "w4a8":
        quantise_w4a8(graph, rows)
    elif precision in WEIGHT_BITS:
        quantise_weight_only(graph, rows, WEIGHT_BITS[precision])


def main() -> None:
    options_of = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options_of.add_argument("--work", type=Path, default=WORK, help=f"folder of the graphs (default {WORK})")
    options_of.add_argument("--base", type=Path, default=BASE, help=f"folder of the base (default {BASE})")
    options = options_of.parse_args()
    if not (options.base / "tokenizer.json").is_file():
        raise InputError(f"--base {options.base}: no tokenizer.json there; run make base")
    model = tiny_regressor(options.base)
    states = export_states(model)
    simplify(states)
    prefix, bodies = sample_rows()
    rows = CalibrationRows((PairRows(prefix, bodies),), key_value_shape(states))
    for precision in PRECISIONS:
        graph = states.clone()
        convert(graph, precision, rows)
        attach_head(graph, model.head)
        folder = options.work / "graphs" / precision
        folder.mkdir(parents=True, exist_ok=True)
        save_model(graph, folder)
        say(f"{folder / MODEL_FILE}")


if __name__ == "__main__":
    run(main)
